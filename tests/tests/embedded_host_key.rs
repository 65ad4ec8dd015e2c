//! Another host key comes to serve: OpenSSH learns it beforehand, one that does not is counted and refuses
//! it by itself, and no session notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_tests::{Gate, Kiosk, Proc, SOON, SupportWindow, eventually, http};

/// The Mesh of the tests with `hostKey`, in YAML's flow form.
fn put_mesh(gate: &Gate, host_key: &str) {
    let text = format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: Mesh\nmetadata:\n  namespace: default\n  name: prod\n\
         spec:\n  domain: support.example.com\n  tenants: {{from: Same}}\n  hostKey: {host_key}\n"
    );
    gate.put_text("mesh.yaml", &text);
}

/// The relay's own known_hosts lines, of the key that serves first: `ssh-ed25519 AAAA…`.
fn published(gate: &Gate) -> Vec<String> {
    let text = fs::read_to_string(gate.state.join("known_hosts")).unwrap_or_default();
    let key = |line: &str| line.split_once(' ').map(|(_, key)| key.to_owned());
    text.lines().filter_map(key).collect()
}

#[track_caller]
fn await_published(gate: &Gate, what: &str, keys: &[&str]) {
    eventually(what, SOON, || published(gate) == keys);
}

/// `alice`'s ssh as it comes out of the box, but that it asks nothing: known hosts in a file of their own.
fn stock(gate: &Gate, known: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("ssh");
    command
        .env_remove("SSH_AUTH_SOCK")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null", "-o"])
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .arg("-i")
        .arg(gate.key("alice").path)
        .args(["-p", &gate.port.to_string()])
        .args(options);
    command
}

fn whoami(gate: &Gate, known: &Path, options: &[&str]) -> tidegate_tests::process::Finished {
    let mut command = stock(gate, known, options);
    command.args(["-T", "alice@127.0.0.1", "whoami"]);
    Proc::run("ssh whoami", &mut command, SOON)
}

/// A known_hosts file with one key of the relay.
fn known(gate: &Gate, name: &str, key: &str) -> PathBuf {
    let path = gate.dir().join(name);
    fs::write(&path, format!("[127.0.0.1]:{} {key}\n", gate.port)).expect("known_hosts");
    path
}

/// The sum of the gauge's series that have all of these labels.
fn clients(gate: &Gate, labels: &[&str]) -> u32 {
    let (_, text) = http::get(gate.admin, "/metrics").expect("the admin port");
    let series = text.lines().filter(|line| line.starts_with("tidegate_host_key_clients{"));
    let series = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u32>().unwrap()).sum()
}

const LEARN: [&str; 2] = ["-o", "UpdateHostKeys=yes"];
const DO_NOT: [&str; 2] = ["-o", "UpdateHostKeys=no"];

#[test]
fn openssh_learns_the_next_host_key_and_the_switch_drops_no_session() {
    let kiosk = Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17")]);
    let gate = &kiosk.gate;
    let a = gate.host_key();
    let learner = known(gate, "known-learner", &a);
    whoami(gate, &learner, &LEARN).ok();
    assert_eq!(fs::read_to_string(&learner).unwrap().lines().count(), 1, "nothing to learn yet");

    // Told to announce: a running session, one that learns, and the terminal, which was here before.
    let mut session = stock(gate, &known(gate, "known-session", &a), &DO_NOT);
    let target = "kiosk-17.support.example.com:22";
    let mut session = Proc::start("session", session.args(["-W", target, "alice@127.0.0.1"]));
    session.await_stdout("SSH-2.0-", SOON);
    put_mesh(gate, "{serve: A, announce: B}");
    eventually("both keys are published", SOON, || published(gate).len() == 2);
    let both = published(gate);
    let b = both[1].clone();
    assert_eq!(both[0], a, "the key that serves comes first");
    assert_eq!(clients(gate, &["offered=\"announced\"", "accepted=\"yes\""]), 0);
    assert_eq!(clients(gate, &["offered=\"announced\"", "accepted=\"no\""]), 2);
    let lines = gate.control(&["known-hosts", "--manifests", &gate.manifests.to_string_lossy()]);
    let lines = lines.ok().stdout;
    assert!(lines.contains(&a) && lines.contains(&b), "{lines}");

    whoami(gate, &learner, &LEARN).ok();
    let learned = fs::read_to_string(&learner).unwrap();
    assert!(learned.contains(&a) && learned.contains(&b), "{learned}");
    eventually("alice's client has accepted it", SOON, || {
        clients(gate, &["announced", "accepted=\"yes\"", "role=\"staff\""]) == 1
    });
    assert_eq!(clients(gate, &["announced", "accepted=\"no\"", "role=\"terminal\""]), 1);
    assert_eq!(clients(gate, &["served", "accepted=\"yes\"", "connected=\"yes\""]), 2);
    let status = gate.control(&["status"]).ok().stdout;
    assert!(status.contains("is announced, accepted by 1 of 2 clients"), "{status}");

    // A step too far in one edit is refused, and all stays as it was.
    put_mesh(gate, "{serve: A}");
    await_published(gate, "the announcement is taken back", &[&a]);
    put_mesh(gate, "{serve: B}");
    gate.await_log(&["spec.hostKey.serve", "while the other key is announced"], SOON);
    assert_eq!(published(gate), [a.as_str()]);
    put_mesh(gate, "{serve: A, announce: B}");
    await_published(gate, "the same two keys", &[&a, &b]);
    whoami(gate, &learner, &LEARN).ok();

    // Told to switch: the session and the terminal's connection live on.
    put_mesh(gate, "{serve: B, announce: A}");
    await_published(gate, "the keys have changed places", &[&b, &a]);
    whoami(gate, &learner, &LEARN).ok();
    session.write(b"SSH-2.0-test\r\n").expect("an open session");
    assert!(session.is_running());
    let shell = whoami(gate, &learner, &["-o", "RekeyLimit=1K"]);
    shell.ok();
    // The terminal that did not learn is connected, carries new sessions, and is counted.
    let mut other = stock(gate, &learner, &LEARN);
    let other = Proc::start("another", other.args(["-W", target, "alice@127.0.0.1"]));
    other.await_stdout("SSH-2.0-", SOON);
    let stays = ["served", "role=\"terminal\"", "accepted=\"no\"", "connected=\"yes\""];
    assert_eq!(clients(gate, &stays), 1);

    // One that pins the old key refuses by itself.
    let pinned = whoami(gate, &known(gate, "known-pinned", &a), &DO_NOT);
    assert_eq!(pinned.code, Some(255), "{pinned:?}");
    assert!(pinned.stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{}", pinned.stderr);

    // The old key goes; so it does from the client that had learned both.
    put_mesh(gate, "{serve: B}");
    await_published(gate, "the new key alone", &[&b]);
    whoami(gate, &learner, &LEARN).ok();
    let left = fs::read_to_string(&learner).unwrap();
    assert!(left.contains(&b) && !left.contains(&a), "{left}");
    assert!(session.is_running() && other.is_running());
}

#[test]
fn a_connection_keeps_the_key_that_it_began_with_when_keys_are_exchanged_anew() {
    let kiosk =
        Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17").services(&["web"])]);
    let gate = &kiosk.gate;
    let a = gate.host_key();
    let pinned = known(gate, "pinned", &a);
    // OpenSSH checks the host key at each exchange against the first one's.
    let mut session = stock(gate, &pinned, &["-o", "UpdateHostKeys=no", "-o", "RekeyLimit=16K"]);
    let target = "kiosk-17.support.example.com:443";
    let mut session = Proc::start("echo", session.args(["-W", target, "alice@127.0.0.1"]));
    session.write(b"ping").expect("an open session");
    session.await_stdout("ping", SOON);
    put_mesh(gate, "{serve: A, announce: B}");
    eventually("both keys are published", SOON, || published(gate).len() == 2);
    let b = published(gate)[1].clone();
    put_mesh(gate, "{serve: B}");
    await_published(gate, "the new key alone", &[&b]);
    for round in 0..16 {
        session.write(&[b'x'; 8192]).expect("an open session");
        let mark = format!("round {round};");
        session.write(mark.as_bytes()).expect("an open session");
        session.await_stdout(&mark, SOON);
    }
    assert_eq!(whoami(gate, &pinned, &DO_NOT).code, Some(255));
    drop(session);
}

#[test]
fn the_choice_and_the_counts_outlive_a_restart() {
    let mut kiosk = Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17")]);
    let a = kiosk.gate.host_key();
    put_mesh(&kiosk.gate, "{serve: A, announce: B}");
    eventually("both keys are published", SOON, || published(&kiosk.gate).len() == 2);
    let b = published(&kiosk.gate)[1].clone();
    let file = known(&kiosk.gate, "learner", &a);
    whoami(&kiosk.gate, &file, &LEARN).ok();
    put_mesh(&kiosk.gate, "{serve: B, announce: A}");
    await_published(&kiosk.gate, "the keys have changed places", &[&b, &a]);
    kiosk.gate.stop();
    kiosk.gate.start();
    assert_eq!(published(&kiosk.gate), [b.as_str(), a.as_str()]);
    let learned = ["served", "role=\"staff\"", "accepted=\"yes\"", "connected=\"no\""];
    assert_eq!(clients(&kiosk.gate, &learned), 1);
    whoami(&kiosk.gate, &file, &LEARN).ok();
}
