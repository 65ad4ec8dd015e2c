//! LoginUser to policy.

use std::net::IpAddr;

use ipnet::IpNet;
use tidegate_policy::model::{self, Label, Login};
use tidegate_policy::text::shown;

use super::{Identity, Refusal, Refusals, reason};
use crate::LoginUser;

/// Logins that belong to nobody, beside `g-*`, which guests have.
const RESERVED: [&str; 2] = ["root", "terminal"];

/// A LoginUser of the Mesh that lives in namespace `mesh`.
pub fn login_user(
    resource: &LoginUser,
    identity: &Identity,
    mesh: &Label,
) -> Result<model::LoginUser, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let spec = &resource.spec;
    let meta = refusals.meta(&resource.metadata, identity);
    if let Some(meta) = &meta {
        let name = meta.key.name.as_str();
        if RESERVED.contains(&name) || name.starts_with("g-") {
            refusals.add(
                "metadata.name",
                reason::RESERVED_NAME,
                "is reserved: root, terminal and g-* are no logins",
            );
        }
    }
    if spec.public_keys.is_empty() {
        refusals.add("spec.publicKeys", reason::REQUIRED, "must have at least one key");
    }
    let keys = refusals.keys("spec.publicKeys", &spec.public_keys);
    let groups = refusals.labels("spec.groups", &spec.groups);
    let valid_until = refusals.timestamp("spec.validUntil", spec.valid_until.as_ref());
    let mut source_ranges = Vec::new();
    for (i, text) in spec.source_ranges.iter().enumerate() {
        let at = format!("spec.sourceRanges[{i}]");
        source_ranges.extend(refusals.take(at, reason::INVALID_ADDRESS, address_range(text)));
    }
    let compiled = meta.map(|meta| model::LoginUser {
        login: Login::of(&meta.key, mesh),
        meta,
        public_keys: keys.into_iter().map(|key| key.blob).collect(),
        groups,
        valid_until,
        source_ranges,
        suspended: spec.suspend,
    });
    refusals.finish(compiled)
}

/// A range in CIDR form without bits beyond its prefix, or one address.
pub(super) fn address_range(text: &str) -> Result<IpNet, String> {
    let bad = || {
        format!("'{}' is not an address or range; write it as in 203.0.113.0/24", shown(text, 60))
    };
    let range = if text.contains('/') {
        text.parse::<IpNet>().map_err(|_| bad())?
    } else {
        IpNet::from(text.parse::<IpAddr>().map_err(|_| bad())?)
    };
    if let IpNet::V6(range) = &range
        && range.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!(
            "'{}' is an IPv4 address in IPv6 form; write it as in 203.0.113.0/24",
            shown(text, 60)
        ));
    }
    if range.trunc() != range {
        return Err(format!(
            "'{}' has bits set beyond its prefix; did you mean {}?",
            shown(text, 60),
            range.trunc()
        ));
    }
    Ok(range)
}
