//! Step 2 of a Mesh: what is known of its keys, and what stands in its way. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use tidegate_crds::compile;
use tidegate_crds::mesh::{MeshStatus, key_fault};
use tidegate_policy::model::{HostKeyName, HostKeys};

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
    wanted: HostKeys,
) -> Validated {
    let mut validated = Validated::default();
    for which in Which::wanted(wanted) {
        match look(which, mesh, own, found.get(&which), named(status, which)) {
            State::Present(public) => {
                validated.present.insert(which, public);
            }
            State::Make if which == Which::host(wanted.serve) && others_know(status) => {
                validated.wrong.get_or_insert(not_announced(wanted.serve));
            }
            State::Make => validated.make.push(which),
            State::Wrong(objection) => {
                validated.wrong.get_or_insert(objection);
            }
        }
    }
    validated
}

/// Whether clients know a host key of the Mesh: a new one must not take its place.
fn others_know(status: Option<&MeshStatus>) -> bool {
    status.is_some_and(|status| !status.host_keys.is_empty())
}

fn not_announced(name: HostKeyName) -> Objection {
    let other = match name {
        HostKeyName::A => HostKeyName::B,
        HostKeyName::B => HostKeyName::A,
    };
    Objection {
        reason: key_fault::NOT_ANNOUNCED,
        sentence: format!(
            "spec.hostKey.serve: host key {name:?} is not there and was never announced, so that no client knows it; serve {other:?} and announce {name:?} first, and serve {name:?} once clients have accepted it"
        ),
        wholly: false,
    }
}

/// The public key that the status names.
pub fn named(status: Option<&MeshStatus>, which: Which) -> Option<&str> {
    let authority = || status?.authority.as_ref();
    let host = |name| {
        let status = status?;
        let listed = status.host_key.map_or(Some(HostKeys::default()), compile::host_keys)?;
        let place = listed.wanted().position(|listed| listed == name)?;
        status.host_keys.get(place).map(String::as_str)
    };
    match which {
        Which::HostA => host(HostKeyName::A),
        Which::HostB => host(HostKeyName::B),
        Which::Grant => authority()?.grant_key.as_deref(),
        Which::HostCa => authority()?.host_ca.as_deref(),
        Which::List => authority()?.list_key.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use HostKeyName::{A, B};
    use tidegate_crds::mesh::{HostKey, HostKeyName as Name};

    use super::*;
    use crate::mesh::keys::make;

    const A_ALONE: HostKeys = HostKeys { serve: A, announce: None };
    const A_THEN_B: HostKeys = HostKeys { serve: A, announce: Some(B) };
    const B_THEN_A: HostKeys = HostKeys { serve: B, announce: Some(A) };
    const B_ALONE: HostKeys = HostKeys { serve: B, announce: None };

    fn mesh() -> Key {
        Key::new("support", "prod")
    }

    fn status(host_keys: &[&str], host_key: Option<HostKey>) -> MeshStatus {
        let host_keys = host_keys.iter().map(|key| (*key).to_owned()).collect();
        MeshStatus { host_keys, host_key, ..MeshStatus::default() }
    }

    fn secrets(which: &[Which]) -> BTreeMap<Which, Secret> {
        which.iter().map(|which| (*which, make(*which, &mesh(), "own").unwrap())).collect()
    }

    fn look(status: &MeshStatus, found: &BTreeMap<Which, Secret>, wanted: HostKeys) -> Validated {
        validate(&mesh(), "own", Some(status), found, wanted)
    }

    #[test]
    fn a_key_is_made_when_it_is_announced_and_never_to_serve_at_once() {
        let authority = [Which::Grant, Which::HostCa, Which::List];
        let with = |host: &[Which]| [host, &authority].concat();
        let empty = MeshStatus::default();
        assert_eq!(look(&empty, &BTreeMap::new(), A_ALONE).make, with(&[Which::HostA]));
        // A Mesh that is made anew: no client knows any key of it.
        assert_eq!(
            look(&empty, &BTreeMap::new(), B_THEN_A).make,
            with(&[Which::HostB, Which::HostA])
        );
        let found = secrets(&with(&[Which::HostA]));
        let before = look(&empty, &found, A_ALONE);
        let a = before.present[&Which::HostA].clone();
        let named = status(&[&a], None);
        let announced = look(&named, &found, A_THEN_B);
        assert_eq!((announced.make, announced.wrong), (vec![Which::HostB], None));
        let refused = look(&named, &found, B_ALONE);
        assert_eq!(refused.make, []);
        let objection = refused.wrong.unwrap();
        assert_eq!(objection.reason, "KeyNotAnnounced");
        assert!(objection.sentence.is_ascii() && objection.sentence.len() <= 300);
        // As it was announced once its Secret is there.
        let found = secrets(&with(&[Which::HostA, Which::HostB]));
        assert_eq!(look(&named, &found, B_ALONE).wrong, None);
    }

    #[test]
    fn the_status_names_each_host_key_by_the_places_that_they_had() {
        let before = status(
            &["ssh-ed25519 AAAAb", "ssh-ed25519 AAAAa"],
            Some(HostKey { serve: Name::B, announce: Some(Name::A) }),
        );
        assert_eq!(named(Some(&before), Which::HostA), Some("ssh-ed25519 AAAAa"));
        assert_eq!(named(Some(&before), Which::HostB), Some("ssh-ed25519 AAAAb"));
        // A lost one is missed, also after it was told to serve.
        let lost = look(&before, &secrets(&[Which::HostB]), A_ALONE);
        assert_eq!(lost.wrong.unwrap().reason, "KeyMissing");
        // One of before there were two.
        let old = status(&["ssh-ed25519 AAAAa"], None);
        assert_eq!(named(Some(&old), Which::HostA), Some("ssh-ed25519 AAAAa"));
        assert_eq!(named(Some(&old), Which::HostB), None);
    }
}
