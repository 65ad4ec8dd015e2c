//! The trail in trouble: killed while it writes, a full disk, a reader of stdout that is stuck.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]
#![expect(clippy::disallowed_methods, reason = "tests wait for their tasks themselves")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use jiff::Timestamp;
use rand::{Rng as _, SeedableRng as _};
use tidegate_relay::audit::{Audit, AuditError, Event, Settings, What, verify};
use tidegate_relay::state::StateDir;

fn time() -> Timestamp {
    "2026-11-23T09:00:00.25Z".parse().unwrap()
}

fn deny(number: usize) -> Event {
    Event { user: Some(format!("user-{number}")), ..Event::new(What::Deny, time()) }
}

/// Not a test of its own: the process that `a_killed_writer_…` kills.
#[test]
#[ignore = "run as a child by a_killed_writer_loses_nothing_that_it_acknowledged"]
fn child() {
    let Some(path) = env::var_os("TIDEGATE_TEST_STATE") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let state = StateDir::open(Path::new(&path)).unwrap();
        let audit =
            Audit::open(&state, Settings { rotate_at: 20_000, ..Settings::new(time) }).unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let audit = audit.clone();
                tokio::spawn(async move {
                    for number in 0.. {
                        let seq = audit.record(deny(task * 1_000_000 + number)).await.unwrap();
                        writeln!(io::stdout().lock(), "ack {seq}").unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let audit = path.join("audit");
    let mut random = rand::rngs::StdRng::seed_from_u64(48213);
    let mut most = 0;
    for round in 0..20 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
            .env("TIDEGATE_TEST_STATE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed by a count of its own answers, so that slow machines do as much.
        let after = random.random_range(1..400);
        let mut acknowledged = 0;
        for line in out.by_ref() {
            if let Some(seq) = line.unwrap().strip_prefix("ack ") {
                most = most.max(seq.parse().unwrap());
                acknowledged += 1;
            }
            if acknowledged == after {
                break;
            }
        }
        assert_eq!(acknowledged, after, "the child ended by itself");
        child.kill().unwrap();
        for line in out {
            if let Some(seq) = line.unwrap().strip_prefix("ack ") {
                // The last answer may itself be torn, which makes it smaller.
                most = most.max(seq.parse().unwrap_or(0));
            }
        }
        child.wait().unwrap();
        let summary = verify(&audit).unwrap_or_else(|broken| panic!("round {round}: {broken}"));
        let last = summary.last.unwrap().0;
        assert!(last >= most, "round {round}: {most} was acknowledged, {last} is there");
        // As a power cut might leave it: a part of one more line, also as the first of a file that the
        // kill in a rotation has kept from being made.
        if round % 3 == 0 {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.append(true).create(true).open(audit.join("audit.jsonl")).unwrap();
            file.write_all(br#"{"seq":99"#).unwrap();
        }
    }
    let state = StateDir::open(&path).unwrap();
    Audit::open(&state, Settings::new(time)).unwrap().close().await;
    let summary = verify(&audit).unwrap();
    // Each third round by hand; a kill may tear a line by itself.
    assert!((7..=20).contains(&summary.repairs), "{summary:?}");
    assert_eq!(summary.unfinished, 0);
    assert!(summary.files > 2, "{summary:?}");
}

/// A small file system of its own, taken away again at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted; in CI that is a failure.
    fn mount(at: &Path, bytes: u32) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let options = format!("size={bytes},mode=0700");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|done| done.status.success());
        if done {
            return Some(Self(at.to_owned()));
        }
        assert!(env::var("CI").as_deref() != Ok("true"), "CI runs these tests as root");
        eprintln!("SKIPPED: a full disk needs root to mount a small one");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_fails_records_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&disk, 256 << 10) else { return };
    let path = disk.join("s");
    let state = StateDir::open(&path).unwrap();
    let audit = Audit::open(&state, Settings { rotate_at: 20_000, ..Settings::new(time) }).unwrap();
    for number in 0..100 {
        audit.record(deny(number)).await.unwrap();
    }
    let ballast = disk.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);

    let mut written = 100;
    let mut refused = 0;
    // The room that the trail keeps takes some of them.
    for number in 0..300 {
        match audit.record(deny(number)).await {
            Ok(_) => written += 1,
            Err(AuditError::NotWritten(why)) => {
                assert!(why.contains("No space left"), "{why}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused >= 100, "{refused}");
    let why = audit.healthy().unwrap_err();
    assert!(why.starts_with("the audit log cannot be written: No space left"), "{why}");
    // Also while it is full the chain has no torn middle, and a restart works.
    assert_eq!(verify(&path.join("audit")).unwrap().lines, written);
    audit.close().await;
    drop((audit, state));
    let state = StateDir::open(&path).unwrap();
    let audit = Audit::open(&state, Settings::new(time)).unwrap();
    assert!(audit.record(deny(299)).await.is_err());

    let end = tokio::spawn({
        let audit = audit.clone();
        async move { audit.insist(deny(7)).await }
    });
    fs::remove_file(&ballast).unwrap();
    let recovered = async {
        while audit.healthy().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.unwrap();
    end.await.unwrap().unwrap();
    audit.close().await;
    let summary = verify(&path.join("audit")).unwrap();
    assert_eq!(summary.lines, written + 2, "one Recovered, one End");
    let text = fs::read_to_string(path.join("audit/audit.jsonl")).unwrap();
    assert!(text.contains(r#""event":"Recovered""#) && text.contains(r#""count":"#), "{text}");
}

#[tokio::test]
async fn a_stuck_reader_delays_nobody() {
    /// Takes one write and never comes back until it is let go.
    struct Stuck(mpsc::Receiver<()>);
    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let (let_go, held) = mpsc::channel();
    let copy_to: Option<Box<dyn io::Write + Send>> = Some(Box::new(Stuck(held)));
    let audit = Audit::open(&state, Settings { copy_to, ..Settings::new(time) }).unwrap();
    for number in 0..1100 {
        audit.record(deny(number)).await.unwrap();
    }
    assert!((70..=76).contains(&audit.copies_dropped()), "{}", audit.copies_dropped());
    audit.close().await;
    drop(let_go);
    assert_eq!(verify(&state.root().join("audit")).unwrap().lines, 1100);
}

#[tokio::test]
async fn durable_lines_are_copied_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let copy_to: Option<Box<dyn io::Write + Send>> = Some(Box::new(writer));
    let audit = Audit::open(&state, Settings { copy_to, ..Settings::new(time) }).unwrap();
    let reading = thread::spawn(move || io::read_to_string(reader).unwrap());
    for number in 0..50 {
        audit.record(deny(number)).await.unwrap();
    }
    audit.close().await;
    let copied = reading.join().unwrap();
    assert_eq!(copied, fs::read_to_string(state.root().join("audit/audit.jsonl")).unwrap());
    assert_eq!(audit.copies_dropped(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_trail_can_be_verified() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let audit = Audit::open(&state, Settings { rotate_at: 20_000, ..Settings::new(time) }).unwrap();
    let path = state.root().join("audit");
    audit.record(deny(0)).await.unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let reading = thread::spawn(move || {
        let mut looks = 0;
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            verify(&path).unwrap();
            looks += 1;
        }
        looks
    });
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let audit = audit.clone();
            tokio::spawn(async move {
                for number in 0..200 {
                    audit.record(deny(number)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    drop(stop);
    assert!(reading.join().unwrap() > 0);
    audit.close().await;
    assert_eq!(verify(&state.root().join("audit")).unwrap().lines, 801);
}
