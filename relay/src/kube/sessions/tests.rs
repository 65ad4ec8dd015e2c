//! Sessions against an API server that fails, is away, and has objects cut and deleted.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tidegate_policy::model::{Label, Login, ObjectKey};

use super::*;
use crate::kube::mock::{Fate, Mock};
use crate::record::{Begun, Ended, Records};
use crate::state::StateDir;

const SESSIONS: &str = "supportsessions";

/// Sessions that live here, and how each was cut.
#[derive(Default)]
struct Carried(Mutex<HashMap<SessionId, (bool, Option<bool>)>>);

impl Carrier for Carried {
    fn is_live(&self, id: SessionId) -> bool {
        self.0.lock().unwrap().get(&id).is_some_and(|(live, _)| *live)
    }

    fn is_open(&self, id: SessionId) -> bool {
        self.0.lock().unwrap().contains_key(&id)
    }

    fn cut(&self, id: SessionId, deleted: bool) {
        if let Some((live, cut)) = self.0.lock().unwrap().get_mut(&id)
            && std::mem::take(live)
        {
            *cut = Some(deleted);
        }
    }
}

/// One life of a relay.
struct Relay {
    carried: Arc<Carried>,
    records: Records,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Relay {
    fn start(mock: &Mock, state: &StateDir) -> Self {
        let (records, _) = Records::open(state, "eu-a", at(9000)).unwrap();
        let carried = Arc::new(Carried::default());
        let relay = Self {
            carried: Arc::clone(&carried),
            records: records.clone(),
            // Its tasks end with it.
            runtime: Some(tokio::runtime::Runtime::new().unwrap()),
        };
        let cluster = {
            let _inside = relay.runtime.as_ref().unwrap().enter();
            mock.cluster("eu-a")
        };
        let _inside = relay.runtime.as_ref().unwrap().enter();
        run(&carried, &cluster, records.publish(), &Supervisor::new());
        relay
    }

    fn begin(&self, second: i64) -> SessionId {
        self.begin_in("tidegate", second)
    }

    fn begin_in(&self, namespace: &str, second: i64) -> SessionId {
        let mut begun = begun(second);
        begun.window.namespace = Label::parse(namespace).unwrap();
        let id = begun.id;
        self.carried.0.lock().unwrap().insert(id, (true, None));
        self.records.begin(begun);
        id
    }

    fn end(&self, id: SessionId, by: EndedBy) {
        self.carried.0.lock().unwrap().get_mut(&id).unwrap().0 = false;
        self.records.end(id, ended(by));
    }

    fn close(&self, id: SessionId) {
        self.carried.0.lock().unwrap().remove(&id);
        self.records.closed(id);
    }

    fn how_cut(&self, id: SessionId) -> Option<bool> {
        self.carried.0.lock().unwrap()[&id].1
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn begun(second: i64) -> Begun {
    let label = |text| Label::parse(text).unwrap();
    Begun {
        id: SessionId::generate(at(second)),
        window: ObjectKey { namespace: label("tidegate"), name: label("berlin") },
        window_uid: "4c6b".into(),
        opens_at: at(0),
        user: Login::parse("alice").unwrap(),
        terminal: label("kiosk-17"),
        service: label("ssh"),
        case: None,
        opened_at: at(second),
        deadline: at(7200),
    }
}

fn ended(by: EndedBy) -> Ended {
    let reason = "it is over".to_owned();
    Ended { at: at(100), by, reason, overrun_ms: 12, bytes_in: 1, bytes_out: 2 }
}

fn state() -> (tempfile::TempDir, StateDir) {
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    (dir, state)
}

fn get(mock: &Mock, id: SessionId) -> Option<Value> {
    mock.get(SESSIONS, "tidegate", &id.to_string())
}

fn says(mock: &Mock, id: SessionId, by: &str) -> bool {
    get(mock, id).is_some_and(|o| o["status"]["endedBy"] == json!(by))
}

fn is_released(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_follows_its_session_and_goes_when_all_is_closed() {
    let (mock, (_dir, state)) = (Mock::start().await, state());
    let relay = Relay::start(&mock, &state);
    let id = relay.begin(1);
    mock.until("it exists", |mock| get(mock, id).is_some()).await;
    let object = get(&mock, id).unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["tidegate.dev/relay"]));
    assert_eq!(object["metadata"]["labels"]["tidegate.dev/relay-pod"], "eu-a");
    assert_eq!(object["spec"]["user"], "alice");
    assert_eq!(object["spec"]["cut"], false);
    assert!(object["status"].is_null());

    // Deleted: it is cut, and stays until nothing of it is open.
    assert_eq!(mock.delete(SESSIONS, "tidegate", &id.to_string()), 200);
    mock.until("it is cut", |_| relay.how_cut(id) == Some(true)).await;
    relay.end(id, EndedBy::Cut);
    mock.until("it says so", |mock| says(mock, id, "Cut")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let object = get(&mock, id).unwrap();
    assert!(!is_released(&object));
    assert_eq!(object["status"]["endedAt"], json!(at(100).to_string()));
    assert_eq!(object["status"]["overrun"], "12ms");
    assert_eq!(
        (&object["status"]["bytesIn"], &object["status"]["bytesOut"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(object["status"]["conditions"][0]["reason"], "Cut");
    assert_eq!(object["status"]["observedGeneration"], 1);
    relay.close(id);
    mock.until("it goes", |mock| get(mock, id).is_none()).await;
    relay.records.published().await;

    // Not deleted: it stays, and is let go.
    let id = relay.begin(2);
    relay.end(id, EndedBy::Deadline);
    relay.close(id);
    relay.records.published().await;
    let object = get(&mock, id).unwrap();
    assert!(is_released(&object) && object["status"]["endedBy"] == "Deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_an_object_cuts_also_after_a_gap() {
    let (mock, (_dir, state)) = (Mock::start().await, state());
    let relay = Relay::start(&mock, &state);
    let ids: Vec<_> = (0..5).map(|second| relay.begin(second)).collect();
    mock.until("all exist", |mock| mock.all(SESSIONS).len() == 5).await;
    let name = |i: usize| ids[i].to_string();
    mock.patch(SESSIONS, "tidegate", &name(0), json!({"spec": {"cut": true}}));
    mock.until("spec.cut", |_| relay.how_cut(ids[0]) == Some(false)).await;
    mock.patch(SESSIONS, "tidegate", &name(1), json!({"metadata": {"finalizers": []}}));
    mock.delete(SESSIONS, "tidegate", &name(1));
    mock.until("by force", |_| relay.how_cut(ids[1]) == Some(true)).await;

    // While nobody can watch, one goes by force and one is cut; then a list tells.
    mock.fates(|_| Fate::Before(503));
    mock.drop_watches();
    tokio::time::sleep(Duration::from_millis(50)).await;
    mock.patch(SESSIONS, "tidegate", &name(2), json!({"metadata": {"finalizers": []}}));
    mock.delete(SESSIONS, "tidegate", &name(2));
    mock.patch(SESSIONS, "tidegate", &name(3), json!({"spec": {"cut": true}}));
    assert_eq!((relay.how_cut(ids[2]), relay.how_cut(ids[3])), (None, None));
    mock.fates(|_| Fate::Go);
    mock.until("gone meanwhile", |_| relay.how_cut(ids[2]) == Some(true)).await;
    mock.until("cut meanwhile", |_| relay.how_cut(ids[3]) == Some(false)).await;
    assert_eq!(relay.how_cut(ids[4]), None);
    // One that says it is another's is none of ours.
    mock.patch(SESSIONS, "tidegate", &name(4), json!({"spec": {"relayPod": "eu-b", "cut": true}}));
    let sixth = relay.begin(6);
    mock.until("a later one is seen", |mock| get(mock, sixth).is_some()).await;
    mock.patch(SESSIONS, "tidegate", &sixth.to_string(), json!({"spec": {"cut": true}}));
    mock.until("a later one is cut", |_| relay.how_cut(sixth) == Some(false)).await;
    assert_eq!(relay.how_cut(ids[4]), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_lost_while_the_api_server_is_away() {
    let (mock, (_dir, state)) = (Mock::start().await, state());
    mock.fates(|_| Fate::Before(503));
    let count = 1000;
    let mut ids = Vec::new();
    // Two lives, neither of which reaches it; memory holds a hundred records.
    for life in 0..2 {
        let relay = Relay::start(&mock, &state);
        for second in 0..count / 2 {
            let id = relay.begin(life * 1000 + second);
            relay.end(id, EndedBy::Idle);
            relay.close(id);
            ids.push(id);
            if second % 50 == 49 {
                relay.records.flush().await;
            }
        }
        let open = relay.begin(5000 + life);
        ids.push(open);
        relay.records.retain(SignedDuration::from_secs(1), at(100_000));
        relay.records.flush().await;
        assert!(relay.records.list(9999).len() <= 110, "{}", relay.records.list(9999).len());
        drop(relay);
    }
    assert_eq!(mock.all(SESSIONS), [Value::Null; 0]);
    mock.fates(|_| Fate::Go);
    let relay = Relay::start(&mock, &state);
    tokio::time::timeout(Duration::from_mins(1), relay.records.published()).await.unwrap();
    let objects = mock.all(SESSIONS);
    assert_eq!(objects.len(), ids.len());
    assert!(objects.iter().all(|o| is_released(o) && o["status"]["endedAt"].is_string()));
    let by = |by: &str| objects.iter().filter(|o| o["status"]["endedBy"] == json!(by)).count();
    assert_eq!((by("Idle"), by("Fault")), (1000, 2));
    // Now they may go, and are not told of again.
    relay.records.retain(SignedDuration::from_secs(1), at(100_000));
    relay.records.flush().await;
    assert_eq!(relay.records.list(9), []);
    assert_eq!(std::fs::read_dir(state.root().join("sessions")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_may_fail_before_and_after_it_is_done() {
    futures_util::future::join_all((0..4).map(told_of_in_the_end)).await;
}

async fn told_of_in_the_end(seed: u64) {
    let (mock, (_dir, state)) = (Mock::start().await, state());
    let mut random = StdRng::seed_from_u64(seed);
    mock.fates(move |call| match random.random_range(0..10) {
        _ if call.method == Method::GET && call.watch => Fate::Go,
        0 => Fate::Before(500),
        1 => Fate::After(500),
        2 => Fate::After(409),
        3 => Fate::Before(429),
        _ => Fate::Go,
    });
    let relay = Relay::start(&mock, &state);
    let ids: Vec<_> = (0..20).map(|second| relay.begin(second)).collect();
    for id in &ids {
        relay.end(*id, EndedBy::Staff);
        relay.close(*id);
    }
    tokio::time::timeout(Duration::from_mins(2), relay.records.published()).await.unwrap();
    let objects = mock.all(SESSIONS);
    assert_eq!(objects.len(), ids.len(), "seed {seed}");
    assert!(objects.iter().all(|o| is_released(o) && o["status"]["endedBy"] == "Staff"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_record_is_lost_is_ended_and_a_refused_one_stops_no_other() {
    let (mock, (_dir, state)) = (Mock::start().await, state());
    let relay = Relay::start(&mock, &state);
    let id = relay.begin(1);
    mock.until("it exists", |mock| get(mock, id).is_some()).await;
    drop(relay);
    let (_dir, fresh) = self::state();
    let relay = Relay::start(&mock, &fresh);
    mock.until("it is ended", |m| says(m, id, "Fault") && is_released(&get(m, id).unwrap())).await;

    let refused = relay.begin(2);
    relay.end(refused, EndedBy::Staff);
    relay.close(refused);
    let name = refused.to_string();
    mock.until("it exists", |mock| get(mock, refused).is_some()).await;
    mock.fates(move |call| {
        let this = call.name.as_ref() == Some(&name);
        if this || call.method == Method::POST && call.agent == "never" {
            Fate::Before(403)
        } else {
            Fate::Go
        }
    });
    let other = relay.begin(3);
    relay.end(other, EndedBy::Drain);
    relay.close(other);
    mock.until("the other is told of", |mock| says(mock, other, "Drain")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_requests_fail_or_hang_holds_up_no_other() {
    for fate in [Fate::Before(500), Fate::Hang] {
        let (mock, (_dir, state)) = (Mock::start().await, state());
        // As where a webhook of the tenant's is down.
        mock.fates(move |call| match call.namespace.as_deref() {
            Some("acme") if !call.watch => fate,
            _ => Fate::Go,
        });
        let relay = Relay::start(&mock, &state);
        let theirs: Vec<_> = (0..12).map(|second| relay.begin_in("acme", second)).collect();
        // All of them have had a turn, and failed.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for second in 100..110 {
            let other = relay.begin(second);
            relay.end(other, EndedBy::Drain);
            relay.close(other);
            mock.until("the other is told of", |mock| says(mock, other, "Drain")).await;
        }
        mock.fates(|_| Fate::Go);
        mock.until("theirs are told of in the end", |mock| {
            theirs.iter().all(|id| mock.get(SESSIONS, "acme", &id.to_string()).is_some())
        })
        .await;
    }
}
