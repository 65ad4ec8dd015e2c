//! The harness itself, without a relay: what the other tests rely on.

use std::process::Command;
use std::time::Duration;

use tidegate_tests::keys::Key;
use tidegate_tests::servers::me;
use tidegate_tests::{Dropbear, Echo, Proc, SOON, Source, Sshd, Tap, eventually, have};

fn ssh(key: &Key, dir: &std::path::Path, port: u16, host_key: &str) -> Command {
    let known = dir.join("known");
    std::fs::write(&known, format!("[127.0.0.1]:* {host_key}\n")).expect("a file");
    let mut command = Command::new("ssh");
    command
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o"])
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .args(["-p", &port.to_string(), "-i"])
        .arg(&key.path)
        .arg(format!("{}@127.0.0.1", me()));
    command
}

#[test]
fn a_real_sshd_lets_the_test_in() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Key::ed25519(&dir.path().join("alice"));
    let sshd = Sshd::start(&dir.path().join("sshd"), &[&key.public]);
    let mut command = ssh(&key, dir.path(), sshd.port, &sshd.host_key.public);
    let done = Proc::run("ssh", command.arg("echo over; exit 7"), SOON);
    assert_eq!((done.code, done.stdout.as_str()), (Some(7), "over\n"), "{}", done.stderr);
}

#[test]
fn a_tap_passes_bytes_and_sees_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Key::ed25519(&dir.path().join("alice"));
    let sshd = Sshd::start(&dir.path().join("sshd"), &[&key.public]);
    let tap = Tap::start(([127, 0, 0, 1], sshd.port).into());
    let mut command = ssh(&key, dir.path(), tap.port(), &sshd.host_key.public);
    let done = Proc::run("ssh", command.arg("seq 100000 | tail -1"), SOON).ok();
    assert_eq!(done.stdout, "100000\n");
    eventually("both ends are seen", SOON, || {
        let last = tap.last();
        last.relay_ended.is_some() && last.client_ended.is_some() && last.down > 0
    });
}

#[test]
fn services_note_what_they_saw() {
    let (echo, source) = (Echo::start(), Source::start());
    let mut nc = std::net::TcpStream::connect(("127.0.0.1", echo.port())).expect("a connection");
    std::io::Write::write_all(&mut nc, b"hello").expect("a write");
    let mut answer = [0; 5];
    std::io::Read::read_exact(&mut nc, &mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
    drop(nc);
    eventually("the echo's end", SOON, || echo.all_ended());
    assert_eq!(echo.bytes(), 5);
    let feed = std::net::TcpStream::connect(("127.0.0.1", source.port())).expect("a connection");
    eventually("bytes", SOON, || source.bytes() > 1 << 16);
    drop(feed);
    eventually("the source's end", SOON, || source.all_ended());
}

#[test]
fn a_dropped_child_is_gone_with_its_group() {
    let child = Proc::start("sh", Command::new("sh").args(["-c", "sleep 300 & echo up; wait"]));
    child.await_stdout("up", SOON);
    let pid = child.pid();
    drop(child);
    eventually("the group is gone", Duration::from_secs(5), || {
        let group = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::test_kill_process_group(group).is_err()
    });
}

#[test]
fn a_real_dropbear_answers() {
    if !have("dropbear") || !have("dbclient") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dropbear = Dropbear::start(&dir.path().join("dropbear"));
    assert!(dropbear.process.is_running());
}
