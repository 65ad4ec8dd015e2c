//! A relay fleet on a cluster with two nodes: stock `ssh -R` in through a NodePort, staff's `ssh -J`
//! through it, and everything that ends a session, seen at the ssh client.
//!
//! One cluster serves the tests of this file, one after the other: they are parts of one test.

use std::time::{Duration, Instant};

use tidegate_tests::fleet::{Fleet, FleetRelay, ROLLOUT, Site};
use tidegate_tests::manifest::{Manifest as _, SupportWindow, in_seconds};
use tidegate_tests::{Staff, clock, eventually, long, wait_for};

/// How late a cut may be by the invariants, beside what kubectl itself takes.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a window may take to let somebody in; a try is a whole `ssh -J`.
const IN: Duration = Duration::from_secs(20);

#[test]
fn a_fleet_serves_cuts_and_survives() {
    let Some(fleet) = Fleet::install(2, 2) else { return };
    let pods = fleet.await_pods(2);
    assert_ne!(pods[0].node, pods[1].node, "the replicas share a node: {pods:?}");
    fleet.user("alice");
    let mut kiosk = fleet.terminal("kiosk-17", 20_017, &["alice"]);
    fleet.attach(&mut kiosk, "node-1");
    let alice = fleet.staff("alice", "node-1");

    the_window_opens_and_shuts(&fleet, &alice);
    the_other_replica_says_so(&fleet);
    every_revocation_cuts(&fleet, &alice);
    a_killed_pod_takes_its_own_sessions_only(&fleet, &mut kiosk);
    the_fleet_follows_its_replicas(&fleet);
    without_an_operator_all_goes_on(&fleet, &alice);
    a_reinstall_keeps_all_windows(&fleet);
}

/// How a node is lost: its name, the deed, and what brings the node back.
type Loss = (&'static str, fn(&Fleet), fn(&Fleet));

/// Minutes long, so for `just fleet-long`: a node that dies, and one that is cut off and comes back.
#[test]
fn a_lost_node_takes_its_own_sessions_only() {
    if !long() {
        return;
    }
    let Some(fleet) = Fleet::install(2, 2) else { return };
    fleet.await_pods(2);
    fleet.user("alice");
    let mut near = fleet.terminal("kiosk-17", 20_017, &["alice"]);
    fleet.attach(&mut near, "node-1");
    let mut far = fleet.terminal("kiosk-18", 20_018, &["alice"]);
    open(&fleet, "berlin", "kiosk-17");
    let window = SupportWindow::open("hamburg", "alice", "kiosk-18");
    let window = SupportWindow { max_session_duration: Some("40s".to_owned()), ..window };
    fleet.declare(&window);
    let [here, there] = ["node-1", "node-2"].map(|node| fleet.staff("alice", node));
    let mine = fleet.await_session(&here, "kiosk-17", IN);

    let losses: [Loss; 2] = [
        ("killed", |fleet| fleet.nodes.kill_node(2), |fleet| fleet.nodes.start_node(2)),
        ("cut off", |fleet| fleet.nodes.cut_node(2), |fleet| fleet.nodes.heal_node(2)),
    ];
    for (size, (loss, lose, mend)) in (2..).zip(losses) {
        fleet.attach(&mut far, "node-2");
        let theirs = fleet.await_session(&there, "kiosk-18", IN);
        eventually("both records", IN, || running(&fleet).len() == 2);
        lose(&fleet);
        // The fleet is back to its size on the node that is left.
        eventually("the fleet's size on one node", ROLLOUT, || {
            let pods = fleet.pods();
            pods.len() == size && pods.iter().all(|pod| pod.ready && pod.node == "node-1")
        });
        assert!(mine.is_running(), "{loss}: the other node's session ended: {}", mine.stderr());
        // Nobody can say of a silent relay that it has ended but its deadline.
        let by = fleet.await_ended("kiosk-18", ROLLOUT);
        assert!(["Fault", "Deadline"].contains(&by.as_str()), "{loss}: ended by {by}");
        eprintln!("{loss}: ended by {by}");
        mend(&fleet);
        far.client = None;
        drop(theirs);
        // All replicas are on node-1 now; one more goes to the other node.
        fleet
            .nodes
            .kubectl(&["wait", "--for=condition=Ready", "node/node-2", "--timeout=55s"])
            .ok();
        let more = format!("--replicas={}", size + 1);
        fleet.nodes.kubectl(&["scale", "relay/eu", &more]).ok();
        fleet.await_pods(size + 1);
        assert!(mine.is_running(), "{loss}: the other node's session ended: {}", mine.stderr());
    }
}

/// A window that is open, declared.
fn open(fleet: &Fleet, name: &str, terminal: &str) -> SupportWindow {
    let window = SupportWindow::open(name, "alice", terminal);
    fleet.declare(&window);
    window
}

fn withdraw(fleet: &Fleet, name: &str) {
    fleet.nodes.kubectl(&["delete", "supportwindow", name]).ok();
}

/// Nothing without a window; one that is applied lets in; the cut is on time.
fn the_window_opens_and_shuts(fleet: &Fleet, alice: &Staff) {
    let refused = fleet.refused(alice, "kiosk-17");
    assert!(refused.stderr.contains("no support window of alice"), "{}", refused.stderr);

    let closes = in_seconds(25);
    fleet.declare(&SupportWindow::open("berlin", "alice", "kiosk-17").closing_at(closes));
    let session = fleet.await_session(alice, "kiosk-17", IN);
    let ended = session.exit(Duration::from_secs(30));
    let late = clock::after(clock::monotonic(closes), ended.at);
    assert!(late < AT_ONCE, "cut {late:?} after the window closed");
    assert_eq!(ended.code, Some(255));
    assert_eq!(fleet.await_ended("kiosk-17", IN), "Deadline");
    withdraw(fleet, "berlin");
}

/// Without a mesh between replicas, staff who land on the other one are told so.
fn the_other_replica_says_so(fleet: &Fleet) {
    open(fleet, "berlin", "kiosk-17");
    let elsewhere = fleet.staff("alice", "node-2");
    let here = fleet.staff("alice", "node-1");
    drop(fleet.await_session(&here, "kiosk-17", IN));
    let refused = fleet.refused(&elsewhere, "kiosk-17");
    assert!(refused.stderr.contains("not connected"), "{}", refused.stderr);
    withdraw(fleet, "berlin");
}

/// How somebody ends a session: its name, the deed, and who is then said to have ended it.
type Way = (&'static str, fn(&Fleet), &'static str);

/// What ends a session within a second of kubectl's answer.
fn every_revocation_cuts(fleet: &Fleet, alice: &Staff) {
    let ways: [Way; 5] = [
        (
            "suspended",
            |fleet| fleet.declare(&SupportWindow::open("berlin", "alice", "kiosk-17").suspended()),
            "Revoked",
        ),
        (
            "narrowed",
            |fleet| {
                let mut window = SupportWindow::open("berlin", "alice", "kiosk-17");
                window.users = vec!["bob".to_owned()];
                fleet.declare(&window);
            },
            "Revoked",
        ),
        ("deleted", |fleet| withdraw(fleet, "berlin"), "Revoked"),
        (
            "cut",
            |fleet| {
                let name = newest(fleet);
                let patch = r#"{"spec":{"cut":true}}"#;
                fleet
                    .nodes
                    .kubectl(&["patch", "supportsession", &name, "--type=merge", "-p", patch])
                    .ok();
            },
            "Cut",
        ),
        (
            "session deleted",
            |fleet| {
                let name = newest(fleet);
                fleet.nodes.kubectl(&["delete", "supportsession", &name, "--wait=false"]).ok();
            },
            "",
        ),
    ];
    for (way, act, ended_by) in ways {
        open(fleet, "berlin", "kiosk-17");
        let session = fleet.await_session(alice, "kiosk-17", IN);
        // Its object is there before somebody can delete it.
        eventually("the session's record", IN, || !running(fleet).is_empty());
        act(fleet);
        let answered = Instant::now();
        let ended = session.exit(Duration::from_secs(40));
        let late = ended.at.saturating_duration_since(answered);
        assert!(late < AT_ONCE, "{way}: cut {late:?} after kubectl's answer");
        eprintln!("{way}: {late:?} after kubectl's answer");
        if !ended_by.is_empty() {
            assert_eq!(fleet.await_ended("kiosk-17", IN), ended_by, "{way}");
        }
    }
    withdraw(fleet, "berlin");
}

fn running(fleet: &Fleet) -> Vec<String> {
    let records = fleet.records();
    let live = records.iter().filter(|record| record["status"]["endedAt"].is_null());
    live.filter_map(|record| record["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

fn newest(fleet: &Fleet) -> String {
    running(fleet).pop().expect("a running session")
}

fn a_killed_pod_takes_its_own_sessions_only(fleet: &Fleet, kiosk: &mut Site) {
    // One terminal and one session on each replica.
    let mut other = fleet.terminal("kiosk-18", 20_018, &["alice"]);
    fleet.attach(&mut other, "node-2");
    open(fleet, "berlin", "kiosk-17");
    open(fleet, "hamburg", "kiosk-18");
    let [here, there] = ["node-1", "node-2"].map(|node| fleet.staff("alice", node));
    let mine = fleet.await_session(&here, "kiosk-17", IN);
    let theirs = fleet.await_session(&there, "kiosk-18", IN);
    eventually("both records", IN, || running(fleet).len() == 2);

    let pods = fleet.pods();
    let victim = pods.iter().find(|pod| pod.node == "node-2").expect("a pod on node-2");
    let delete = ["delete", "pod", &victim.name, "--grace-period=0", "--force"];
    fleet.nodes.kubectl(&delete).ok();
    theirs.exit(Duration::from_mins(1));
    assert!(mine.is_running(), "the other replica's session ended: {}", mine.stderr());
    fleet.await_pods(2);
    assert!(mine.is_running(), "the other replica's session ended: {}", mine.stderr());
    let by = fleet.await_ended("kiosk-18", ROLLOUT);
    assert!(["Fault", "Drain"].contains(&by.as_str()), "ended by {by}");

    // What stock clients do: they dial again.
    fleet.attach(&mut other, "node-2");
    drop(fleet.await_session(&there, "kiosk-18", IN));
    drop(mine);
    kiosk.client = None;
    fleet.attach(kiosk, "node-1");
    withdraw(fleet, "berlin");
    withdraw(fleet, "hamburg");
}

fn the_fleet_follows_its_replicas(fleet: &Fleet) {
    fleet.nodes.kubectl(&["scale", "relay/eu", "--replicas=3"]).ok();
    fleet.await_pods(3);
    wait_for("the status", ROLLOUT, || {
        (fleet.get(&["relay", "eu"])["status"]["replicas"] == 3).then_some(())
    });
    fleet.nodes.kubectl(&["scale", "relay/eu", "--replicas=2"]).ok();
    fleet.await_pods(2);
}

/// Ten minutes of it in the long form.
fn without_an_operator_all_goes_on(fleet: &Fleet, alice: &Staff) {
    let operator = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let system = ["-n", "tidegate-system"];
        let scale = ["scale", "deployment/tidegate-operator", &replicas];
        fleet.nodes.kubectl(&[&system[..], &scale[..]].concat()).ok();
        let gone = ["get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "name"];
        let gone = [&system[..], &gone[..]].concat();
        eventually("the operator's pods", ROLLOUT, || {
            let pods = fleet.nodes.kubectl(&gone).ok().stdout;
            (replicas == "--replicas=0") == pods.trim().is_empty()
        });
    };
    operator("0");
    let until = Instant::now() + if long() { Duration::from_mins(10) } else { Duration::ZERO };
    loop {
        open(fleet, "berlin", "kiosk-17");
        let session = fleet.await_session(alice, "kiosk-17", IN);
        withdraw(fleet, "berlin");
        let answered = Instant::now();
        let ended = session.exit(Duration::from_secs(40));
        assert!(ended.at.saturating_duration_since(answered) < AT_ONCE);
        if Instant::now() > until {
            break;
        }
    }
    operator("2");
}

fn a_reinstall_keeps_all_windows(fleet: &Fleet) {
    open(fleet, "berlin", "kiosk-17");
    let before = spec(fleet);
    let key = fleet.host_key();
    fleet.uninstall();
    fleet.apply_overlay();
    fleet.await_ready();
    assert_eq!(spec(fleet), before);
    assert_eq!(fleet.host_key(), key);
    // With nothing changed, there is nothing to say.
    let relay = FleetRelay { replicas: 2 }.yaml();
    fleet.nodes.apply(&relay).ok();
}

/// The window as it was written.
fn spec(fleet: &Fleet) -> serde_json::Value {
    let window = fleet.get(&["supportwindow", "berlin"]);
    serde_json::json!({ "uid": window["metadata"]["uid"], "spec": window["spec"] })
}
