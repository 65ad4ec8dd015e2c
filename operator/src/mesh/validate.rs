//! Step 2 of a Mesh: what is known of its keys, and what stands in its way. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use tidegate_crds::mesh::MeshStatus;

use super::keys::{State, Which, look};
use super::tenancy::Objection;
use crate::watching::Key;

/// A Mesh whose keys were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validated {
    /// The public halves of the keys that are there and right.
    pub present: BTreeMap<Which, String>,
    /// The keys to make.
    pub make: Vec<Which>,
    /// What is wrong with the first key that is.
    pub wrong: Option<Objection>,
}

/// Looks at each key, and at what the status says of it.
pub fn validate(
    mesh: &Key,
    own: &str,
    status: Option<&MeshStatus>,
    found: &BTreeMap<Which, Secret>,
) -> Validated {
    let mut validated = Validated::default();
    for which in Which::ALL {
        match look(which, mesh, own, found.get(&which), named(status, which)) {
            State::Present(public) => {
                validated.present.insert(which, public);
            }
            State::Make => validated.make.push(which),
            State::Wrong(objection) => {
                validated.wrong.get_or_insert(objection);
            }
        }
    }
    validated
}

/// The public key that the status names.
pub fn named(status: Option<&MeshStatus>, which: Which) -> Option<&str> {
    let authority = || status?.authority.as_ref();
    match which {
        Which::Host => status?.host_keys.first().map(String::as_str),
        Which::Grant => authority()?.grant_key.as_deref(),
        Which::HostCa => authority()?.host_ca.as_deref(),
        Which::List => authority()?.list_key.as_deref(),
    }
}
