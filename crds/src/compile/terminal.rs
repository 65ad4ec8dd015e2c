//! Terminal to policy.

use std::collections::BTreeSet;

use tidegate_policy::model::{self, Service};

use super::{Identity, Refusal, Refusals, labels, reason};
use crate::Terminal;
use crate::terminal::{Attach, Service as Declared};

/// Names that mean something else where a terminal's name is expected.
const RESERVED: [&str; 2] = ["relay", "localhost"];

/// A Terminal.
pub fn terminal(resource: &Terminal, identity: &Identity) -> Result<model::Terminal, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let spec = &resource.spec;
    let meta = refusals.meta(&resource.metadata, identity);
    if meta.as_ref().is_some_and(|meta| RESERVED.contains(&meta.key.name.as_str())) {
        refusals.add(
            "metadata.name",
            reason::RESERVED_NAME,
            "is reserved: relay and localhost are no terminals",
        );
    }
    if spec.public_keys.is_empty() {
        refusals.add("spec.publicKeys", reason::REQUIRED, "must have at least one key");
    }
    let keys = refusals.keys("spec.publicKeys", &spec.public_keys);
    let host_keys = refusals.keys("spec.hostKeys", &spec.host_keys);
    let services = services(&mut refusals, &spec.services);
    let relays =
        spec.relays.as_ref().map(|r| refusals.selector("spec.relays.selector", &r.selector));
    if spec.relays.is_some() {
        refusals.not_supported("spec.relays");
    }
    let owner = spec.owner.as_ref().map(|owner| owner.name.as_str().into());
    let compiled = meta.map(|meta| model::Terminal {
        meta,
        labels: labels(resource.metadata.labels.as_ref()),
        public_keys: keys.into_iter().map(|key| key.blob).collect(),
        host_keys: host_keys.into_iter().map(|key| key.line).collect(),
        services,
        owner,
        attach: match spec.attach {
            Attach::Always => model::Attach::Always,
            Attach::DuringWindow => model::Attach::DuringWindow,
        },
        suspended: spec.suspend,
        relays,
    });
    refusals.finish(compiled)
}

/// Names, ports and listen ports are unique within a terminal.
fn services(refusals: &mut Refusals, declared: &[Declared]) -> Vec<Service> {
    if declared.is_empty() {
        refusals.add("spec.services", reason::REQUIRED, "must have at least one service");
    }
    let (mut names, mut ports, mut listen_ports) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut services = Vec::new();
    for (i, service) in declared.iter().enumerate() {
        let at = |field: &str| format!("spec.services[{i}].{field}");
        let name = refusals.label(at("name"), &service.name);
        let port = refusals.port(at("port"), service.port);
        let listen_port = service.listen_port.map(|port| refusals.port(at("listenPort"), port));
        if name.as_ref().is_some_and(|name| !names.insert(name.clone())) {
            refusals.add(at("name"), reason::DUPLICATE, "is another service's name already");
        }
        if port.is_some_and(|port| !ports.insert(port)) {
            refusals.add(at("port"), reason::DUPLICATE, "is another service's port already");
        }
        if listen_port.flatten().is_some_and(|port| !listen_ports.insert(port)) {
            refusals.add(
                at("listenPort"),
                reason::DUPLICATE,
                "is another service's listen port already",
            );
        }
        if let (Some(name), Some(port)) = (name, port) {
            services.push(Service { name, port, listen_port: listen_port.flatten() });
        }
    }
    services
}
