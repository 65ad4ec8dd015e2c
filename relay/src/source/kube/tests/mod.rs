//! The source against an API server that misbehaves.

mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_crds::manifest::Kind;
use tidegate_policy::model::Label;
use tokio::sync::Notify;

use super::Starting;
use crate::clock;
use crate::metrics::Metrics;
use crate::source::{Feed, Policy, current};
use crate::state::StateDir;
use crate::supervisor::Supervisor;
use server::{Running, Server, client};

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Bench {
    server: Server,
    running: Running,
    state: tempfile::TempDir,
    tasks: Supervisor,
}

impl Bench {
    /// An API server with a Mesh, a Relay, a user and a terminal; pages have three objects.
    async fn new() -> Self {
        Self::bare().await.filled()
    }

    fn filled(self) -> Self {
        self.mesh(&json!({}));
        self.relay();
        self.server.put(
            Kind::LoginUser,
            "gate",
            "alice",
            json!({"spec": {"publicKeys": [key(1)]}}),
        );
        self.terminal("gate", "kiosk", 2);
        self
    }

    async fn bare() -> Self {
        Self::with_pages(3).await
    }

    async fn with_pages(objects: usize) -> Self {
        let tasks = Supervisor::new();
        let server = Server::new(objects);
        let running = server.listen(&tasks).await;
        let state = tempfile::tempdir().unwrap();
        Self { server, running, state, tasks }
    }

    fn mesh(&self, more: &Value) {
        let mut spec = json!({
            "domain": "support.example.com", "maxPolicyAge": "10s", "sessionRetention": "168h",
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        self.server.put(
            Kind::Mesh,
            "gate",
            "prod",
            json!({"spec": spec, "status": {"conditions": ready}}),
        );
    }

    fn relay(&self) {
        self.server.put(
            Kind::Relay,
            "gate",
            "eu",
            json!({"spec": {
                "meshRef": {"name": "prod"}, "replicas": 1, "listeners": [{"port": 5938}],
                "exposure": {"type": "NodePort"}, "drain": {"timeout": "30m"},
                "limits": {"unauthenticated": 1024, "perSource": 128, "sessionsPerUser": 8},
                "dns": {"provider": "None", "ttl": "60s"},
            }}),
        );
    }

    fn terminal(&self, namespace: &str, name: &str, number: u8) {
        self.server.put(
            Kind::Terminal,
            namespace,
            name,
            json!({"spec": {
                "publicKeys": [key(number)], "hostKeys": [key(number)], "attach": "Always",
                "services": [{"name": "ssh", "port": 22}],
            }}),
        );
    }

    fn window(&self, namespace: &str, name: &str, suspend: bool) {
        self.server.put(
            Kind::SupportWindow,
            namespace,
            name,
            json!({"spec": {
                "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk"]},
                "services": ["ssh"], "consent": "NotRequired", "suspend": suspend,
                "schedule": {"once": {
                    "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z",
                }},
            }}),
        );
    }

    /// A window with so many bytes that are no policy.
    fn fat_window(&self, name: &str, bytes: usize) {
        self.server.put(
            Kind::SupportWindow,
            "gate",
            name,
            json!({"metadata": {"annotations": {"fat": "x".repeat(bytes)}}, "spec": {
                "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk"]},
                "services": ["ssh"], "consent": "NotRequired",
                "schedule": {"once": {
                    "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z",
                }},
            }}),
        );
    }

    fn state(&self) -> StateDir {
        StateDir::open(&self.state.path().join("state")).unwrap()
    }

    async fn start(&self, state: &StateDir) -> Starting {
        let metrics = Arc::new(Metrics::new().unwrap());
        super::start(
            client(self.running.address),
            Label::parse("gate").unwrap(),
            Label::parse("eu").unwrap(),
            state,
            metrics,
            &self.tasks,
        )
        .await
        .unwrap()
    }

    async fn feed(&self) -> Feed {
        let state = self.state();
        let mut starting = self.start(&state).await;
        policy(&mut starting).await
    }

    fn away(&self) {
        self.server.go_away();
    }

    fn back(&self) {
        self.server.come_back();
    }
}

fn key(number: u8) -> String {
    use base64::Engine as _;
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0 ".to_vec();
    blob.extend_from_slice(&[number; 32]);
    format!("ssh-ed25519 {}", base64::engine::general_purpose::STANDARD.encode(blob))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came of it")
}

async fn policy(starting: &mut Starting) -> Feed {
    within(starting.policy()).await.expect("the source ended")
}

/// Waits until the policy is as it should be.
async fn until(feed: &mut Feed, what: impl Fn(&Policy) -> bool) -> Arc<Policy> {
    within(async {
        loop {
            let policy = Arc::clone(&feed.borrow_and_update());
            if what(&policy) {
                return policy;
            }
            feed.changed().await.expect("the source ended");
        }
    })
    .await
}

/// Waits until the sentences are as they should be; they have no event.
async fn told(starting: &Starting, what: &str) {
    within(async {
        loop {
            let reasons = starting.status.incomplete();
            if reasons.iter().any(|reason| reason.contains(what)) {
                let fit = |reason: &String| reason.is_ascii() && reason.len() <= 300;
                assert!(reasons.iter().all(fit), "{reasons:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn windows(policy: &Policy) -> BTreeSet<String> {
    policy.snapshot.windows().map(|window| window.meta.key.to_string()).collect()
}

fn suspended(policy: &Policy, name: &str) -> Option<bool> {
    let mut windows = policy.snapshot.windows();
    windows.find(|window| window.meta.key.name.as_str() == name).map(|window| window.suspended)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_policy_is_whole_and_published_once() {
    let bench = Bench::new().await;
    for number in 0..50 {
        bench.window("gate", &format!("w{number}"), false);
    }
    let hold = Arc::new(Notify::new());
    bench.server.faults(|faults| {
        let _ = faults.hold.insert("supportwindows", Arc::clone(&hold));
    });
    let state = bench.state();
    let mut starting = bench.start(&state).await;
    told(&starting, "4 of 5 lists are complete").await;
    let early = tokio::time::timeout(Duration::from_millis(100), starting.policy()).await;
    assert!(early.is_err(), "published before every list was read");
    bench.server.faults(|faults| {
        faults.hold.clear();
    });
    hold.notify_one();
    let feed = policy(&mut starting).await;
    let policy = current(&feed);
    assert_eq!((policy.serial, policy.snapshot.windows().count()), (1, 50));
    assert_eq!(policy.snapshot.users().count() + policy.snapshot.terminals().count(), 2);
    policy.fresh(clock::now()).unwrap();
    within(async {
        while !starting.status.incomplete().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_change_policy_at_once_and_repeats_change_nothing() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", false);
    let mut feed = bench.feed().await;
    assert_eq!(suspended(&current(&feed), "berlin"), Some(false));
    bench.window("gate", "berlin", true);
    until(&mut feed, |policy| suspended(policy, "berlin") == Some(true)).await;
    bench.server.faults(|faults| faults.twice = true);
    bench.window("gate", "paris", false);
    let first = until(&mut feed, |policy| suspended(policy, "paris").is_some()).await;
    bench.server.delete(Kind::SupportWindow, "gate", "paris");
    let second = until(&mut feed, |policy| suspended(policy, "paris").is_none()).await;
    assert_eq!(second.serial, first.serial + 1, "a repeated event woke somebody");
    // What waits for a finalizer is revoked all the same.
    bench.server.put(
        Kind::SupportWindow,
        "gate",
        "berlin",
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {
            "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk"]}, "services": ["ssh"],
            "schedule": {"once": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}},
        }}),
    );
    until(&mut feed, |policy| windows(policy).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_read_again_takes_nothing_away_before_its_end() {
    let bench = Bench::new().await;
    for number in 0..20 {
        bench.window("gate", &format!("w{number}"), false);
    }
    let mut feed = bench.feed().await;
    let (lists, _) = bench.server.asked(Kind::SupportWindow);
    // While nobody watched, one went, one came, one changed; then lists break off, and tokens expire.
    bench.away();
    bench.server.faults(|faults| {
        faults.cut_pages.insert("supportwindows", 3);
        faults.old_tokens.insert("supportwindows", 2);
    });
    bench.server.delete(Kind::SupportWindow, "gate", "w3");
    bench.window("gate", "new", false);
    bench.window("gate", "w5", true);
    bench.server.forget_events();
    bench.back();
    let stay: BTreeSet<String> =
        (0..20).filter(|number| *number != 3).map(|number| format!("gate/w{number}")).collect();
    let mut seen = Vec::new();
    within(async {
        loop {
            let policy = Arc::clone(&feed.borrow_and_update());
            let windows = windows(&policy);
            assert!(windows.is_superset(&stay), "half a list was published: {windows:?}");
            let now = (windows.contains("gate/w3"), windows.contains("gate/new"));
            seen.push((now, suspended(&policy, "w5")));
            if now == (false, true) {
                break;
            }
            feed.changed().await.unwrap();
        }
    })
    .await;
    // All of it in one step.
    assert!(seen.iter().rev().skip(1).all(|it| *it == ((true, false), Some(false))), "{seen:?}");
    assert_eq!(seen.last(), Some(&((false, true), Some(true))));
    assert!(bench.server.asked(Kind::SupportWindow).0 >= lists + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_gone_amid_a_watch_lists_anew() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", false);
    let mut feed = bench.feed().await;
    let (lists, _) = bench.server.asked(Kind::SupportWindow);
    bench.server.faults(|faults| {
        let _ = faults.gone.insert("supportwindows");
    });
    bench.window("gate", "paris", false);
    let policy = until(&mut feed, |policy| suspended(policy, "paris").is_some()).await;
    assert!(suspended(&policy, "berlin").is_some());
    // The event may have overtaken the end of its watch; and a watch that was given up before may have
    // been told in the place of the one that runs.
    within(async {
        while bench.server.asked(Kind::SupportWindow).0 == lists {
            bench.server.faults(|faults| {
                let _ = faults.gone.insert("supportwindows");
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(windows(&current(&feed)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_out_of_force_and_stops_nothing() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", false);
    let mut feed = bench.feed().await;
    bench.server.put(Kind::SupportWindow, "gate", "berlin", json!({"spec": {"services": 7}}));
    bench.window("gate", "paris", false);
    let policy = until(&mut feed, |policy| suspended(policy, "paris").is_some()).await;
    assert_eq!(suspended(&policy, "berlin"), None);
    let about: Vec<String> = policy.findings.iter().map(ToString::to_string).collect();
    assert_eq!(about.len(), 1);
    assert!(about[0].starts_with("SupportWindow gate/berlin: the object cannot be understood"));
    assert!(about[0].is_ascii() && policy.findings[0].message.len() <= 600);
    // One that our types take and the policy does not.
    bench.server.put(
        Kind::LoginUser,
        "gate",
        "bob",
        json!({"spec": {"publicKeys": ["ssh-ed25519 nonsense"]}}),
    );
    let policy = until(&mut feed, |policy| policy.findings.len() == 2).await;
    assert_eq!(policy.findings[1].field.as_deref(), Some("spec.publicKeys[0]"));
    bench.server.delete(Kind::LoginUser, "gate", "bob");
    bench.window("gate", "berlin", false);
    let policy = until(&mut feed, |policy| suspended(policy, "berlin").is_some()).await;
    until(&mut feed, |policy| policy.findings.is_empty()).await;
    assert!(policy.snapshot.users().count() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fat_objects_make_pages_small_and_one_that_is_too_fat_is_named() {
    const MIB: usize = 1 << 20;
    let bench = Bench::with_pages(usize::MAX).await.filled();
    for number in 0..5 {
        bench.fat_window(&format!("fat{number}"), 3 * MIB / 2);
    }
    bench.fat_window("fatter", 5 * MIB);
    for number in 0..100 {
        bench.window("gate", &format!("w{number}"), false);
    }
    let mut feed = bench.feed().await;
    let policy = current(&feed);
    assert_eq!(windows(&policy).len(), 105);
    assert_eq!(policy.unreadable, None);
    let about: Vec<String> = policy.findings.iter().map(ToString::to_string).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert!(about[0].starts_with("SupportWindow gate/fatter: "), "{about:?}");
    assert!(about[0].contains("it is larger than 4 MiB; make it smaller"), "{about:?}");
    let asked = bench.server.limits();
    assert!(asked.contains(&500) && asked.contains(&125), "fewer are asked for: {asked:?}");

    // By events, without a list: another becomes too fat and is out of force, and both lose weight.
    let (lists, _) = bench.server.asked(Kind::SupportWindow);
    bench.fat_window("fatter", 6 * MIB);
    bench.fat_window("fat0", 5 * MIB);
    let policy = until(&mut feed, |policy| policy.findings.len() == 2).await;
    assert_eq!(suspended(&policy, "fat0"), None);
    bench.fat_window("fatter", MIB);
    bench.window("gate", "fat0", true);
    let policy = until(&mut feed, |policy| windows(policy).len() == 106).await;
    assert_eq!((suspended(&policy, "fat0"), policy.findings.len()), (Some(true), 0));
    // One that is too fat goes as any other.
    bench.fat_window("fatter", 5 * MIB);
    until(&mut feed, |policy| policy.findings.len() == 1).await;
    bench.server.delete(Kind::SupportWindow, "gate", "fatter");
    let policy = until(&mut feed, |policy| policy.findings.is_empty()).await;
    assert_eq!(windows(&policy).len(), 105);
    assert_eq!(bench.server.asked(Kind::SupportWindow).0, lists, "it was listed anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_set_back_is_listed_anew() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", true);
    let mut feed = bench.feed().await;
    let backup = bench.server.backup();
    for number in 0..20 {
        bench.window("gate", &format!("w{number}"), false);
    }
    bench.window("gate", "berlin", false);
    let whole = |policy: &Policy| windows(policy).len() == 21;
    until(&mut feed, |policy| whole(policy) && suspended(policy, "berlin") == Some(false)).await;
    bench.server.set_back(backup);
    let policy = until(&mut feed, |policy| windows(policy).len() == 1).await;
    assert_eq!(suspended(&policy, "berlin"), Some(true));
    // Its version is one that was before.
    bench.window("gate", "rome", false);
    until(&mut feed, |policy| suspended(policy, "rome").is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_mesh_that_cannot_be_decoded_keeps_its_namespace() {
    let bench = Bench::new().await;
    let labels = json!({"metadata": {"labels": {"tidegate.dev/mesh": "prod"}}});
    for namespace in ["acme", "bolt"] {
        bench.server.put(Kind::Namespace, "", namespace, labels.clone());
        bench.window(namespace, "paris", false);
    }
    bench.server.put(Kind::Mesh, "acme", "theirs", json!({"spec": {"domain": 7}}));
    bench.mesh(&json!({"tenants": {
        "from": "Selector", "selector": {"matchLabels": {"tidegate.dev/mesh": "prod"}},
    }}));
    let mut feed = bench.feed().await;
    let policy = until(&mut feed, |policy| windows(policy).contains("bolt/paris")).await;
    assert!(!windows(&policy).contains("acme/paris"));
    let meshes = policy.findings.iter().filter(|it| it.to_string().contains("Mesh acme/theirs"));
    assert_eq!(meshes.count(), 1, "{:?}", policy.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_stalls_is_noticed_and_replaced() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", false);
    let mut feed = bench.feed().await;
    bench.server.faults(|faults| faults.stalled = true);
    // Those that run hear nothing more, and do not end; those to come are well.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = clock::boot();
    bench.window("gate", "berlin", true);
    let (_, watches) = bench.server.asked(Kind::SupportWindow);
    within(async {
        while bench.server.asked(Kind::SupportWindow).1 == watches {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    bench.server.faults(|faults| faults.stalled = false);
    until(&mut feed, |policy| suspended(policy, "berlin") == Some(true)).await;
    // At most 30 s are asked for: a dead one is noticed within 35.
    assert!(clock::boot().since(began) < Duration::from_secs(35));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_policy_grows_old_and_comes_back() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", false);
    let mut feed = bench.feed().await;
    bench.away();
    let policy = until(&mut feed, |policy| policy.unreadable.is_some()).await;
    let why = policy.unreadable.as_ref().unwrap();
    assert!(why.why.starts_with("the API server cannot be reached for "), "{why:?}");
    assert_eq!(suspended(&policy, "berlin"), Some(false), "a session would have been cut");
    // The mesh admits by policy of 10 s.
    within(async {
        while current(&feed).fresh(clock::now()).is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    bench.window("gate", "berlin", true);
    bench.back();
    let policy = until(&mut feed, |policy| suspended(policy, "berlin") == Some(true)).await;
    until(&mut feed, |policy| policy.unreadable.is_none()).await;
    within(async {
        while current(&feed).fresh(clock::now()).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(policy.snapshot.terminals().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_store_does_not_keep_policy_young() {
    let bench = Bench::new().await;
    let mut feed = bench.feed().await;
    // The server remembers a newer version than the watches have been told of.
    bench.server.write_elsewhere();
    bench.server.faults(|faults| faults.storeless = true);
    let lost = clock::boot();
    let policy = until(&mut feed, |policy| policy.unreadable.is_some()).await;
    let why = &policy.unreadable.as_ref().unwrap().why;
    assert!(why.contains("cannot read") && why.contains("etcd"), "{why}");
    within(async {
        while current(&feed).fresh(clock::now()).is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    // The mesh admits by policy of 10 s, and bookmarks from memory make it no younger.
    let late = clock::boot().since(lost);
    assert!(late < Duration::from_secs(11), "nobody new only after {late:?}");
    bench.server.faults(|faults| faults.storeless = false);
    until(&mut feed, |policy| policy.unreadable.is_none()).await;
    within(async {
        while current(&feed).fresh(clock::now()).is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_until_it_is_there() {
    let bench = Bench::bare().await;
    let state = bench.state();
    bench.server.faults(|faults| {
        let _ = faults.missing.insert("relays");
    });
    let mut starting = bench.start(&state).await;
    told(&starting, "install Tidegate's CustomResourceDefinitions").await;
    bench.server.faults(|faults| {
        faults.missing.clear();
    });
    told(&starting, "there is no Relay eu in namespace gate").await;
    bench.server.faults(|faults| {
        let _ = faults.forbidden.insert("terminals");
    });
    bench.relay();
    told(&starting, "may not read terminals in namespace gate; give its service account").await;
    bench.server.faults(|faults| {
        faults.forbidden.clear();
    });
    told(&starting, "there is no Mesh prod in namespace gate").await;
    bench.mesh(&json!({}));
    let mut feed = policy(&mut starting).await;
    assert_eq!(current(&feed).relay.listeners, [5938]);
    // Without a Mesh nobody is in force; without a Relay its settings stay.
    bench.server.delete(Kind::Relay, "gate", "eu");
    until(&mut feed, |policy| {
        policy.findings.iter().any(|finding| finding.message.contains("settings of before"))
    })
    .await;
    bench.terminal("gate", "kiosk", 2);
    until(&mut feed, |policy| policy.snapshot.terminals().count() == 1).await;
    bench.server.delete(Kind::Mesh, "gate", "prod");
    until(&mut feed, |policy| policy.snapshot.terminals().count() == 0).await;
    bench.mesh(&json!({}));
    until(&mut feed, |policy| policy.snapshot.terminals().count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_follow_the_tenants() {
    let bench = Bench::new().await;
    for (namespace, label) in [("acme", "prod"), ("other", "test")] {
        let labels = json!({"metadata": {"labels": {"tidegate.dev/mesh": label}}});
        bench.server.put(Kind::Namespace, "", namespace, labels);
    }
    bench.terminal("acme", "till", 3);
    bench.terminal("other", "safe", 4);
    let mut feed = bench.feed().await;
    let names = |policy: &Policy| -> BTreeSet<String> {
        policy.snapshot.terminals().map(|terminal| terminal.meta.key.to_string()).collect()
    };
    let home = BTreeSet::from(["gate/kiosk".to_owned()]);
    assert_eq!(names(&current(&feed)), home);
    assert_eq!(bench.server.asked(Kind::Namespace), (0, 0), "rights that Same does not need");
    let selector = json!({"tenants": {
        "from": "Selector", "selector": {"matchLabels": {"tidegate.dev/mesh": "prod"}},
    }});
    bench.mesh(&selector);
    let policy = until(&mut feed, |policy| policy.snapshot.terminals().count() == 2).await;
    assert!(names(&policy).contains("acme/till"));
    bench.terminal("acme", "bank", 5);
    until(&mut feed, |policy| policy.snapshot.terminals().count() == 3).await;
    bench.mesh(&json!({}));
    until(&mut feed, |policy| names(policy) == home).await;
    bench.mesh(&selector);
    until(&mut feed, |policy| policy.snapshot.terminals().count() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_api_server_goes_on_with_what_was_kept() {
    let bench = Bench::new().await;
    bench.window("gate", "berlin", false);
    let state = bench.state();
    let mut starting = bench.start(&state).await;
    let mut feed = policy(&mut starting).await;
    bench.window("gate", "berlin", true);
    bench.window("gate", "paris", false);
    let before = until(&mut feed, |policy| suspended(policy, "paris").is_some()).await;
    drop((starting, feed));
    // The mock stays; the source and its watches end.
    within(async {
        while bench.tasks.tasks() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    drop(state);
    bench.away();
    // What was not written to its end never happened.
    let path = bench.state.path().join("state/policy.journal");
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend_from_slice(b"0badc0de P SupportWindow gate rome {\"metadata\":");
    std::fs::write(&path, &torn).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let state = bench.state();
    let mut starting = bench.start(&state).await;
    let mut feed = policy(&mut starting).await;
    let restored = current(&feed);
    assert_eq!(windows(&restored), windows(&before));
    assert_eq!(suspended(&restored, "berlin"), Some(true));
    let age = restored.age(clock::now()).unwrap();
    assert!(age >= Duration::from_secs(1), "its age did not survive: {age:?}");
    bench.server.delete(Kind::SupportWindow, "gate", "paris");
    bench.back();
    let policy = until(&mut feed, |policy| suspended(policy, "paris").is_none()).await;
    assert_eq!(suspended(&policy, "berlin"), Some(true));
    drop((starting, feed, policy));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anything_kept_it_waits_for_the_api_server() {
    let bench = Bench::new().await;
    bench.away();
    let state = bench.state();
    std::fs::write(state.root().join("policy.journal"), b"not a journal\n").unwrap();
    let mut starting = bench.start(&state).await;
    told(&starting, "the API server cannot be reached for relays in namespace gate").await;
    bench.back();
    let feed = policy(&mut starting).await;
    assert_eq!(current(&feed).serial, 1);
    current(&feed).fresh(clock::now()).unwrap();
}
