//! The main job: a `once` window, a shell through `ssh -J`, and its end at `closes`
//! (invariants 1 and 2).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_tests::clock::{monotonic, until};
use tidegate_tests::manifest::{in_seconds, shown};
use tidegate_tests::{Kiosk, Proc, SOON, SupportWindow, wait_for};

#[test]
fn invariant_1_and_2_a_window_opens_serves_a_shell_and_closes() {
    let window = |start, end| SupportWindow::once("berlin", "alice", "kiosk-17", start, end);
    let kiosk = Kiosk::open(&[]);
    let alice = kiosk.gate.staff("alice");
    // Only now: on a slow machine it takes long until the terminal is there.
    let opens = in_seconds(6);
    kiosk.gate.put(&window(opens, in_seconds(3600)));
    let opening = shown(opens);

    let before = wait_for("the window is known", SOON, || {
        let done = alice.run("kiosk-17", &["true"]);
        assert!(Timestamp::now() < opens, "the machine is too slow for this test");
        done.stderr.contains(&opening).then_some(done)
    });
    assert_eq!(before.code, Some(255), "{before:?}");
    for part in ["no open support window for alice on kiosk-17/ssh", &opening, "case 48213"] {
        assert!(before.stderr.contains(part), "'{part}' is not in: {}", before.stderr);
    }

    until(opens);
    let mut shell = Proc::start("shell", &mut alice.shell("kiosk-17", &["echo in; cat"]));
    shell.await_stdout("in\n", SOON);
    // An occurrence lasts a minute at the least, which nobody wants to wait for.
    let closes = in_seconds(6);
    kiosk.gate.put(&window(in_seconds(-600), closes));
    shell.write(b"still here\n").expect("an open session");
    shell.await_stdout("still here\n", SOON);
    assert!(Timestamp::now() < closes, "the machine is too slow for this test");

    let exit = shell.exit(SOON);
    let late = exit.at.checked_duration_since(monotonic(closes));
    let late = late.expect("a session that lives until the window closes");
    assert!(late <= Duration::from_secs(1), "cut {late:?} after the window closed");
    let told = shell.stderr();
    assert_eq!(exit.code, Some(255), "{told}");
    assert!(told.contains("support window default/berlin "), "{told}");

    let after = alice.run("kiosk-17", &["true"]);
    assert_eq!(after.code, Some(255));
    assert!(after.stderr.contains("for alice on kiosk-17/ssh"), "{}", after.stderr);

    let end = kiosk.gate.await_audit("the session's end", SOON, |line| {
        line["endedBy"].as_str() == Some("Deadline")
    });
    assert!(end["overrunMs"].as_u64().is_some_and(|ms| ms <= 1000), "{end}");
}

#[test]
fn invariant_1_every_channel_is_authorised_not_just_the_login() {
    // alice has a window on ssh alone; the other services of the same terminal stay shut to her.
    let kiosk = Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17")]);
    let alice = kiosk.gate.staff("alice");
    alice.run("kiosk-17", &["true"]).ok();
    let web = alice.refused("kiosk-17", 443);
    assert_eq!(web.code, Some(255), "{web:?}");
    let undeclared = alice.refused("kiosk-17", 8080);
    assert_eq!(undeclared.code, Some(255), "{undeclared:?}");
    assert_eq!(kiosk.echo.served().len(), 0, "a byte reached a service that no window names");

    // bob has a key and no window: every terminal reads the same to him.
    let bob = kiosk.gate.staff("bob");
    let there = bob.refused("kiosk-17", 22).stderr.replace("kiosk-17", "X");
    let absent = bob.refused("kiosk-99", 22).stderr.replace("kiosk-99", "X");
    assert_eq!(there, absent);
}

#[test]
fn invariant_1_an_unknown_key_gets_nothing_but_permission_denied() {
    let kiosk = Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17")]);
    let stranger = kiosk.gate.staff("alice").with_key(kiosk.gate.key("stranger"), "stranger");
    let told = stranger.view(&["whoami"]);
    assert_eq!(told.code, Some(255));
    assert!(told.stderr.contains("Permission denied"), "{}", told.stderr);
    assert_eq!(told.stdout, "");
}

#[test]
fn invariant_1_the_exit_status_and_both_streams_come_through() {
    let kiosk = Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17")]);
    let done = kiosk.gate.staff("alice").run("kiosk-17", &["echo out; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(7), "out\n"));
    assert!(done.stderr.contains("err\n"), "{}", done.stderr);
}

#[test]
fn invariant_1_names_ports_and_forms_that_staff_may_use() {
    let kiosk = Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17")
        .services(&["ssh", "web"])
        .closing_at(Timestamp::now() + SignedDuration::from_hours(2))]);
    let alice = kiosk.gate.staff("alice");
    // The name or the FQDN, in any case, with a trailing dot; or localhost and a listen port.
    for (host, port) in [
        ("kiosk-17", 443),
        ("KIOSK-17", 443),
        ("kiosk-17.support.example.com", 443),
        ("Kiosk-17.Support.Example.COM.", 443),
        ("localhost", 20_018),
        ("127.0.0.1", 20_018),
    ] {
        let mut channel = alice.w_to(host, port);
        channel.write(b"ping").expect("an open channel");
        channel.await_stdout("ping", SOON);
        let done = channel.finish(SOON);
        assert_eq!(done.code, Some(0), "{host}:{port}: {}", done.stderr);
    }
    for (host, port) in [
        ("kiosk-17", 20_018_u16),
        ("kiosk-17.example.com", 443),
        ("kiosk-17,kiosk-18", 443),
        ("kiosk-*", 443),
        ("127.0.0.1", 22),
        ("localhost", 443),
    ] {
        let done = alice.w_to(host, port).finish(SOON);
        assert_eq!(done.code, Some(255), "{host}:{port} was let in");
    }
}
