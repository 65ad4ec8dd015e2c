//! Records on real files: their shape, restarts, retention, and a disk that fails for a while.

use jiff::SignedDuration;
use tidegate_crds::SupportSession;

use super::*;
use crate::state::StateDir;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn begun(second: i64) -> Begun {
    let label = |text| Label::parse(text).unwrap();
    Begun {
        id: SessionId::generate(at(second)),
        window: ObjectKey { namespace: label("acme"), name: label("berlin-maint") },
        window_uid: "4c6b".into(),
        opens_at: at(0),
        user: Login::parse("bob.acme").unwrap(),
        terminal: label("kiosk-17"),
        service: label("ssh"),
        case: Some("48213".into()),
        opened_at: at(second),
        deadline: at(7200),
    }
}

fn ended(second: i64, by: EndedBy) -> Ended {
    let reason = "support window acme/berlin-maint closed".to_owned();
    Ended { at: at(second), by, reason, overrun_ms: 12, bytes_in: 1, bytes_out: 2 }
}

#[test]
fn a_session_id_is_read_as_it_is_written_and_sorts_by_time() {
    let ids: Vec<_> = (0..50).map(|second| SessionId::generate(at(second))).collect();
    assert!(ids.is_sorted());
    for id in &ids {
        assert_eq!(id.to_string().parse(), Ok(*id));
        assert_eq!(id.to_string().parse(), Ok(SessionId::from(id.uuid())));
    }
    let upper = ids[0].to_string().to_uppercase();
    let no_hyphens = format!("ss-{}", ids[0].uuid().simple());
    for bad in ["", "ss-", "ss-../../../../etc/passwd-and-36-characters", &upper, &no_hyphens] {
        assert_eq!(bad.parse::<SessionId>(), Err(BadSessionId), "{bad}");
    }
}

#[tokio::test]
async fn a_record_is_the_resource_and_comes_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let (records, left_open) = Records::open(&state, "relay-0", at(0)).unwrap();
    assert_eq!(left_open, []);
    let (one, two) = (begun(1), begun(2));
    records.begin(one.clone());
    records.begin(two.clone());
    records.end(one.id, ended(100, EndedBy::Deadline));
    records.end(one.id, ended(200, EndedBy::Staff));
    records.flush().await;
    records.healthy().unwrap();
    let path = state.root().join("sessions").join(format!("{}.json", one.id));
    let object: SupportSession = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(object.metadata.namespace.as_deref(), Some("acme"));
    assert_eq!(object.spec.user, "bob.acme");
    let status = object.status.unwrap();
    assert_eq!(status.ended_at, Some(at(100).to_string()));
    assert_eq!(status.overrun.as_deref(), Some("12ms"));
    assert_eq!(
        (status.conditions[0].type_.as_str(), status.conditions[0].reason.as_str()),
        ("Ended", "Deadline")
    );

    // As after a crash: the second is still open.
    records.alive(at(50), &[(two.id, 7, 8)]);
    records.flush().await;
    drop(records);
    let (records, left_open) = Records::open(&state, "relay-0", at(500)).unwrap();
    let [only] = &left_open[..] else { panic!("{left_open:?}") };
    let end = only.ended.as_ref().unwrap();
    assert_eq!(only.begun, two);
    assert_eq!((end.at, end.by, end.bytes_in, end.bytes_out), (at(50), EndedBy::Fault, 7, 8));
    let all = records.list(10);
    assert_eq!(all[0], *only);
    assert_eq!(all[1].begun, one);
    assert_eq!(all[1].ended, Some(ended(100, EndedBy::Deadline)));
    assert_eq!(records.list(1).len(), 1);
    records.flush().await;
    drop(records);
    let (records, left_open) = Records::open(&state, "relay-0", at(600)).unwrap();
    assert_eq!(left_open, [], "told once");
    assert_eq!(records.list(10), all);
}

#[tokio::test]
async fn a_record_lives_for_its_retention_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let (records, _) = Records::open(&state, "relay-0", at(0)).unwrap();
    let (old, young, open) = (begun(1), begun(2), begun(3));
    for begun in [&old, &young, &open] {
        records.begin(begun.clone());
    }
    records.end(old.id, ended(100, EndedBy::Staff));
    records.end(young.id, ended(101, EndedBy::Staff));
    records.flush().await;
    records.retain(SignedDuration::from_secs(50), at(150));
    records.flush().await;
    let left: Vec<_> = records.list(9).into_iter().map(|record| record.begun.id).collect();
    assert_eq!(left, [open.id, young.id]);
    assert!(records.get(old.id).is_none());
    assert!(!state.root().join("sessions").join(format!("{}.json", old.id)).exists());
}

#[tokio::test]
async fn what_cannot_be_written_waits_and_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let (records, _) = Records::open(&state, "relay-0", at(0)).unwrap();
    let (sessions, aside) = (state.root().join("sessions"), state.root().join("aside"));
    std::fs::rename(&sessions, &aside).unwrap();
    let one = begun(1);
    records.begin(one.clone());
    records.flush().await;
    assert!(records.healthy().unwrap_err().contains("cannot be written"));
    assert!(records.get(one.id).is_some());
    std::fs::rename(&aside, &sessions).unwrap();
    records.flush().await;
    records.healthy().unwrap();
    assert!(sessions.join(format!("{}.json", one.id)).exists());
}

#[tokio::test]
async fn a_damaged_record_is_passed_over_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let sessions = state.subdirectory("sessions").unwrap();
    let damaged = sessions.join(format!("{}.json", SessionId::generate(at(1))));
    std::fs::write(&damaged, "{").unwrap();
    let (records, left_open) = Records::open(&state, "relay-0", at(0)).unwrap();
    assert_eq!((records.list(9), left_open), (Vec::new(), Vec::new()));
    assert!(damaged.exists());
}
