//! What people do inside a session: copies, interactive shells, multiplexed connections, many
//! channels at once (invariant 1 holds for each channel, and none of them may lose a byte).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tidegate_tests::disk::{random_file, sha256};
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::DOMAIN;
use tidegate_tests::process::Finished;
use tidegate_tests::servers::me;
use tidegate_tests::{Kiosk, Proc, SOON, Staff, eventually, have, long, ports};

/// Enough for the largest copy on a slow machine.
const AMPLE: Duration = Duration::from_mins(15);

/// How many bytes are copied: 1 GiB where the long form is asked for.
fn size() -> u64 {
    if long() { 1 << 30 } else { 48 << 20 }
}

/// `PROGRAM -F CONFIG -J alice@relay …`: scp and sftp take the same options as ssh.
fn copier(alice: &Staff, program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("-F").arg(alice.config()).args(["-J", &alice.jump()]);
    command
}

fn remote(path: &Path) -> String {
    format!("{}@kiosk-17.{DOMAIN}:{}", me(), path.display())
}

fn ssh_command(alice: &Staff) -> String {
    format!("ssh -F {} -J {}", alice.config().display(), alice.jump())
}

#[test]
fn scp_both_ways_keeps_every_byte() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let dir = kiosk.gate.dir();
    let (here, there, back) = (dir.join("here"), dir.join("there"), dir.join("back"));
    random_file(&here, size());
    let begun = std::time::Instant::now();
    let up =
        Proc::run("scp up", copier(&alice, "scp").arg("-q").arg(&here).arg(remote(&there)), AMPLE);
    up.ok();
    let up = begun.elapsed();
    Proc::run("scp down", copier(&alice, "scp").arg("-q").arg(remote(&there)).arg(&back), AMPLE)
        .ok();
    println!("scp of {} bytes: up {up:?}, down {:?}", size(), begun.elapsed().saturating_sub(up));
    let sums = [sha256(&here), sha256(&there), sha256(&back)];
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
}

#[test]
fn rsync_resumes_a_copy_that_was_broken_off() {
    if !have("rsync") {
        return;
    }
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let dir = kiosk.gate.dir();
    let (here, there) = (dir.join("here"), dir.join("there"));
    random_file(&here, 24 << 20);
    let rsync = |limit: &str| {
        let mut command = Command::new("rsync");
        command
            .args(["--partial", "--inplace", "--stats", "--no-whole-file", limit, "-e"])
            .arg(ssh_command(&alice))
            .arg(&here)
            .arg(remote(&there));
        command
    };
    let first = Proc::start("rsync", &mut rsync("--bwlimit=4096"));
    eventually("a part has arrived", AMPLE, || {
        std::fs::metadata(&there).is_ok_and(|meta| meta.len() > 4 << 20)
    });
    drop(first);
    let part = std::fs::metadata(&there).expect("the part").len();
    assert!(part < 24 << 20, "the copy was not broken off");
    let stats = Proc::run("rsync", &mut rsync("--bwlimit=0"), AMPLE).ok().stdout;
    assert_eq!(sha256(&here), sha256(&there));
    let matched = stats
        .lines()
        .find_map(|line| line.strip_prefix("Matched data: "))
        .and_then(|rest| rest.split_whitespace().next()?.replace(',', "").parse::<u64>().ok())
        .unwrap_or_default();
    assert!(matched > 1 << 20, "nothing of the part was used again: {stats}");
}

#[test]
fn sftp_runs_a_batch() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let dir = kiosk.gate.dir();
    let (here, batch) = (dir.join("here"), dir.join("batch"));
    random_file(&here, 3 << 20);
    let there = dir.join("sftp");
    std::fs::write(
        &batch,
        format!(
            "mkdir {there}\nput {here} {there}/one\nrename {there}/one {there}/two\n\
             get {there}/two {back}\nls -l {there}\n",
            there = there.display(),
            here = here.display(),
            back = dir.join("back").display()
        ),
    )
    .expect("a batch");
    let mut command = copier(&alice, "sftp");
    command.arg("-b").arg(&batch).arg(format!("{}@kiosk-17.{DOMAIN}", me()));
    let done = Proc::run("sftp", &mut command, AMPLE).ok();
    assert!(done.stdout.contains("two"), "{}", done.stdout);
    assert_eq!(sha256(&here), sha256(&dir.join("back")));
}

#[test]
fn an_interactive_shell_has_a_terminal() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let mut command = alice.ssh();
    command.args(["-tt", "-J", &alice.jump(), &format!("{}@kiosk-17.{DOMAIN}", me())]);
    let mut shell = Proc::start("ssh -tt", &mut command);
    shell.write(b"tty && echo $((6 * 7)); exit 5\n").expect("an open shell");
    shell.await_stdout("/dev/pts/", SOON);
    shell.await_stdout("42", SOON);
    assert_eq!(shell.exit(SOON).code, Some(5));
}

#[test]
fn one_control_master_carries_many_commands_in_one_session() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let socket = kiosk.gate.dir().join("cm");
    let control = format!("ControlPath={}", socket.display());
    let target = format!("{}@kiosk-17.{DOMAIN}", me());
    let with = |options: &[&str], command: &str| {
        let mut ssh = alice.ssh();
        ssh.args(["-J", &alice.jump(), "-o", &control]).args(options).arg(&target).arg(command);
        ssh
    };
    let mut master = Proc::start("master", &mut with(&["-M"], "echo up; cat"));
    master.await_stdout("up", SOON);
    for n in 0..10 {
        let mut command = with(&[], &format!("echo {n}"));
        let done = Proc::run("ssh over the master", &mut command, SOON).ok();
        assert_eq!(done.stdout, format!("{n}\n"));
    }
    assert_eq!(kiosk.gate.sessions().len(), 1);
    master.close_stdin();
    assert_eq!(master.exit(SOON).code, Some(0));
}

#[test]
fn fifty_connections_through_one_forward_each_keep_their_bytes() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let port = ports::free();
    let forward = format!("{port}:kiosk-17:443");
    let alice = kiosk.gate.staff("alice");
    let client = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    let threads: Vec<_> = (0..50_u8)
        .map(|n| {
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the forward");
                let sent: Vec<u8> = (0..200_000_u32).map(|i| n ^ i.to_le_bytes()[0]).collect();
                let mut writer = socket.try_clone().expect("a descriptor");
                let copy = sent.clone();
                let writing = std::thread::spawn(move || {
                    writer.write_all(&copy).expect("a write");
                    writer.shutdown(Shutdown::Write).expect("a half-close");
                });
                let mut got = Vec::new();
                socket.read_to_end(&mut got).expect("a read");
                writing.join().expect("the writer");
                assert!(got == sent, "connection {n} got {} bytes of {}", got.len(), sent.len());
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a connection");
    }
    assert_eq!(kiosk.gate.sessions().len(), 1, "one connection on one service is one session");
}

#[test]
fn eight_sessions_at_once() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let mut shells: Vec<_> = (0..8)
        .map(|n| {
            let command = format!("echo up {n}; cat; exit {n}");
            Proc::start(format!("shell {n}"), &mut alice.shell("kiosk-17", &[&command]))
        })
        .collect();
    for (n, shell) in shells.iter().enumerate() {
        shell.await_stdout(&format!("up {n}"), SOON);
    }
    assert_eq!(kiosk.gate.sessions().len(), 8);
    let ninth = alice.run("kiosk-17", &["true"]);
    assert_eq!(ninth.code, Some(255), "sessionsPerUser is 8");
    assert!(ninth.stderr.contains("alice has 8 sessions open"), "{}", ninth.stderr);
    for shell in &mut shells {
        shell.close_stdin();
    }
    for (n, shell) in (0_i32..).zip(&shells) {
        assert_eq!(shell.exit(SOON).code, Some(n));
    }
    eventually("no session is left", SOON, || kiosk.gate.sessions().is_empty());
}

#[test]
fn a_half_close_lets_the_answer_come() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let mut shell = Proc::start("cat", &mut alice.shell("kiosk-17", &["cat; echo rest"]));
    shell.write(&vec![b'x'; 300_000]).expect("an open session");
    let done: Finished = shell.finish(SOON);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout.len(), 300_000 + "rest\n".len());
    // The same on the relay's own channel.
    let mut channel = alice.w("kiosk-17", 443);
    channel.write(&vec![b'y'; 300_000]).expect("an open channel");
    let done = channel.finish(SOON);
    assert_eq!((done.code, done.stdout.len()), (Some(0), 300_000), "{}", done.stderr);
}

#[test]
fn what_was_sent_last_arrives_though_the_client_leaves_at_once() {
    const BYTES: usize = 1 << 20;
    // `ssh -W` may disconnect right behind its last byte.
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let mut channel = alice.w("kiosk-17", 514);
    channel.write(&vec![b'z'; BYTES]).expect("an open channel");
    channel.finish(SOON);
    eventually("every byte has arrived", SOON, || kiosk.sink.bytes() == BYTES as u64);
}

#[test]
fn a_session_that_is_not_read_stalls_no_other() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let stopped = kiosk.gate.staff("alice").w("kiosk-17", 873);
    stopped.await_bytes(1 << 20, SOON);
    stopped.stop();
    let mut last = (kiosk.source.bytes(), std::time::Instant::now());
    eventually("the stopped session's windows are full", SOON, || {
        if kiosk.source.bytes() != last.0 {
            last = (kiosk.source.bytes(), std::time::Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    });
    let mut other = kiosk.gate.staff("bob").w("kiosk-17", 443);
    other.write(&vec![b'x'; 4 << 20]).expect("an open channel");
    let done = other.finish(SOON);
    assert_eq!((done.code, done.stdout.len()), (Some(0), 4 << 20), "{}", done.stderr);
}
