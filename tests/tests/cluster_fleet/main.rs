//! A relay fleet on a cluster with two nodes: stock `ssh -R` in through a NodePort, staff's `ssh -J`
//! through it, and everything that ends a session, seen at the ssh client.
//!
//! One cluster serves the tests of this file, one after the other: they are parts of one test.

mod loss;
mod outage;
mod upgrade;

use std::time::{Duration, Instant};

use tidegate_tests::fleet::{Fleet, ROLLOUT, Release, Site};
use tidegate_tests::manifest::{SupportWindow, in_seconds};
use tidegate_tests::{Proc, Staff, clock, eventually, long, wait_for};

/// How late a cut may be by the invariants, beside what kubectl itself takes.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a window may take to let somebody in; a try is a whole `ssh -J`.
const IN: Duration = Duration::from_secs(20);

#[test]
fn a_fleet_serves_cuts_and_survives() {
    let Some(fleet) = Fleet::install(2, 2, Release::Earlier) else { return };
    let pods = fleet.await_pods(2);
    assert_ne!(pods[0].node, pods[1].node, "the replicas share a node: {pods:?}");
    fleet.user("alice");
    let mut kiosk = fleet.terminal("kiosk-17", 20_017, &["alice"]);
    fleet.attach(&mut kiosk, "node-1");
    let mut other = fleet.terminal("kiosk-18", 20_018, &["alice", "bob"]);
    let alice = fleet.staff("alice", "node-1");

    let step = |name: &str, run: &mut dyn FnMut()| {
        let began = Instant::now();
        run();
        eprintln!("--- {name} took {:?}", began.elapsed());
    };
    step("opens and shuts", &mut || the_window_opens_and_shuts(&fleet, &alice));
    step("the other replica", &mut || the_other_replica_says_so(&fleet));
    step("revocations", &mut || every_revocation_cuts(&fleet, &alice));
    step("a killed pod", &mut || a_killed_pod_takes_its_own_sessions_only(&fleet, &mut other));
    step("an outage", &mut || outage::the_api_server_goes_away(&fleet, &mut kiosk, &mut other));
    step("replicas", &mut || the_fleet_follows_its_replicas(&fleet));
    step("no operator", &mut || without_an_operator_all_goes_on(&fleet, &alice, &mut other));
    step("an upgrade", &mut || upgrade::an_upgrade_keeps_everything(&fleet, &alice));
    step("a reinstall", &mut || a_reinstall_keeps_all_windows(&fleet));
}

/// A window that is open, declared.
fn open(fleet: &Fleet, name: &str, terminal: &str) -> SupportWindow {
    let window = SupportWindow::open(name, "alice", terminal);
    fleet.declare(&window);
    window
}

/// Nothing without a window; one that is applied lets in; the cut is on time.
fn the_window_opens_and_shuts(fleet: &Fleet, alice: &Staff) {
    let refused = fleet.refused(alice, "kiosk-17");
    assert!(refused.stderr.contains("no support window of alice"), "{}", refused.stderr);

    let closes = in_seconds(12);
    fleet.declare(&SupportWindow::open("berlin", "alice", "kiosk-17").closing_at(closes));
    let session = fleet.await_session(alice, "kiosk-17", IN);
    let ended = session.exit(Duration::from_secs(30));
    let late = clock::after(clock::monotonic(closes), ended.at);
    assert!(late < AT_ONCE, "cut {late:?} after the window closed");
    assert_eq!(ended.code, Some(255));
    assert_eq!(fleet.await_ended("kiosk-17", IN), "Deadline");
    fleet.withdraw("berlin");
}

/// Without a mesh between replicas, staff who land on the other one are told so.
fn the_other_replica_says_so(fleet: &Fleet) {
    open(fleet, "berlin", "kiosk-17");
    let elsewhere = fleet.staff("alice", "node-2");
    let here = fleet.staff("alice", "node-1");
    drop(fleet.await_session(&here, "kiosk-17", IN));
    let refused = fleet.refused(&elsewhere, "kiosk-17");
    assert!(refused.stderr.contains("not connected"), "{}", refused.stderr);
    fleet.withdraw("berlin");
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
        ("deleted", |fleet| fleet.withdraw("berlin"), "Revoked"),
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
        let late = cut_since(&session, answered);
        eprintln!("{way}: {late:?} after kubectl's answer");
        if !ended_by.is_empty() {
            assert_eq!(fleet.await_ended("kiosk-17", IN), ended_by, "{way}");
        }
    }
    fleet.withdraw("berlin");
}

fn running(fleet: &Fleet) -> Vec<String> {
    let records = fleet.records();
    let live = records.iter().filter(|record| record["status"]["endedAt"].is_null());
    live.filter_map(|record| record["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

fn newest(fleet: &Fleet) -> String {
    running(fleet).pop().expect("a running session")
}

fn a_killed_pod_takes_its_own_sessions_only(fleet: &Fleet, other: &mut Site) {
    // One terminal and one session on each replica.
    fleet.attach(other, "node-2");
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

    // The terminal has dialled again.
    drop(fleet.await_session(&there, "kiosk-18", IN));
    drop(mine);
    fleet.withdraw("berlin");
    fleet.withdraw("hamburg");
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

/// Ten minutes of it in the long form, with one session that lasts all of it.
fn without_an_operator_all_goes_on(fleet: &Fleet, alice: &Staff, other: &mut Site) {
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
    open(fleet, "hamburg", "kiosk-18");
    fleet.attach(other, "node-2");
    let lasting = fleet.await_session(&fleet.staff("alice", "node-2"), "kiosk-18", IN);
    let until = Instant::now() + if long() { Duration::from_mins(10) } else { Duration::ZERO };
    let (mut admitted, mut cut) = (Vec::new(), Vec::new());
    loop {
        let began = Instant::now();
        open(fleet, "berlin", "kiosk-17");
        let session = fleet.await_session(alice, "kiosk-17", IN);
        admitted.push(began.elapsed());
        fleet.withdraw("berlin");
        cut.push(cut_since(&session, Instant::now()));
        if Instant::now() > until {
            break;
        }
    }
    let (rounds, slowest, latest) = (cut.len(), admitted.iter().max(), cut.iter().max());
    eprintln!(
        "{rounds} rounds: in after {slowest:?} with kubectl, cut {latest:?} after its answer"
    );
    assert!(lasting.is_running(), "it ended: {}", lasting.stderr());
    fleet.withdraw("hamburg");
    cut_since(&lasting, Instant::now());
    operator("2");
}

/// Waits for a session's end, and returns how long after `answered` it was: at once.
fn cut_since(session: &Proc, answered: Instant) -> Duration {
    let ended = session.exit(Duration::from_secs(40));
    let late = ended.at.saturating_duration_since(answered);
    assert!(late < AT_ONCE, "cut {late:?} after kubectl's answer");
    late
}

fn a_reinstall_keeps_all_windows(fleet: &Fleet) {
    open(fleet, "berlin", "kiosk-17");
    let before = upgrade::kept(fleet);
    let key = fleet.host_key();
    fleet.uninstall();
    fleet.apply_overlay(Release::This);
    fleet.await_ready();
    assert_eq!(upgrade::kept(fleet), before);
    assert_eq!(fleet.host_key(), key);
    upgrade::nothing_is_left_to_change(fleet);
}
