//! The API server away, or its store, under a fleet of pods: sessions end on time, new ones enter while
//! policy is young and no claim is needed, a relay that ends meanwhile comes back by its disk, and
//! afterwards all goes on with no restart.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tidegate_tests::fleet::{Fleet, ROLLOUT, Site};
use tidegate_tests::manifest::SupportWindow;
use tidegate_tests::{Mesh, Staff, clock, eventually, long, wait_for};

use super::{AT_ONCE, IN, open, running};

/// A session of this outage ends by its deadline so long after its beginning.
const LASTS: Duration = Duration::from_secs(12);
/// The Mesh's maxPolicyAge, in which all that needs young policy has to be done.
const AGE: Duration = Duration::from_secs(30);
/// In the long form a relay may be waiting for its second start.
const LONG_AGE: Duration = Duration::from_mins(1);
/// A refusal for want of a claim does not wait for the API server.
const REFUSED: Duration = Duration::from_secs(10);

/// What goes away, how, and how it comes back.
struct Away {
    name: &'static str,
    leave: fn(&Fleet),
    back: fn(&Fleet),
}

const WAYS: [Away; 3] = [
    Away {
        name: "API server killed",
        leave: |fleet| fleet.nodes.kill("kube-apiserver"),
        back: |fleet| fleet.nodes.start("kube-apiserver"),
    },
    Away {
        name: "etcd paused",
        leave: |fleet| fleet.nodes.pause("etcd"),
        back: |fleet| fleet.nodes.resume("etcd"),
    },
    Away {
        name: "API server stopped",
        leave: |fleet| fleet.nodes.stop("kube-apiserver"),
        back: |fleet| fleet.nodes.start("kube-apiserver"),
    },
];

/// The ways of the short form. An API server that is asked to stop takes itself out of the Service
/// `kubernetes`, and then it takes the nodes' kube-proxies up to a minute to find it again.
const SHORT: usize = 2;

/// One way, and one of the relays restarted, by TIDEGATE_SEED; in the long form all ways.
pub fn the_api_server_goes_away(fleet: &Fleet, kiosk: &mut Site, other: &mut Site) {
    fleet.user("bob");
    if long() {
        fleet.declare(&mesh(LONG_AGE));
        for (number, away) in WAYS.iter().enumerate() {
            one_outage(fleet, away, number % 2 == 0, LONG_AGE, [&mut *kiosk, &mut *other]);
        }
        fleet.declare(&mesh(AGE));
    } else {
        let mut random = StdRng::seed_from_u64(tidegate_draw::seed());
        let away = &WAYS[random.random_range(0..SHORT)];
        one_outage(fleet, away, random.random(), AGE, [&mut *kiosk, &mut *other]);
    }
    // As the other parts want them.
    fleet.attach(kiosk, "node-1");
    fleet.attach(other, "node-2");
}

fn mesh(age: Duration) -> Mesh {
    Mesh { max_policy_age: Some(format!("{}s", age.as_secs())) }
}

/// `first`: the relay on node-1 is restarted, else that on node-2. The terminal kiosk-17 is on the relay
/// that goes on, kiosk-18 on the other.
fn one_outage(fleet: &Fleet, away: &Away, first: bool, age: Duration, sites: [&mut Site; 2]) {
    let (steady, falling) = if first { ("node-2", "node-1") } else { ("node-1", "node-2") };
    eprintln!("{}, and the relay on {falling} restarted", away.name);
    let [kiosk, other] = sites;
    fleet.attach(kiosk, steady);
    fleet.attach(other, falling);
    let window = SupportWindow::open("berlin", "alice", "kiosk-17");
    let lasts = format!("{}s", LASTS.as_secs());
    fleet.declare(&SupportWindow { max_session_duration: Some(lasts), ..window });
    open(fleet, "hamburg", "kiosk-18");
    let once = SupportWindow::open("once", "bob", "kiosk-18");
    fleet.declare(&SupportWindow { one_time: true, ..once });
    let [here, there] = [steady, falling].map(|node| fleet.staff("alice", node));
    let bob = fleet.staff("bob", falling);
    let before = fleet.await_pods(2);
    let victim = before.iter().find(|pod| pod.node == falling).expect("a pod on each node");
    let lost = fleet.await_session(&there, "kiosk-18", IN);
    let lasting = fleet.await_session(&here, "kiosk-17", IN);
    eventually("both records", IN, || running(fleet).len() == 2);
    let (lost_name, lasting_name) = (record_of(fleet, "kiosk-18"), record_of(fleet, "kiosk-17"));
    let deadline = instant(&fleet.get(&["supportsession", &lasting_name])["spec"]["deadline"]);

    (away.leave)(fleet);
    let began = Instant::now();
    let refused = fleet.refused(&bob, "kiosk-18");
    assert!(
        refused.stderr.contains("support window default/once"),
        "a claim without the API server: {}",
        refused.stderr
    );
    assert!(refused.took < REFUSED, "refused after {:?}", refused.took);
    eprintln!("a one-time window was refused after {:?}: {}", refused.took, said(&refused.stderr));
    let entered = fleet.await_session(&here, "kiosk-17", IN);

    // A relay's own end: the other's sessions go on, and it comes back by its disk.
    fleet.crash_relay(&victim.name);
    let crashed = Instant::now();
    lost.exit(AT_ONCE * 5);
    assert!(entered.is_running(), "the other replica's session ended: {}", entered.stderr());
    let again = fleet.await_session(&there, "kiosk-18", age);
    eprintln!("restarted, with a session again {:?} after its end", crashed.elapsed());

    let ended = lasting.exit(LASTS * 2);
    let due = clock::monotonic(deadline);
    let late = clock::after(due, ended.at);
    assert!(late < AT_ONCE, "cut {late:?} after its deadline");
    let early = clock::after(ended.at, due);
    assert!(early < AT_ONCE, "ended {early:?} before its deadline: {}", lasting.stderr());
    eprintln!("without the API server a session was cut {late:?} after its deadline");

    for (staff, terminal) in [(&here, "kiosk-17"), (&there, "kiosk-18")] {
        let sentence = await_old(fleet, staff, terminal, age * 2);
        eprintln!("{terminal}: nobody new after {:?}: {sentence}", began.elapsed());
    }
    assert!(again.is_running(), "a running session ended: {}", again.stderr());

    let asked = Instant::now();
    (away.back)(fleet);
    eprintln!("back: {:?} until it serves", asked.elapsed());
    let back = Instant::now();
    drop(fleet.await_session(&here, "kiosk-17", ROLLOUT));
    drop(fleet.await_session(&there, "kiosk-18", ROLLOUT));
    eprintln!("back: new sessions after {:?}", back.elapsed());
    assert!(again.is_running(), "a running session ended: {}", again.stderr());
    for (name, by) in [(&lost_name, "Fault"), (&lasting_name, "Deadline")] {
        wait_for("the record's end", ROLLOUT, || {
            let record = fleet.get(&["supportsession", name]);
            let ended = record["status"]["endedBy"].as_str()?.to_owned();
            assert_eq!(ended, by, "{record}");
            Some(())
        });
    }
    // Revocation is immediate again, and the operator says of a window that it is accepted.
    fleet.withdraw("hamburg");
    super::cut_since(&again, Instant::now());
    open(fleet, "after", "kiosk-18");
    let accepted = ["wait", "--for=condition=Accepted", "supportwindow/after", "--timeout=55s"];
    fleet.nodes.kubectl(&accepted).ok();
    fleet.await_ready();
    eprintln!("back: all of it after {:?}", back.elapsed());
    for pod in fleet.await_pods(2) {
        let then = before.iter().find(|then| then.uid == pod.uid).expect("the same pods");
        let fell = u64::from(pod.name == victim.name);
        assert_eq!(pod.restarts, then.restarts + fell, "restarts of {}", pod.name);
    }
    // None of the sessions that began meanwhile is without its record.
    eventually("the records", ROLLOUT, || running(fleet).is_empty());
    drop(entered);
    for window in ["berlin", "once", "after"] {
        fleet.withdraw(window);
    }
}

/// Waits until staff are refused because policy is too old, and returns the sentence.
fn await_old(fleet: &Fleet, staff: &Staff, terminal: &str, within: Duration) -> String {
    wait_for("policy too old to let anybody in", within, || {
        let refused = fleet.refused(staff, terminal).stderr;
        refused.contains("last saw its policy").then(|| said(&refused).to_owned())
    })
}

/// The newest record of a terminal that has not ended.
fn record_of(fleet: &Fleet, terminal: &str) -> String {
    let records = fleet.records();
    let live = records
        .iter()
        .rev()
        .find(|r| r["spec"]["terminal"] == terminal && r["status"]["endedAt"].is_null());
    live.and_then(|r| r["metadata"]["name"].as_str()).expect("a live record").to_owned()
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).expect("an instant")
}

/// The first line of what ssh wrote.
fn said(stderr: &str) -> &str {
    stderr.lines().next().unwrap_or_default()
}
