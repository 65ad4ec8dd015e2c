//! Invariant 7: the trail comes first, it is whole, and whoever touches it is found out.

use std::path::PathBuf;

use serde_json::Value;
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::process::Finished;
use tidegate_tests::programs::Build;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, SmallDisk, eventually};

fn echoes(gate: &Gate) -> bool {
    refusal(gate).is_none()
}

/// `None` if a byte of alice's came back, else what she was told.
fn refusal(gate: &Gate) -> Option<String> {
    let mut channel = gate.staff("alice").w("kiosk-17", 443);
    let _ = channel.write(b"ping");
    let done = channel.finish(SOON);
    (done.stdout != "ping").then_some(done.stderr)
}

fn verify(gate: &Gate) -> Finished {
    gate.command(&["audit", "verify", &gate.state.to_string_lossy()])
}

/// The files of the trail, oldest first.
fn files(gate: &Gate) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(gate.state.join("audit")).expect("the audit log");
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

#[test]
fn invariant_7_a_session_leaves_its_lines() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    assert!(echoes(gate));
    let end = gate.await_audit("the session's end", SOON, |line| line["endedBy"].is_string());
    let lines = gate.audit();
    let allow = lines.iter().find(|line| line["event"] == "Allow").expect("an Allow line");
    assert!(allow["seq"].as_u64() < end["seq"].as_u64());
    for line in &lines {
        assert!(line["seq"].is_u64() && line["time"].is_string(), "{line}");
        assert_eq!(line["prev"].as_str().map(str::len), Some(64), "{line}");
    }
    assert_eq!(allow["decision"], "Allow");
    assert_eq!(allow["user"], "alice");
    assert_eq!(allow["terminal"], "kiosk-17");
    assert_eq!(allow["service"], "web");
    assert_eq!(allow["case"], "48213");
    assert_eq!(allow["transport"], "SSH");
    assert_eq!(allow["keyFingerprint"], gate.key("alice").fingerprint());
    assert_eq!(allow["terminalKeyFingerprint"], gate.key("kiosk-17").fingerprint());
    assert!(allow["sourceAddress"].as_str().is_some_and(|from| from.starts_with("127.0.0.1")));
    let window = &allow["window"];
    assert_eq!((&window["namespace"], &window["name"]), (&"default".into(), &"berlin".into()));
    assert!(window["uid"].is_string() && window["generation"].is_i64(), "{allow}");
    assert_eq!(end["session"], allow["session"]);
    assert_eq!(end["endedBy"], "Staff");
    assert_eq!((&end["bytesIn"], &end["bytesOut"]), (&4.into(), &4.into()));
    assert!(end["overrunMs"].is_u64(), "{end}");
    verify(gate).ok();
    eventually("each line is counted", SOON, || {
        let lines = u32::try_from(gate.audit().len()).expect("a short trail");
        metric(gate.admin, "tidegate_audit_records_total") == Some(f64::from(lines))
    });
    assert!(metric(gate.admin, "tidegate_audit_fsync_seconds_count") > Some(0.0));
}

#[test]
fn invariant_7_a_refusal_leaves_one_line_with_a_count() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let port = tidegate_tests::ports::free();
    let forward = format!("{port}:kiosk-17:8080");
    let alice = gate.staff("alice");
    let client = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    for _ in 0..5 {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward");
        let _ = std::io::Read::read_to_end(&mut socket, &mut Vec::new());
    }
    let denied = |line: &Value| line["event"] == "Deny" && line["user"] == "alice";
    let first = gate.await_audit("the refusal", SOON, denied);
    assert_eq!(first["decision"], "Deny");
    assert!(first["reason"]["sentence"].is_string() && first["reason"]["code"].is_string());
    drop(client);
    gate.await_audit("the repeats", SOON, |line| denied(line) && line["count"] == 4);
    assert_eq!(gate.audit().iter().filter(|line| denied(line)).count(), 2);
}

#[test]
fn invariant_7_a_shutdown_loses_no_line_and_its_own_is_the_last() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let port = tidegate_tests::ports::free();
    let forward = format!("{port}:kiosk-17:8080");
    let alice = kiosk.gate.staff("alice");
    let client = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    for _ in 0..5 {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward");
        let _ = std::io::Read::read_to_end(&mut socket, &mut Vec::new());
    }
    kiosk.gate.stop();
    let lines = kiosk.gate.audit();
    let repeats = |line: &&Value| line["event"] == "Deny" && line["count"] == 4;
    assert_eq!(lines.iter().filter(repeats).count(), 1, "{lines:#?}");
    let detached = |line: &&Value| line["event"] == "Detach" && line["terminal"] == "kiosk-17";
    assert_eq!(lines.iter().filter(detached).count(), 1, "{lines:#?}");
    assert_eq!(lines.last().expect("lines")["event"], "Stop");
}

#[test]
fn invariant_7_an_edited_a_deleted_and_a_swapped_line_are_named() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    for _ in 0..3 {
        assert!(echoes(&kiosk.gate));
    }
    eventually("three ends", SOON, || {
        kiosk.gate.audit().iter().filter(|line| line["endedBy"].is_string()).count() == 3
    });
    kiosk.gate.stop();
    let gate = &kiosk.gate;
    verify(gate).ok();
    let path = files(gate).pop().expect("a file");
    let whole = std::fs::read_to_string(&path).expect("the trail");
    let lines: Vec<&str> = whole.lines().collect();
    let at = lines.iter().position(|line| line.contains("\"event\":\"Allow\""));
    let at = at.expect("an Allow line");
    let write = |lines: &[String]| {
        std::fs::write(&path, lines.join("\n") + "\n").expect("the trail");
        let told = verify(gate);
        assert_eq!(told.code, Some(1), "{told:?}");
        format!("{}{}", told.stdout, told.stderr)
    };
    let owned: Vec<String> = lines.iter().map(ToString::to_string).collect();

    let mut edited = owned.clone();
    edited[at] = edited[at].replace("alice", "mallory");
    let told = write(&edited);
    // The edit shows in the line itself or in the next one's link to it.
    assert!(
        told.contains(&format!(":{}", at + 1)) || told.contains(&format!(":{}", at + 2)),
        "{told}"
    );

    let mut deleted = owned.clone();
    deleted.remove(at);
    let told = write(&deleted);
    assert!(told.contains(&format!(":{}", at + 1)), "{told}");

    let mut swapped = owned.clone();
    swapped.swap(at, at + 1);
    let told = write(&swapped);
    assert!(told.contains(&format!(":{}", at + 1)), "{told}");

    std::fs::write(&path, whole).expect("the trail");
    verify(gate).ok();
}

#[test]
fn invariant_7_rotation_keeps_the_chain() {
    let kiosk = Kiosk::with(|setup| {
        setup.window(alice_everywhere("berlin")).arg("--audit-rotate").arg("4096")
    });
    let gate = &kiosk.gate;
    eventually("the trail has three files", SOON, || {
        assert!(echoes(gate));
        files(gate).len() >= 3
    });
    verify(gate).ok();
    let gone = files(gate).remove(1);
    std::fs::rename(&gone, gate.dir().join("gone")).expect("a move");
    assert_eq!(verify(gate).code, Some(1));
    std::fs::rename(gate.dir().join("gone"), &gone).expect("a move");
    verify(gate).ok();
}

#[test]
fn invariant_7_a_torn_last_line_is_repaired_and_the_repair_recorded() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    assert!(echoes(&kiosk.gate));
    kiosk.gate.crash();
    let path = files(&kiosk.gate).pop().expect("a file");
    // What a crash leaves in the middle of a write: half of a line behind the durable ones.
    let mut trail = std::fs::OpenOptions::new().append(true).open(&path).expect("the trail");
    std::io::Write::write_all(&mut trail, b"{\"seq\":99,\"prev\":\"0123").expect("a write");
    kiosk.gate.start();
    kiosk.gate.await_audit("the repair", SOON, |line| line["event"] == "Repair");
    kiosk.attach();
    assert!(echoes(&kiosk.gate));
    verify(&kiosk.gate).ok();
}

#[test]
fn invariant_7_a_kill_between_the_record_and_the_first_byte_leaves_the_line() {
    let mut kiosk = Kiosk::with(|setup| {
        setup
            .build(Build::FailPoints)
            .window(alice_everywhere("berlin"))
            .env("TIDEGATE_FAILPOINT", "Recorded")
    });
    assert!(!echoes(&kiosk.gate));
    kiosk.gate.relay().exit(SOON);
    assert_eq!(kiosk.echo.bytes(), 0, "a byte passed before the record");
    assert!(kiosk.gate.audit().iter().any(|line| line["event"] == "Allow"));
    kiosk.gate.env.clear();
    kiosk.gate.start();
    let end = kiosk.gate.await_audit("the session's end", SOON, |line| line["endedBy"] == "Fault");
    assert_eq!(end["user"], "alice");
    verify(&kiosk.gate).ok();
}

#[test]
fn invariant_7_a_full_disk_refuses_new_sessions_and_keeps_running_ones() {
    let mut disk = None;
    let kiosk = Kiosk::with(|setup| {
        disk = SmallDisk::mount(&setup.dir().join("state"));
        setup.window(alice_everywhere("berlin"))
    });
    let Some(disk) = &disk else { return };
    let gate = &kiosk.gate;
    let mut running = gate.staff("alice").w("kiosk-17", 443);
    running.write(b"one").expect("an open channel");
    running.await_stdout("one", SOON);
    let ballast = disk.fill();
    // What is in the log's last page still has room.
    let mut told = String::new();
    eventually("new sessions are refused", SOON, || match refusal(gate) {
        None => false,
        Some(sentence) => {
            told = sentence;
            true
        }
    });
    assert!(told.contains("cannot write its audit log"), "{told}");
    assert_eq!(gate.readiness().map(|(status, _)| status), Some(503));
    running.write(b"two").expect("the running session");
    running.await_stdout("onetwo", SOON);
    std::fs::remove_file(&ballast).expect("the ballast");
    eventually("sessions are admitted again", SOON, || echoes(gate));
    running.write(b"three").expect("the running session");
    running.await_stdout("onetwothree", SOON);
    running.finish(SOON);
    verify(gate).ok();
}

#[test]
fn a_login_that_panics_once_its_key_is_proven_is_closed_and_counted() {
    let kiosk =
        Kiosk::detached(|setup| setup.build(Build::FailPoints).env("TIDEGATE_FAULT", "Recognise"));
    let gate = &kiosk.gate;
    let staff = gate.staff("alice");
    for login in 1..=2 {
        let client = Proc::start("ssh -N", &mut staff.relay(&["-N"]));
        assert_eq!(client.exit(SOON).code, Some(255), "{}", client.stderr());
        eventually("it is counted", SOON, || {
            let closed = "tidegate_connections_closed_total{outcome=\"disconnected\"}";
            metric(gate.admin, closed) == Some(f64::from(login))
        });
    }
    assert_eq!(metric(gate.admin, "tidegate_connections_unauthenticated"), Some(0.0));
}
