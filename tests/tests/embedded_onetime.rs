//! Invariant 6: once means once, across crashes at every step of the admission, deletions and
//! re-applies; and invariant 7 where the crash comes between the record and the first byte.

use std::time::Duration;

use jiff::SignedDuration;
use tidegate_relay::failpoint::Point;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{LoginUser, SupportWindow};
use tidegate_tests::programs::Build;
use tidegate_tests::{Gate, Kiosk, SOON, Schedule, eventually};

/// How often each point is tried.
const ROUNDS: u32 = 20;

fn one_time() -> SupportWindow {
    SupportWindow { one_time: true, ..alice_everywhere("berlin").user("bob") }
}

/// Whether a byte of `login`'s came through the service `web` and back.
fn gets_through(gate: &Gate, login: &str) -> (bool, String) {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    let _ = channel.write(b"ping");
    let done = channel.finish(SOON);
    (done.stdout == "ping", done.stderr)
}

#[test]
fn invariant_6_a_one_time_window_admits_one_session() {
    let kiosk = Kiosk::open(&[one_time()]);
    let gate = &kiosk.gate;
    let mut first = gate.staff("alice").w("kiosk-17", 443);
    first.write(b"ping").expect("an open channel");
    first.await_stdout("ping", SOON);
    for login in ["bob", "alice"] {
        let (through, told) = gets_through(gate, login);
        assert!(!through);
        assert!(told.contains("default/berlin"), "{told}");
    }
    assert_eq!(first.finish(SOON).code, Some(0));
    let (through, told) = gets_through(gate, "alice");
    assert!(!through && told.contains("admits one session and was used"), "{told}");
}

#[test]
fn invariant_6_two_users_at_once_make_one_session() {
    for _ in 0..5 {
        let kiosk = Kiosk::open(&[one_time()]);
        let gate = &kiosk.gate;
        let through: Vec<bool> = std::thread::scope(|scope| {
            let tries: Vec<_> = ["alice", "bob", "alice", "bob"]
                .map(|login| scope.spawn(move || gets_through(gate, login).0))
                .into_iter()
                .collect();
            tries.into_iter().map(|one| one.join().expect("a try")).collect()
        });
        assert_eq!(through.iter().filter(|through| **through).count(), 1, "{through:?}");
    }
}

#[test]
fn invariant_6_nothing_that_is_done_to_its_files_arms_it_again() {
    let kiosk = Kiosk::open(&[one_time()]);
    let gate = &kiosk.gate;
    assert!(gets_through(gate, "alice").0);
    let refused = |what: &str| {
        for login in ["alice", "bob"] {
            let (through, told) = gets_through(gate, login);
            assert!(!through, "armed again: {what}");
            println!("{what}: {}", told.lines().next().unwrap_or_default());
        }
    };
    let gone = || {
        gate.remove(&one_time());
        eventually("the window is gone", SOON, || {
            !gate.staff("alice").view(&["windows"]).stdout.contains("berlin")
        });
    };
    let there = || {
        eventually("the window is there", SOON, || {
            gate.staff("alice").view(&["windows"]).stdout.contains("berlin")
        });
    };
    refused("after its session");

    gone();
    gate.put(&one_time());
    there();
    refused("deleted and applied again");

    let Schedule::Once { start, end } = one_time().schedule else { unreachable!("a once window") };
    let moved = SupportWindow {
        schedule: Schedule::Once { start: start + SignedDuration::from_secs(1), end },
        ..one_time()
    };
    gate.put(&moved);
    refused("its start moved by a second");

    gone();
    gate.put(&moved);
    there();
    refused("deleted and applied again with its start moved");

    let plain = SupportWindow { one_time: false, ..one_time() };
    gate.put(&plain);
    eventually("the refusal of the changed window is in force", SOON, || {
        gate.control(&["status"]).stdout.contains("oneTime")
    });
    refused("oneTime taken away");
}

#[test]
fn invariant_6_a_restart_remembers() {
    let mut kiosk = Kiosk::open(&[one_time()]);
    assert!(gets_through(&kiosk.gate, "alice").0);
    kiosk.gate.crash();
    kiosk.gate.start();
    kiosk.attach();
    assert!(!gets_through(&kiosk.gate, "bob").0);
    kiosk.gate.stop();
    // Also when the files went and came back while the relay was down.
    kiosk.gate.remove(&one_time());
    kiosk.gate.start();
    kiosk.gate.stop();
    kiosk.gate.put(&one_time());
    kiosk.gate.start();
    kiosk.attach();
    assert!(!gets_through(&kiosk.gate, "bob").0);
}

/// What a retry may get after a crash at `point`: the claim is made once its file has its name.
fn may_retry(point: Point) -> bool {
    match point {
        Point::Authorised | Point::Located | Point::ClaimBegun => true,
        Point::ClaimWritten
        | Point::Claimed
        | Point::RecordBegun
        | Point::RecordWritten
        | Point::Recorded
        | Point::Accepted => false,
    }
}

/// One relay that crashes at `point`, is started again, and is tried by two users at once.
fn crash_at(point: Point) {
    let mut kiosk = Kiosk::detached(|setup| {
        setup
            .build(Build::FailPoints)
            .window(one_time())
            .env("TIDEGATE_FAILPOINT", &format!("{point:?}"))
    });
    kiosk.attach();
    let (through, _) = gets_through(&kiosk.gate, "alice");
    assert!(!through, "{point:?}: a byte came through a relay that should have crashed before");
    kiosk.gate.relay().exit(SOON);
    let recorded = kiosk.gate.audit().iter().filter(|line| line["event"] == "Allow").count();

    kiosk.gate.env.clear();
    kiosk.gate.start();
    kiosk.attach();
    let gate = &kiosk.gate;
    let through: Vec<_> = std::thread::scope(|scope| {
        let tries = ["alice", "bob"].map(|login| scope.spawn(move || gets_through(gate, login)));
        tries.into_iter().map(|one| one.join().expect("a try")).collect()
    });
    let sessions = through.iter().filter(|(through, _)| *through).count();
    assert_eq!(sessions, usize::from(may_retry(point)), "{point:?}: {through:?}");
    // Whatever the trail says was allowed, before and after the crash, is one session at the most.
    let allowed = gate.audit().iter().filter(|line| line["event"] == "Allow").count();
    assert!(allowed <= 1, "{point:?}: {allowed} sessions were allowed");
    match point {
        Point::Recorded | Point::Accepted => {
            assert_eq!(recorded, 1, "{point:?}: the line was lost in the crash");
            gate.await_audit("the crashed session's end", SOON, |line| line["endedBy"] == "Fault");
        }
        Point::RecordWritten => {}
        _ => assert_eq!(recorded, 0, "{point:?}: a line was written before its time"),
    }
    gate.control(&["status"]).ok();
    let state = gate.state.to_string_lossy().into_owned();
    gate.command(&["audit", "verify", &state]).ok();
}

#[test]
fn invariant_6_and_7_a_crash_at_each_step_never_makes_a_second_session() {
    // The steps of the admission, before and after what each of them makes durable.
    assert_eq!(Point::ALL.len(), 9, "a new point needs a place in may_retry");
    let work: Vec<_> = (0..ROUNDS).flat_map(|_| Point::ALL).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    // A relay waits for disks and for processes to start more than it computes.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(point) = work.get(at) else { return };
                    crash_at(*point);
                }
            });
        }
    });
    println!("{} crashes, {} points, never a second session", work.len(), Point::ALL.len());
}

#[test]
fn invariant_6_a_dead_terminal_burns_no_claim() {
    let mut kiosk = Kiosk::detached(|setup| setup.window(one_time()));
    let (through, told) = gets_through(&kiosk.gate, "alice");
    assert!(!through && told.contains("kiosk-17 is not connected"), "{told}");
    kiosk.attach();
    // Its port is refused: nothing listens behind the forward.
    let echo = std::mem::replace(&mut kiosk.echo, tidegate_tests::Sink::start());
    drop(echo);
    let (through, told) = gets_through(&kiosk.gate, "alice");
    assert!(!through && told.contains("refused to open its service web"), "{told}");
    kiosk.echo = tidegate_tests::Echo::start();
    kiosk.attach();
    assert!(gets_through(&kiosk.gate, "bob").0);
}

#[test]
fn a_window_without_one_time_is_preferred() {
    let kiosk = Kiosk::with(|setup| {
        setup
            .window(one_time())
            .window(SupportWindow { case: None, ..alice_everywhere("plain") })
            .user(LoginUser::new("carol"))
    });
    let gate = &kiosk.gate;
    assert!(gets_through(gate, "alice").0);
    let allowed =
        gate.await_audit("the admission", Duration::from_secs(5), |line| line["event"] == "Allow");
    assert_eq!(allowed["window"]["name"], "plain", "{allowed}");
    assert!(gets_through(gate, "bob").0, "bob is in the one-time window alone");
}
