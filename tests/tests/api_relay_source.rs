//! A real relay with its policy from a real API server: what is applied is enforced, and what happens
//! while the API server or its store is away.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::clock::{after, monotonic};
use tidegate_tests::cluster::ControlPlane;
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{Manifest as _, NAMESPACE, SupportWindow, in_seconds, instant};
use tidegate_tests::{Gate, Kiosk, SOON, Setup, eventually, wait_for};

/// Longer than a watch that died is noticed in, and than policy may be old in these tests.
const AGED: Duration = Duration::from_mins(1);
/// How late a session may be cut (invariant 2).
const ON_TIME: Duration = Duration::from_secs(1);
/// Windows whose way from the API server to the relay is measured.
const MEASURED: usize = 200;

/// A control plane of its own that knows our kinds.
fn control_plane() -> Option<ControlPlane> {
    let cluster = ControlPlane::start()?;
    let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");
    cluster.kubectl(&["apply", "--server-side", "-f", definitions]).ok();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).ok();
    Some(cluster)
}

/// Applies what a setup has written down.
fn apply_all(cluster: &ControlPlane, gate: &Gate) {
    let manifests = gate.manifests.to_str().expect("a path");
    eventually("the manifests are applied", SOON, || {
        let arguments = ["apply", "--server-side", "--recursive", "-f", manifests];
        cluster.kubectl(&arguments).code == Some(0)
    });
}

fn apply(cluster: &ControlPlane, window: &SupportWindow) {
    cluster.apply(&window.yaml()).ok();
}

/// A kiosk whose relay follows the cluster, attached, with no window yet.
fn kiosk(cluster: &ControlPlane, age: &str) -> Kiosk {
    let mut kiosk =
        Kiosk::declared(|setup: Setup| setup.max_policy_age(age).cluster(cluster.kubeconfig()));
    kiosk.gate.spawn();
    let waits = || kiosk.gate.readiness().is_some_and(|(status, _)| status == 503);
    eventually("the admin port answers before there is a policy", SOON, waits);
    apply_all(cluster, &kiosk.gate);
    kiosk.gate.await_ready();
    attach(&mut kiosk);
    kiosk
}

/// Attaches the terminal once the relay knows it.
fn attach(kiosk: &mut Kiosk) {
    let admin = kiosk.gate.admin;
    let known = || metric(admin, "tidegate_policy_objects{kind=\"Terminal\"}") == Some(1.0);
    eventually("the terminal is in the policy", SOON, known);
    kiosk.attach();
}

fn not_ready(gate: &Gate, because: &str) {
    wait_for(&format!("/readyz says {because:?}"), AGED, || {
        let (status, why) = gate.readiness()?;
        (status == 503 && why.contains(because)).then_some(())
    });
}

#[test]
fn what_is_applied_is_enforced_and_survives_the_api_server() {
    let Some(cluster) = control_plane() else { return };
    let mut kiosk = kiosk(&cluster, "1h");
    let window = alice_everywhere("now");

    // Applied: enforced. Suspended: cut. Applied again, deleted: cut.
    kiosk.gate.await_why("alice", "kiosk-17", false);
    apply(&cluster, &window);
    kiosk.gate.await_why("alice", "kiosk-17", true);
    for round in ["suspended", "deleted"] {
        let mut session = kiosk.gate.staff("alice").w("kiosk-17", 443);
        session.write(b"through\n").expect("a live session");
        session.await_stdout("through", SOON);
        let began = Instant::now();
        if round == "suspended" {
            apply(&cluster, &window.clone().suspended());
        } else {
            cluster.kubectl(&["delete", "supportwindow", "now", "-n", NAMESPACE]).ok();
        }
        session.exit(SOON);
        eprintln!("{round}: cut {:?} after kubectl was started", began.elapsed());
        kiosk.gate.await_why("alice", "kiosk-17", false);
        if round == "suspended" {
            apply(&cluster, &window);
            kiosk.gate.await_why("alice", "kiosk-17", true);
        }
    }
    apply(&cluster, &window);
    kiosk.gate.await_why("alice", "kiosk-17", true);

    // Without the API server a session goes on, and new ones are let in by young policy.
    let mut session = kiosk.gate.staff("alice").w("kiosk-17", 443);
    session.write(b"before\n").expect("a live session");
    session.await_stdout("before", SOON);
    cluster.kill("kube-apiserver");
    session.write(b"without\n").expect("a live session");
    session.await_stdout("without", SOON);
    kiosk.gate.await_why("alice", "kiosk-17", true);

    // A relay that is started meanwhile goes by what the one before it wrote down.
    kiosk.gate.crash();
    session.exit(SOON);
    kiosk.gate.start();
    attach(&mut kiosk);
    kiosk.gate.await_why("alice", "kiosk-17", true);
    let mut session = kiosk.gate.staff("alice").w("kiosk-17", 443);
    session.write(b"again\n").expect("a live session");
    session.await_stdout("again", SOON);

    // It comes back: all goes on with no restart.
    cluster.start("kube-apiserver");
    apply(&cluster, &window.suspended());
    session.exit(SOON);
    kiosk.gate.await_why("alice", "kiosk-17", false);
}

#[test]
fn mounted_host_keys_change_places_by_the_meshs_word_and_no_session_ends() {
    let Some(cluster) = control_plane() else { return };
    let kiosk = kiosk(&cluster, "1h");
    let gate = &kiosk.gate;
    apply(&cluster, &alice_everywhere("now"));
    gate.await_why("alice", "kiosk-17", true);
    let mut session = gate.staff("alice").w("kiosk-17", 443);
    let told = |host_key: &serde_json::Value| {
        let patch = json!({"spec": {"hostKey": host_key}}).to_string();
        let mesh = ["patch", "mesh", "prod", "-n", NAMESPACE, "--type=merge", "-p", &patch];
        cluster.kubectl(&mesh).ok();
    };
    let published = || {
        let text = std::fs::read_to_string(gate.state.join("known_hosts")).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect::<Vec<_>>()
    };
    let a = gate.host_key();

    // The Secret has not come into the pod: all goes on under the first key, and it is said.
    told(&json!({"serve": "A", "announce": "B"}));
    gate.await_log(&["not all of the Mesh's host keys are offered", "relay-host-key_b"], SOON);
    assert_eq!(published(), [a.as_str()]);
    told(&json!({"serve": "B", "announce": "A"}));
    gate.await_why("alice", "kiosk-17", true);
    assert_eq!(published(), [a.as_str()], "a key that is not there does not serve");
    told(&json!({"serve": "A", "announce": "B"}));
    let public = gate.key("relay-host-key_b").public;
    let b = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    eventually("both are offered", SOON, || published() == [a.as_str(), b.as_str()]);
    told(&json!({"serve": "B", "announce": "A"}));
    eventually("they have changed places", SOON, || published() == [b.as_str(), a.as_str()]);
    session.write(b"still here\n").expect("a live session");
    session.await_stdout("still here", SOON);
}

#[test]
fn policy_that_cannot_be_confirmed_grows_old() {
    let Some(cluster) = control_plane() else { return };
    let kiosk = kiosk(&cluster, "10s");
    let window = alice_everywhere("now");
    apply(&cluster, &window);
    kiosk.gate.await_why("alice", "kiosk-17", true);
    let mut session = kiosk.gate.staff("alice").w("kiosk-17", 443);

    // Stopped, and answering from memory with its store standing still: the same.
    for (rounds, (away, component)) in (1..).zip([("kube-apiserver", "stop"), ("etcd", "pause")]) {
        // One whose deadline comes while it is away, and after policy has grown old.
        let closes = in_seconds(20);
        let short = SupportWindow::open(away, "bob", "kiosk-17").services(&["web"]);
        apply(&cluster, &short.closing_at(closes));
        kiosk.gate.await_why("bob", "kiosk-17", true);
        let bob = kiosk.gate.staff("bob");
        let mut bobs = bob.w("kiosk-17", 443);
        bobs.write(b"in time\n").expect("a live session");
        bobs.await_stdout("in time", SOON);
        match component {
            "stop" => cluster.stop(away),
            _ => cluster.pause(away),
        }
        let began = Instant::now();
        // Policy is young yet: whoever comes now is let in.
        let mut young = kiosk.gate.staff("alice").w("kiosk-17", 443);
        young.write(b"young\n").expect("a live session");
        young.await_stdout("young", SOON);
        not_ready(&kiosk.gate, "the relay last saw its policy");
        eprintln!("{away} away: nobody new after {:?}", began.elapsed());
        kiosk.gate.await_why("alice", "kiosk-17", false);
        let refused = kiosk.gate.staff("alice").refused("kiosk-17", 443);
        assert!(refused.stderr.contains("the relay last saw its policy"), "{}", refused.stderr);
        session.write(b"still\n").expect("a live session");
        session.await_stdout("still", SOON);
        // The deadline holds whatever is away.
        let deadline = monotonic(closes);
        let cut = bobs.exit(AGED).at;
        let late = after(deadline, cut);
        eprintln!("{away} away: a session was cut {late:?} after its deadline");
        assert!(cut + ON_TIME >= deadline && late <= ON_TIME, "{late:?} after its deadline");
        assert!(young.is_running() && session.is_running(), "only the one whose deadline it was");
        drop(young);
        match component {
            "stop" => cluster.start(away),
            _ => cluster.resume(away),
        }
        let began = Instant::now();
        let ready = || kiosk.gate.readiness().is_some_and(|(status, _)| status == 200);
        eventually("it is ready again", AGED, ready);
        eprintln!("{away} back: ready after {:?}", began.elapsed());
        kiosk.gate.await_why("alice", "kiosk-17", true);
        // What happened meanwhile is told.
        eventually("how both ended is told", AGED, || {
            let all = ["get", "supportsessions", "-n", NAMESPACE, "-o"];
            let ends = "jsonpath={.items[*].status.endedBy}";
            let told = cluster.kubectl(&[&all[..], &[ends]].concat()).stdout;
            told.matches("Deadline").count() == rounds && told.matches("Staff").count() == rounds
        });
    }
    apply(&cluster, &window.suspended());
    session.exit(SOON);
}

#[test]
fn from_apply_to_enforced() {
    let Some(cluster) = control_plane() else { return };
    let setup = Setup::new().cluster(cluster.kubeconfig());
    let mut gate = setup.write();
    apply_all(&cluster, &gate);
    gate.start();
    // One process for all requests: kubectl's own start would be most of what is measured.
    let mut command = cluster.kubectl_command();
    command.args(["proxy", "--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut proxy = command.spawn().expect("kubectl proxy");
    let mut line = String::new();
    BufReader::new(proxy.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let port: u16 =
        line.trim().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let now = jiff::Timestamp::now();
    let end = now + jiff::SignedDuration::from_hours(1);
    let mut took: Vec<Duration> = (0..MEASURED)
        .map(|number| {
            let object = json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportWindow",
                "metadata": {"name": format!("w{number}"), "namespace": NAMESPACE},
                "spec": {
                    "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk-17"]},
                    "services": ["ssh"], "consent": "NotRequired",
                    "schedule": {"once": {"start": instant(now), "end": instant(end)}},
                },
            });
            let began = Instant::now();
            post(port, &object.to_string());
            let there = f64::from(u32::try_from(number + 1).expect("few"));
            let name = "tidegate_policy_objects{kind=\"SupportWindow\"}";
            while metric(gate.admin, name).is_none_or(|count| count < there) {
                assert!(began.elapsed() < SOON, "window {number} is not enforced");
            }
            began.elapsed()
        })
        .collect();
    let _ = proxy.kill();
    let _ = proxy.wait();
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    eprintln!(
        "apply to enforced, {MEASURED} windows: p50 {:?} p90 {:?} p99 {:?} max {:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

fn post(port: u16, body: &str) {
    let path = format!("/apis/tidegate.dev/v1alpha1/namespaces/{NAMESPACE}/supportwindows");
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the proxy");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).expect("a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
