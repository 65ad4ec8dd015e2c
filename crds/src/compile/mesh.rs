//! Mesh to policy.

use jiff::SignedDuration;
use tidegate_policy::model::{self, HostKeyName, HostKeys, Label, LabelSelector};

use super::{Identity, Refusal, Refusals, reason};
use crate::Mesh;
use crate::mesh::{self, HostKey, Tenants, TenantsFrom};

/// A Mesh, and which namespaces it serves beside its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledMesh {
    pub mesh: model::Mesh,
    /// Selects tenants' namespaces by their labels; `None`: the Mesh's own namespace alone.
    pub tenants: Option<LabelSelector>,
}

/// Programs of this namespace are Kubernetes' own to the admission policy, which keeps each relay to its
/// own records: it would not hold for relays here.
const EXEMPT: &str = "kube-system";

/// A Mesh.
pub fn mesh(resource: &Mesh, identity: &Identity) -> Result<CompiledMesh, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let spec = &resource.spec;
    let meta = refusals.meta(&resource.metadata, identity);
    if resource.metadata.namespace.as_deref() == Some(EXEMPT) {
        refusals.add(
            "metadata.namespace",
            reason::NAMESPACE_RESERVED,
            format_args!(
                "in {EXEMPT} the admission policy does not hold relays to their own records; make the Mesh in a namespace of its own"
            ),
        );
    }
    if !is_domain(&spec.domain) {
        refusals.add(
            "spec.domain",
            reason::INVALID_NAME,
            "must be a domain name in lower case such as support.example.com, without a trailing dot",
        );
    }
    let tenants = spec.tenants.as_ref().and_then(|t| compile_tenants(&mut refusals, t));
    let age = refusals.duration(
        "spec.maxPolicyAge",
        &spec.max_policy_age,
        SignedDuration::from_secs(10),
        SignedDuration::from_hours(168),
    );
    let retention = refusals.duration(
        "spec.sessionRetention",
        &spec.session_retention,
        SignedDuration::from_hours(1),
        SignedDuration::from_hours(8784),
    );
    let host_keys = spec.host_key.map_or(Some(HostKeys::default()), |keys| {
        let compiled = host_keys(keys);
        if compiled.is_none() {
            refusals.add(
                "spec.hostKey.announce",
                reason::INVALID_NAME,
                "must be the key that does not serve",
            );
        }
        compiled
    });
    let compiled = meta.zip(age).zip(retention).zip(host_keys);
    let compiled = compiled.map(|(((meta, max_policy_age), retention), host_keys)| {
        let mesh = model::Mesh {
            meta,
            domain: spec.domain.as_str().into(),
            max_policy_age,
            session_retention: retention,
            host_keys,
        };
        CompiledMesh { mesh, tenants }
    });
    refusals.finish(compiled)
}

/// The host keys that the Mesh wants; `None` where one is to be served and announced at once.
pub fn host_keys(keys: HostKey) -> Option<HostKeys> {
    let name = |name| match name {
        mesh::HostKeyName::A => HostKeyName::A,
        mesh::HostKeyName::B => HostKeyName::B,
    };
    let (serve, announce) = (name(keys.serve), keys.announce.map(name));
    (announce != Some(serve)).then_some(HostKeys { serve, announce })
}

fn compile_tenants(refusals: &mut Refusals, tenants: &Tenants) -> Option<LabelSelector> {
    match (tenants.from, &tenants.selector) {
        (TenantsFrom::Same, None) => None,
        (TenantsFrom::Selector, Some(selector)) => {
            Some(refusals.selector("spec.tenants.selector", selector))
        }
        _ => {
            refusals.add(
                "spec.tenants.selector",
                reason::INVALID_SELECTOR,
                "must be set with from: Selector, and only then",
            );
            None
        }
    }
}

/// At least two RFC 1123 labels, the last one no number (which would read as an address), and short
/// enough that a terminal's name fits in front (253 - 63 - 1).
fn is_domain(text: &str) -> bool {
    let number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 189
        && text.contains('.')
        && text.split('.').all(|label| Label::parse(label).is_ok())
        && text.rsplit('.').next().is_some_and(|last| !number(last))
}
