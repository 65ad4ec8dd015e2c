//! Two real relays on one real API server: limited windows are claimed there, sessions are told there,
//! and what is done to a session there cuts it. And what goes on while the API server is away.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_tests::clients::Program;
use tidegate_tests::cluster::ControlPlane;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{Manifest as _, NAMESPACE, SupportWindow};
use tidegate_tests::process::Proc;
use tidegate_tests::{Gate, Kiosk, SOON, Setup, Staff, eventually, ports, wait_for};

/// The service that returns what it gets.
const WEB: u16 = 443;
/// Rounds of two relays and one one-time window.
const ROUNDS: usize = 20;
/// The promise to those who cut.
const CUT: Duration = Duration::from_secs(1);

/// A relay, a terminal that is attached to it, and a second relay that it is attached to as well.
struct Pair {
    second: Proc,
    other_client: Proc,
    port: u16,
    state: PathBuf,
    /// Made once: it writes the file that all of its clients read.
    alice: Staff,
    kiosk: Kiosk,
    cluster: ControlPlane,
}

impl Pair {
    /// `None` says that it was left out, loudly.
    fn start() -> Option<Self> {
        let cluster = ControlPlane::start()?;
        let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");
        cluster.kubectl(&["apply", "--server-side", "-f", definitions]).ok();
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).ok();
        let mut kiosk = Kiosk::declared(|setup: Setup| {
            setup
                .max_policy_age("1h")
                .relay_spec("  limits: {sessionsPerUser: 64, connectionsPerUser: 128}\n")
                .cluster(cluster.kubeconfig())
        });
        let manifests = kiosk.gate.manifests.to_str().expect("a path");
        eventually("the manifests are applied", SOON, || {
            let arguments = ["apply", "--server-side", "--recursive", "-f", manifests];
            cluster.kubectl(&arguments).code == Some(0)
        });
        kiosk.gate.start();
        kiosk.attach();
        let (port, state) = (ports::free(), kiosk.gate.dir().join("second"));
        let mut command = other(&kiosk.gate, port, &state);
        let second = Proc::start("second tidegate-relay", &mut command);
        second.await_stderr("serving", SOON);
        let clients = kiosk.gate.clients_of("kiosk-17").via(port);
        let other_client = clients.start(Program::OpenSsh, &kiosk.forwards());
        second.await_stderr("service=feed", SOON);
        let alice = kiosk.gate.staff("alice");
        Some(Self { second, other_client, port, state, alice, kiosk, cluster })
    }

    fn apply(&self, window: &SupportWindow) {
        self.cluster.apply(&window.yaml()).ok();
    }

    /// Applies a window, and waits until both relays go by it.
    fn open(&self, window: &SupportWindow) {
        self.apply(window);
        self.await_why(true);
    }

    fn await_why(&self, admitted: bool) {
        self.kiosk.gate.await_why("alice", "kiosk-17", admitted);
        let wanted = Some(i32::from(!admitted));
        let second = self.alice.via(self.port);
        eventually("the second relay goes by it", SOON, || {
            second.view(&["why", "kiosk-17"]).code == wanted
        });
    }

    fn remove(&self, window: &str) {
        self.cluster.kubectl(&["delete", "supportwindow", window, "-n", NAMESPACE]).ok();
        self.await_why(false);
    }

    /// A try at the echo service, by the first relay or the second.
    fn ask(&self, second: bool) -> Proc {
        let staff = if second { self.alice.via(self.port) } else { self.alice.clone() };
        let mut asked = staff.w("kiosk-17", WEB);
        // One that is refused before this does not matter.
        let _ = asked.write(b"through\n");
        asked
    }

    /// A session through the first relay. On a busy machine an API server may be too slow for a claim,
    /// and the sentence says to try again.
    fn session(&self) -> Proc {
        wait_for("a session", SOON * 2, || {
            let session = self.ask(false);
            let told = || session.stdout().contains("through") || !session.is_running();
            eventually("an answer", SOON, told);
            let up = session.is_running();
            if !up {
                // With all that it wrote.
                session.exit(SOON);
            }
            let why = session.stderr();
            assert!(up || why.contains("try again in a moment"), "{why}");
            up.then_some(session)
        })
    }

    fn get(&self, kind: &str) -> Vec<Value> {
        let got = self.cluster.kubectl(&["get", kind, "-n", NAMESPACE, "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&got.stdout).expect("JSON");
        list["items"].as_array().expect("items").clone()
    }

    /// The newest session object, once there is one that has not ended.
    fn live(&self) -> String {
        wait_for("a session's object", SOON, || {
            let mut live = self.get("supportsessions");
            live.retain(|session| session["status"]["endedAt"].is_null());
            Some(live.last()?["metadata"]["name"].as_str()?.to_owned())
        })
    }

    fn await_ended(&self, name: &str, by: &str) {
        wait_for(&format!("{name} was ended by {by}"), SOON, || {
            let all = self.get("supportsessions");
            let session = all.iter().find(|session| session["metadata"]["name"] == name)?;
            let released = session["metadata"]["finalizers"].is_null();
            (session["status"]["endedBy"] == by && released).then_some(())
        });
    }
}

/// The same relay as another pod.
fn other(gate: &Gate, port: u16, state: &std::path::Path) -> Command {
    let first = gate.serve();
    let mut command = Command::new(first.get_program());
    let mut change: Option<String> = None;
    for argument in first.get_args() {
        let argument = argument.to_string_lossy().into_owned();
        match change.take() {
            Some(changed) => command.arg(changed),
            None => command.arg(&argument),
        };
        change = match argument.as_str() {
            "--pod-name" => Some("loopback-1".to_owned()),
            "--state" => Some(state.to_string_lossy().into_owned()),
            "--listen" => Some(format!("127.0.0.1:{port}")),
            "--admin" => Some(format!("127.0.0.1:{}", ports::free())),
            _ => None,
        };
    }
    for (name, value) in first.get_envs() {
        command.env(name, value.expect("a value"));
    }
    command
}

fn one_time(name: &str) -> SupportWindow {
    SupportWindow { one_time: true, ..alice_everywhere(name) }
}

/// Waits until all but `most` have been refused, and returns those that got through.
fn winners(asked: Vec<Proc>, most: usize) -> Vec<Proc> {
    let within = Duration::from_mins(1);
    eventually("all but the winners are refused", within, || {
        let running = asked.iter().filter(|one| one.is_running());
        let refused = asked.len() - running.count();
        let through = asked.iter().filter(|one| one.stdout().contains("through")).count();
        refused + through == asked.len() || through > most
    });
    let (won, lost): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|one| one.stdout().contains("through"));
    for one in lost {
        let said = one.finish(SOON);
        assert!(said.stderr.contains("support window"), "{}", said.stderr);
    }
    won
}

#[test]
fn a_limited_window_admits_no_more_than_its_limit_by_all_relays_together() {
    let Some(pair) = Pair::start() else { return };
    for round in 0..ROUNDS {
        let name = format!("once-{round}");
        pair.open(&one_time(&name));
        let asked = vec![pair.ask(false), pair.ask(true)];
        let won = winners(asked, 1);
        assert_eq!(won.len(), 1, "round {round}");
        // Deleted and applied again it stays used.
        if round == 0 {
            pair.remove(&name);
            won[0].exit(SOON);
            pair.apply(&one_time(&name));
            for second in [false, true] {
                let refused = pair.ask(second).finish(SOON);
                assert_ne!(refused.code, Some(0), "{}", refused.stdout);
            }
        }
        drop(won);
        pair.remove(&name);
    }

    // Forty at once.
    pair.open(&one_time("forty"));
    let won = winners((0..40).map(|i| pair.ask(i % 2 == 1)).collect(), 1);
    assert_eq!(won.len(), 1);
    drop(won);
    pair.remove("forty");
    let limited = SupportWindow { max_sessions: Some(3), ..alice_everywhere("three") };
    pair.open(&limited);
    let won = winners((0..12).map(|i| pair.ask(i % 2 == 1)).collect(), 3);
    assert_eq!(won.len(), 3);
    assert_eq!(
        pair.get("supportclaims").iter().filter(|c| c["spec"]["reusable"] == true).count(),
        3
    );
    drop(won);
    eventually("the places are given back", SOON, || {
        pair.get("supportclaims").iter().all(|claim| claim["spec"]["reusable"] == false)
    });
    pair.session();
}

#[test]
fn what_is_done_to_a_session_object_cuts_the_session() {
    let Some(pair) = Pair::start() else { return };
    pair.open(&alice_everywhere("now"));
    let kubectl = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["-n", NAMESPACE]);
        pair.cluster.kubectl(&all).ok();
    };

    let session = pair.session();
    let name = pair.live();
    kubectl(&["patch", "supportsession", &name, "--type=merge", "-p", r#"{"spec":{"cut":true}}"#]);
    let began = Instant::now();
    let exit = session.exit(CUT);
    eprintln!("spec.cut: gone {:?} after kubectl returned ({exit:?})", began.elapsed());
    assert!(
        session.stderr().contains("set spec.cut of its SupportSession"),
        "{}",
        session.stderr()
    );
    pair.await_ended(&name, "Cut");

    // kubectl returns when the socket is closed.
    let session = pair.session();
    let name = pair.live();
    let began = Instant::now();
    kubectl(&["delete", "supportsession", &name]);
    let deleted = began.elapsed();
    session.exit(CUT);
    eprintln!("kubectl delete: returned after {deleted:?}, gone after {:?}", began.elapsed());
    assert!(session.stderr().contains("deleted its SupportSession"), "{}", session.stderr());
    assert!(pair.get("supportsessions").iter().all(|s| s["metadata"]["name"] != *name));

    // By force.
    let session = pair.session();
    let name = pair.live();
    let strip = r#"{"metadata":{"finalizers":null}}"#;
    kubectl(&["patch", "supportsession", &name, "--type=merge", "-p", strip]);
    kubectl(&["delete", "supportsession", &name]);
    session.exit(CUT);

    // While nobody watches.
    let session = pair.session();
    let name = pair.live();
    pair.kiosk.gate.relay().signal(rustix::process::Signal::STOP);
    kubectl(&["patch", "supportsession", &name, "--type=merge", "-p", r#"{"spec":{"cut":true}}"#]);
    pair.kiosk.gate.relay().signal(rustix::process::Signal::CONT);
    session.exit(SOON);
    pair.await_ended(&name, "Cut");
}

#[test]
fn without_the_api_server_claims_are_refused_and_no_session_is_lost() {
    let Some(mut pair) = Pair::start() else { return };
    let limited = SupportWindow { max_sessions: Some(5), ..alice_everywhere("limited") };
    pair.open(&limited);
    let held = pair.session();
    let name = pair.live();
    pair.cluster.kill("kube-apiserver");

    let began = Instant::now();
    let refused = pair.ask(false).finish(SOON);
    let sentence = "cannot reach its API server to claim support window";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);
    eprintln!("refused {:?} after ssh was started", began.elapsed());
    // The one that lives goes on, and its end is told later.
    assert!(held.is_running());
    drop(held);
    pair.kiosk.gate.await_audit("the end", SOON, |line| line["event"] == "End");
    pair.cluster.start("kube-apiserver");
    pair.await_ended(&name, "Staff");

    // Windows without a limit admit meanwhile; a relay that dies as well tells of it when both are back.
    pair.remove("limited");
    pair.open(&alice_everywhere("free"));
    pair.cluster.kill("kube-apiserver");
    let staff = pair.session();
    drop(staff);
    let lost = pair.session();
    pair.kiosk.gate.crash();
    lost.exit(SOON);
    pair.cluster.start("kube-apiserver");
    pair.kiosk.gate.start();
    let ended = |by: &str| {
        let all = pair.get("supportsessions");
        all.iter().filter(|s| s["status"]["endedBy"] == by).count()
    };
    eventually("both are told of", SOON, || (ended("Staff"), ended("Fault")) == (2, 1));
    assert!(pair.second.is_running() && pair.other_client.is_running() && pair.state.is_dir());
}

#[test]
fn a_relay_that_dies_gives_its_places_back_when_it_is_there_again() {
    let Some(mut pair) = Pair::start() else { return };
    let limited = SupportWindow { max_sessions: Some(1), ..alice_everywhere("one") };
    pair.open(&limited);
    let session = pair.session();
    pair.kiosk.gate.crash();
    session.exit(SOON);
    // Another relay frees nothing that is not its own.
    let refused = pair.ask(true).finish(SOON);
    assert!(refused.stderr.contains("is full"), "{}", refused.stderr);
    pair.kiosk.gate.start();
    eventually("the place is free", SOON, || pair.get("supportclaims").is_empty());
    let again = pair.ask(true);
    again.await_stdout("through", SOON);
}
