//! Where a record's relay is looked for, as Meshes come and go.

use jiff::SignedDuration;
use kube::ResourceExt as _;
use serde_json::json;

use super::*;
use crate::mesh::Service;
use crate::support_session::FINALIZER;
use crate::support_session::What;

const NOW: &str = "2026-11-24T22:00:00Z";
const FINISHED: &str = "2026-11-24T21:59:58Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn tenancy(serves: &[(&str, &str)]) -> Tenancy {
    let service = |home: &str| Service {
        mesh: Key::new(home, "prod"),
        retention: SignedDuration::from_hours(1),
        selects: true,
    };
    let namespaces = serves.iter().map(|(name, home)| ((*name).to_owned(), service(home)));
    Tenancy { complete: true, namespaces: namespaces.collect(), ..Tenancy::default() }
}

fn put_session(records: &mut Records, namespace: &str, held: bool) {
    let finalizers = if held { vec![FINALIZER] } else { Vec::new() };
    let session: SupportSession = serde_json::from_value(json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportSession",
        "metadata": {"namespace": namespace, "name": "ss", "finalizers": finalizers},
        "spec": {
            "window": {"name": "w", "uid": "u"}, "opensAt": "2026-11-24T21:00:00Z", "user": "alice",
            "terminal": "kiosk-17", "service": "ssh", "relayPod": "relay-1",
            "openedAt": "2026-11-24T21:00:00Z", "deadline": "2099-01-01T00:00:00Z", "cut": false,
        },
    }))
    .unwrap();
    assert_eq!(session.name_any(), "ss");
    records.sessions.take(Change::Put(session), |session| Session::of(&session));
}

fn put_pod(records: &mut Records, namespace: &str, state: &serde_json::Value) {
    let pod: KubePod = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": "relay-1", "deletionTimestamp": NOW},
        "spec": {"nodeName": "n", "containers": []},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "relay", "image": "", "imageID": "", "ready": true,
                "restartCount": 0, "state": state}],
        },
    }))
    .unwrap();
    records.pods.take(Change::Put(pod), |pod| Pod::of(&pod));
}

/// A fleet in `fleet` that carries a session of `namespace`.
fn serving(namespace: &str) -> Records {
    let mut records = Records::default();
    records.serve(tenancy(&[("fleet", "fleet"), ("acme", "fleet")]));
    put_session(&mut records, namespace, true);
    put_pod(&mut records, "fleet", &json!({"running": {}}));
    records.sessions.take(Change::<SupportSession>::Complete, |session| Session::of(&session));
    records
}

fn step(records: &Records, namespace: &str) -> Step<support_session::Act> {
    support_session::step(records, &Key::new(namespace, "ss"), now())
}

fn end(records: &Records, namespace: &str) -> Option<(Timestamp, Option<Whereabouts>)> {
    match step(records, namespace) {
        Step::Act(act) => match act.what {
            What::End { at, by } => {
                assert_eq!(by.as_str(), "Fault");
                Some((at, act.unless_pod))
            }
            other => panic!("{other:?}"),
        },
        Step::At(_) => None,
        Step::Nothing => panic!("nothing"),
    }
}

#[test]
fn a_relay_is_found_though_its_mesh_is_gone() {
    for namespace in ["fleet", "acme"] {
        // With what was known before, and by an operator that began since.
        for remembers in [true, false] {
            let mut records = serving(namespace);
            records.serve(Tenancy { complete: true, ..Tenancy::default() });
            if !remembers {
                records.former.clear();
            }
            assert_eq!(end(&records, namespace), None, "its relay runs");
            put_pod(
                &mut records,
                "fleet",
                &json!({"terminated": {"exitCode": 0, "finishedAt": FINISHED}}),
            );
            let finished: Timestamp = FINISHED.parse().unwrap();
            assert_eq!(end(&records, namespace), Some((finished, None)));
            records.pods.take(Change::Gone(Key::new("fleet", "relay-1")), |pod| Pod::of(&pod));
            let asked = if remembers {
                Whereabouts::within("fleet", "relay-1")
            } else {
                Whereabouts { namespaces: BTreeSet::new(), name: "relay-1".into() }
            };
            assert_eq!(end(&records, namespace), Some((now(), Some(asked))));
        }
    }
}

#[test]
fn a_relay_is_found_though_another_mesh_serves_its_tenant() {
    let mut records = serving("acme");
    records.serve(tenancy(&[("other", "other"), ("acme", "other")]));
    assert_eq!(end(&records, "acme"), None, "its relay runs, in the fleet of before");
    // Nobody's pod of that name counts where the fleets are known.
    put_pod(&mut records, "evil", &json!({"running": {}}));
    records.pods.take(Change::Gone(Key::new("fleet", "relay-1")), |pod| Pod::of(&pod));
    let (_, asked) = end(&records, "acme").unwrap();
    assert_eq!(asked.unwrap().namespaces, ["fleet", "other"].map(str::to_owned).into());
}

#[test]
fn who_served_before_is_remembered_for_the_sake_of_held_records_alone() {
    let mut records = serving("acme");
    records.serve(tenancy(&[("fleet", "fleet")]));
    assert_eq!(records.former.keys().collect::<Vec<_>>(), ["acme"]);
    put_session(&mut records, "acme", false);
    records.forget_former();
    assert!(records.former.is_empty());
}

#[test]
fn of_several_pods_of_one_name_all_must_be_over() {
    let (early, late) = (PodState::Ended(None), PodState::Ended(Some(now())));
    for (states, expected) in [
        (vec![], PodState::Gone),
        (vec![early, late], late),
        (vec![late, PodState::Unknown], PodState::Unknown),
        (vec![PodState::Unknown, late, PodState::Ready], PodState::Ready),
    ] {
        assert_eq!(PodState::of_all(states.clone()), expected, "{states:?}");
    }
}
