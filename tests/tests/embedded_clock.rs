//! Invariant 2 on clocks that step and on a process that was stopped: the release binary under
//! libfaketime, with real ssh. The wall clock is stepped, the boot clock is not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use tidegate_tests::clock::{after, monotonic, until};
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::in_seconds;
use tidegate_tests::programs::Build;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, Setup, SupportWindow, eventually, in_ci, wait_for};

const ON_TIME: Duration = Duration::from_secs(1);
const HOUR: i64 = 3600;

fn libfaketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path().join("faketime/libfaketimeMT.so.1");
        path.is_file().then_some(path)
    });
    assert!(
        found.is_some() || !in_ci(),
        "libfaketime is missing; scripts/install-test-packages.sh"
    );
    if found.is_none() {
        eprintln!("LEFT OUT: libfaketime is missing; scripts/install-test-packages.sh installs it");
    }
    found
}

/// A kiosk whose relay's wall clock the test steps.
struct Stepped {
    kiosk: Kiosk,
    offset: PathBuf,
}

impl Stepped {
    fn open(window: Option<SupportWindow>) -> Option<Self> {
        let library = libfaketime()?;
        let mut offset = PathBuf::new();
        let kiosk = Kiosk::with(|setup| {
            offset = setup.dir().join("faketime");
            std::fs::write(&offset, "+0").expect("an offset");
            let setup = window.into_iter().fold(setup, Setup::window);
            setup
                .build(Build::Release)
                .env("LD_PRELOAD", &library.to_string_lossy())
                .env("FAKETIME_TIMESTAMP_FILE", &offset.to_string_lossy())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1")
                .env("FAKETIME_DONT_RESET", "1")
        });
        Some(Self { kiosk, offset })
    }

    /// Steps the relay's wall clock to `seconds` off ours.
    fn step(&self, seconds: i64) {
        let temporary = self.offset.with_extension("new");
        std::fs::write(&temporary, format!("{seconds:+}")).expect("an offset");
        std::fs::rename(&temporary, &self.offset).expect("an offset");
    }

    /// The step is really seen: the trail's next line bears the stepped time.
    fn assert_seen(&self, seconds: i64) {
        let gate = &self.kiosk.gate;
        let already = gate.audit().len();
        gate.staff("bob").refused("kiosk-17", 443);
        let line = wait_for("a line with the stepped time", SOON, || {
            gate.audit().into_iter().skip(already).find(|line| line["event"] == "Deny")
        });
        let time: Timestamp = line["time"].as_str().expect("a time").parse().expect("a time");
        let off = time.duration_since(Timestamp::now()).as_secs();
        assert!((off - seconds).abs() < 60, "the relay is {off} s off, not {seconds}: {line}");
    }
}

fn open(gate: &Gate) -> Proc {
    let mut channel = gate.staff("alice").w("kiosk-17", 443);
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    channel
}

fn refused(gate: &Gate) -> String {
    let mut channel = gate.staff("alice").w("kiosk-17", 443);
    let _ = channel.write(b"ping");
    let done = channel.finish(SOON);
    assert_ne!(done.stdout, "ping", "alice was let in");
    done.stderr
}

/// A window of alice's that closes in so many minutes.
fn closing_in(minutes: i64) -> SupportWindow {
    alice_everywhere("berlin").closing_at(in_seconds(minutes * 60))
}

#[test]
fn invariant_2_a_step_forward_past_closes_cuts_at_once() {
    let Some(stepped) = Stepped::open(Some(closing_in(30))) else { return };
    let session = open(&stepped.kiosk.gate);
    let begun = Instant::now();
    stepped.step(HOUR);
    let exit = session.exit(SOON);
    assert!(after(begun, exit.at) <= ON_TIME, "cut {:?} after the step", after(begun, exit.at));
    stepped.assert_seen(HOUR);
    // A step is no overrun: the session was not served past its deadline.
    let end = stepped.kiosk.gate.await_audit("the end", SOON, |line| line["endedBy"].is_string());
    assert_eq!(end["endedBy"], "Deadline");
    assert!(end["overrunMs"].as_u64().is_some_and(|ms| ms <= 1000), "{end}");
}

#[test]
fn invariant_2_a_step_back_does_not_prolong_a_session() {
    let Some(stepped) = Stepped::open(None) else { return };
    let closes = monotonic(stepped.kiosk.open_for(12));
    let session = open(&stepped.kiosk.gate);
    stepped.step(-HOUR);
    stepped.assert_seen(-HOUR);
    assert!(session.is_running(), "cut by the step itself: {}", session.stderr());
    let exit = session.exit(SOON);
    assert!(exit.at >= closes && after(closes, exit.at) <= ON_TIME, "{:?}", after(closes, exit.at));
}

#[test]
fn invariant_2_steps_two_seconds_before_closes() {
    for seconds in [HOUR, -HOUR] {
        let Some(stepped) = Stepped::open(None) else { return };
        let closes = stepped.kiosk.open_for(10);
        let session = open(&stepped.kiosk.gate);
        let at = monotonic(closes);
        until(closes - SignedDuration::from_secs(2));
        assert!(session.is_running(), "{}", session.stderr());
        let begun = Instant::now();
        stepped.step(seconds);
        let exit = session.exit(SOON);
        if seconds > 0 {
            assert!(after(begun, exit.at) <= ON_TIME, "cut {:?} late", after(begun, exit.at));
        } else {
            assert!(exit.at >= at, "cut before its deadline");
            assert!(after(at, exit.at) <= ON_TIME, "cut {:?} late", after(at, exit.at));
        }
        stepped.assert_seen(seconds);
    }
}

#[test]
fn invariant_1_a_stepped_clock_decides_who_is_admitted() {
    // Open from ten minutes ago for half an hour: an hour either way is outside.
    let Some(stepped) = Stepped::open(Some(closing_in(20))) else { return };
    for seconds in [HOUR, -HOUR] {
        stepped.step(seconds);
        stepped.assert_seen(seconds);
        let told = refused(&stepped.kiosk.gate);
        assert!(told.contains("alice"), "{told}");
    }
    stepped.step(0);
    stepped.assert_seen(0);
    eventually("alice is let in again", SOON, || {
        let mut channel = stepped.kiosk.gate.staff("alice").w("kiosk-17", 443);
        let _ = channel.write(b"ping");
        channel.finish(SOON).stdout == "ping"
    });
}

#[test]
fn invariant_2_a_session_admitted_on_a_stepped_clock_ends_by_it() {
    let Some(stepped) = Stepped::open(None) else { return };
    stepped.step(HOUR);
    stepped.assert_seen(HOUR);
    // The step makes the policy an hour old until the directory is looked at again, which is soon.
    eventually("the policy is fresh again", SOON, || {
        stepped.kiosk.gate.readiness().is_some_and(|(status, _)| status == 200)
    });
    // The relay's clock is an hour ahead, and the window is an hour from now: by the replica's
    // clock it is open and closes in ten seconds.
    let closes = in_seconds(10);
    let hour = SignedDuration::from_secs(HOUR);
    let window = SupportWindow::once(
        "berlin",
        "alice",
        "kiosk-17",
        Timestamp::now() + SignedDuration::from_mins(50),
        closes + hour,
    )
    .services(&["web"]);
    stepped.kiosk.gate.put(&window);
    stepped.kiosk.gate.await_why("alice", "kiosk-17", true);
    let session = open(&stepped.kiosk.gate);
    let at = monotonic(closes);
    let exit = session.exit(SOON);
    assert!(exit.at >= at && after(at, exit.at) <= ON_TIME, "{:?}", after(at, exit.at));
}

#[test]
fn invariant_2_nothing_passes_after_a_relay_that_slept_over_closes_wakes_up() {
    let kiosk = Kiosk::open(&[]);
    let closes = kiosk.open_for(8);
    let gate = &kiosk.gate;
    let mut session = gate.staff("alice").w("kiosk-17", 514);
    session.write(b"before").expect("an open channel");
    eventually("the terminal has it", SOON, || kiosk.sink.bytes() == 6);
    let mut feed = gate.staff("alice").w("kiosk-17", 443);
    feed.write(b"ping").expect("an open channel");
    feed.await_stdout("ping", SOON);
    gate.relay().stop();
    // Waits in the kernel's buffers for a relay that wakes up too late.
    session.write(b"after").expect("a write into the pipe");
    feed.write(b"pong").expect("a write into the pipe");
    until(closes + SignedDuration::from_secs(1));
    let woken = Instant::now();
    gate.relay().signal(Signal::CONT);
    let exit = session.exit(SOON);
    assert!(after(woken, exit.at) <= ON_TIME, "cut {:?} after waking", after(woken, exit.at));
    feed.exit(SOON);
    eventually("the terminal's side ends", SOON, || {
        kiosk.sink.all_ended() && kiosk.echo.all_ended()
    });
    assert_eq!(kiosk.sink.bytes(), 6, "bytes passed after SIGCONT");
    assert_eq!(kiosk.echo.bytes(), 4, "bytes passed after SIGCONT");
}
