//! Step 5 of a Mesh: its status, written when it is another than what is there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tidegate_crds::Mesh;
use tidegate_crds::compile;
use tidegate_crds::mesh::{Authority, AuthorityLocation, MeshHolds, MeshStatus};
use tidegate_policy::model::HostKeys;

use super::keys::Which;
use super::tenancy::Objection;
use super::validate::named;
use crate::names::manager;
use crate::write::{WriteError, Writer};

/// The status that a Mesh should have. A key that is not there stays named.
pub fn desired(
    mesh: &Mesh,
    present: &BTreeMap<Which, String>,
    objection: Option<&Objection>,
    holds: MeshHolds,
    now: Timestamp,
) -> MeshStatus {
    let old = mesh.status.as_ref();
    let key = |which| {
        let named = named(old, which).map(str::to_owned);
        named.or_else(|| present.get(&which).cloned())
    };
    let (grant_key, host_ca, list_key) = (key(Which::Grant), key(Which::HostCa), key(Which::List));
    let any = grant_key.is_some() || host_ca.is_some() || list_key.is_some();
    // The serial is the grants' controller's to write.
    let authority = any.then_some(Authority {
        location: AuthorityLocation::Operator,
        grant_key,
        host_ca,
        list_key,
        serial: None,
    });
    // By their places, so that the one that serves must be there. Where it is not, those of before stay.
    let wanted = wanted(mesh);
    let before = || old.map(|old| (old.host_keys.clone(), old.host_key));
    let (host_keys, host_key) = match key(Which::host(wanted.serve)) {
        Some(serving) => {
            let announced = wanted.announce.and_then(|name| key(Which::host(name)));
            let listed = [Some(serving), announced].into_iter().flatten().collect();
            (listed, mesh.spec.host_key.filter(|_| wanted != HostKeys::default()))
        }
        None => before().unwrap_or_default(),
    };
    MeshStatus {
        authority,
        host_keys,
        host_key,
        holds: Some(holds).filter(|holds| *holds != MeshHolds::default()),
        observed_generation: mesh.metadata.generation,
        conditions: vec![ready(mesh, objection, now)],
    }
}

/// The host keys that the Mesh wants. A spec that is refused wants those that its status lists.
pub fn wanted(mesh: &Mesh) -> HostKeys {
    let listed = mesh.status.as_ref().and_then(|status| status.host_key);
    let compiled = mesh.spec.host_key.map_or(Some(HostKeys::default()), compile::host_keys);
    compiled.or_else(|| compile::host_keys(listed?)).unwrap_or_default()
}

fn ready(mesh: &Mesh, objection: Option<&Objection>, now: Timestamp) -> Condition {
    let (status, reason, message) = match objection {
        None => ("True", "Ready", "the keys are there, and no other Mesh is in the way"),
        Some(objection) => ("False", objection.reason, objection.sentence.as_str()),
    };
    let old = condition(mesh.status.as_ref());
    let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: mesh.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

/// What the status says about being Ready.
pub fn condition(status: Option<&MeshStatus>) -> Option<&Condition> {
    status?.conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Whether the Mesh has this status already.
pub fn unchanged(mesh: &Mesh, desired: &MeshStatus) -> bool {
    let Some(mut old) = mesh.status.clone() else { return false };
    if let Some(authority) = old.authority.as_mut() {
        authority.serial = None;
    }
    old.conditions.retain(|condition| condition.type_ == "Ready");
    old == *desired
}

/// Writes the status unless the Mesh has it already. `true`: it was written.
pub async fn update(
    writer: &Writer,
    mesh: &Mesh,
    desired: &MeshStatus,
) -> Result<bool, WriteError> {
    if unchanged(mesh, desired) {
        return Ok(false);
    }
    writer.apply_status(manager::MESH, mesh, desired).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mesh() -> Mesh {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "Mesh",
            "metadata": {"namespace": "support", "name": "prod", "generation": 3},
            "spec": {"domain": "support.example.com"},
        }))
        .unwrap()
    }

    fn holds() -> MeshHolds {
        let (domain, namespaces) = ("support.example.com".to_owned(), vec!["support".to_owned()]);
        MeshHolds { domain: Some(domain), namespaces }
    }

    #[test]
    fn a_status_is_written_once_and_again_only_when_it_changes() {
        let mut mesh = mesh();
        let present = BTreeMap::from([
            (Which::HostA, "ssh-ed25519 AAAAhost".to_owned()),
            (Which::Grant, "ssh-ed25519 AAAAgrant".to_owned()),
        ]);
        let first = desired(&mesh, &present, None, holds(), at(100));
        insta::assert_json_snapshot!(first, @r#"
        {
          "authority": {
            "location": "Operator",
            "grantKey": "ssh-ed25519 AAAAgrant"
          },
          "hostKeys": [
            "ssh-ed25519 AAAAhost"
          ],
          "holds": {
            "domain": "support.example.com",
            "namespaces": [
              "support"
            ]
          },
          "observedGeneration": 3,
          "conditions": [
            {
              "lastTransitionTime": "1970-01-01T00:01:40Z",
              "message": "the keys are there, and no other Mesh is in the way",
              "observedGeneration": 3,
              "reason": "Ready",
              "status": "True",
              "type": "Ready"
            }
          ]
        }
        "#);
        assert!(!unchanged(&mesh, &first));
        mesh.status = Some(first.clone());
        assert!(unchanged(&mesh, &desired(&mesh, &present, None, holds(), at(200))));
        // Another controller's serial is none of our business.
        mesh.status.as_mut().unwrap().authority.as_mut().unwrap().serial = Some(7);
        assert!(unchanged(&mesh, &desired(&mesh, &present, None, holds(), at(200))));

        let objection =
            Objection { reason: "KeyMissing", sentence: "gone".to_owned(), wholly: false };
        let second = desired(&mesh, &BTreeMap::new(), Some(&objection), holds(), at(300));
        assert_eq!(second.host_keys, first.host_keys, "the key stays named");
        assert_eq!(second.authority, first.authority);
        assert_eq!(second.conditions[0].last_transition_time, Time(at(300)));
        assert!(!unchanged(&mesh, &second));
        mesh.status = Some(first);
        assert!(!unchanged(&mesh, &desired(&mesh, &present, None, MeshHolds::default(), at(300))));
    }
    #[test]
    fn host_keys_are_listed_by_their_places_and_stay_where_an_order_is_refused() {
        let (a, b) = ("ssh-ed25519 AAAAa".to_owned(), "ssh-ed25519 AAAAb".to_owned());
        let mut mesh = mesh();
        let mut look = |spec: &str, present: &BTreeMap<Which, String>| {
            mesh.spec.host_key = serde_json::from_str(spec).unwrap();
            let status = desired(&mesh, present, None, holds(), at(100));
            mesh.status = Some(status.clone());
            (status.host_keys, serde_json::to_string(&status.host_key).unwrap())
        };
        let alone = BTreeMap::from([(Which::HostA, a.clone())]);
        assert_eq!(look("null", &alone), (vec![a.clone()], "null".to_owned()));
        // Host key B is not there and was never announced.
        let refused = look(r#"{"serve":"B"}"#, &BTreeMap::new());
        assert_eq!(refused, (vec![a.clone()], "null".to_owned()));
        let both = BTreeMap::from([(Which::HostA, a.clone()), (Which::HostB, b.clone())]);
        let announced = r#"{"serve":"A","announce":"B"}"#;
        assert_eq!(look(announced, &both), (vec![a.clone(), b.clone()], announced.to_owned()));
        // Their Secrets are gone: both stay named, in their new places.
        let turned = r#"{"serve":"B","announce":"A"}"#;
        assert_eq!(look(turned, &BTreeMap::new()), (vec![b.clone(), a], turned.to_owned()));
        let last = r#"{"serve":"B"}"#;
        assert_eq!(look(last, &both), (vec![b], last.to_owned()));
    }
}
