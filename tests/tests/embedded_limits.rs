//! Limits of windows and users, and what becomes of terminals that come, go and fight
//! (invariants 1, 2 and 5).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tidegate_tests::clients::{Forward, Program};
use tidegate_tests::clock::{after, monotonic, until};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::{SERVICES, alice_everywhere};
use tidegate_tests::manifest::{LoginUser, SupportWindow, in_seconds};
use tidegate_tests::{Gate, Kiosk, Proc, SOON, Tap, eventually, ports, wait_for};

const ON_TIME: Duration = Duration::from_secs(1);

/// A channel of alice's to `web` that has echoed once, and when the echo came.
fn channel(gate: &Gate, login: &str) -> (Proc, Instant) {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    (channel, Instant::now())
}

fn end_of_session(gate: &Gate) -> serde_json::Value {
    gate.await_audit("the session's end", SOON, |line| line["endedBy"].is_string())
}

#[test]
fn idle_timeout_ends_a_silent_session_and_spares_a_busy_one() {
    let window = SupportWindow {
        idle_timeout: Some("3s".to_owned()),
        ..alice_everywhere("berlin").user("bob")
    };
    let kiosk = Kiosk::open(&[window]);
    let (mut busy, _) = channel(&kiosk.gate, "bob");
    let (mut idle, _) = channel(&kiosk.gate, "alice");
    // Its last byte comes between these two instants.
    let wrote = Instant::now();
    idle.write(b".").expect("the idle session");
    idle.await_stdout("ping.", SOON);
    let begun = Instant::now();
    let mut beats = 0_usize;
    let exit = wait_for("the idle session's end", SOON, || {
        busy.write(b".").expect("the busy session");
        beats += 1;
        std::thread::sleep(Duration::from_millis(100));
        idle.exited()
    });
    let lasted = after(wrote, exit.at);
    assert!(lasted >= Duration::from_secs(3), "cut after {lasted:?}");
    let lasted = after(begun, exit.at);
    assert!(lasted <= Duration::from_secs(3) + ON_TIME, "cut after {lasted:?}");
    assert_eq!(exit.code, Some(255));
    assert!(idle.stderr().contains("no byte passed for 3s"), "{}", idle.stderr());
    assert_eq!(end_of_session(&kiosk.gate)["endedBy"], "Idle");
    assert!(busy.is_running());
    busy.await_bytes(4 + beats as u64, SOON);
}

#[test]
fn max_session_duration_ends_a_session() {
    let window =
        SupportWindow { max_session_duration: Some("4s".to_owned()), ..alice_everywhere("berlin") };
    let kiosk = Kiosk::open(&[window]);
    let (session, begun) = channel(&kiosk.gate, "alice");
    let exit = session.exit(SOON);
    let lasted = after(begun, exit.at);
    assert!(lasted <= Duration::from_secs(4) + ON_TIME, "cut after {lasted:?}");
    assert!(session.stderr().contains("the session reached 4s"), "{}", session.stderr());
    assert_eq!(end_of_session(&kiosk.gate)["endedBy"], "Deadline");
    // It limits the session, not the user: the next one starts anew.
    channel(&kiosk.gate, "alice");
}

#[test]
fn valid_until_ends_a_session_and_admits_none_after() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let until = in_seconds(7);
    let alice = kiosk.gate.user("alice").valid_until(until);
    kiosk.gate.put_user(alice);
    eventually("alice's validUntil is in force", SOON, || {
        kiosk.gate.staff("alice").view(&["whoami"]).stdout.contains(&shown(until))
    });
    let (session, _) = channel(&kiosk.gate, "alice");
    let exit = session.exit(SOON);
    let late = after(monotonic(until), exit.at);
    assert!(late <= ON_TIME, "cut {late:?} after validUntil");
    assert!(session.stderr().contains("alice"), "{}", session.stderr());
    let refused = kiosk.gate.staff("alice").refused("kiosk-17", 443);
    assert_eq!(refused.code, Some(255));
    assert!(refused.stderr.contains("alice"), "{}", refused.stderr);
}

fn shown(at: Timestamp) -> String {
    tidegate_tests::manifest::shown(at)
}

#[test]
fn max_sessions_frees_a_slot_when_a_session_ends() {
    let window = SupportWindow { max_sessions: Some(1), ..alice_everywhere("berlin").user("bob") };
    let kiosk = Kiosk::open(&[window]);
    let (first, _) = channel(&kiosk.gate, "alice");
    let full = kiosk.gate.staff("bob").refused("kiosk-17", 443);
    assert_eq!(full.code, Some(255));
    assert!(
        full.stderr.contains("support window default/berlin is full")
            && full.stderr.contains("alice"),
        "{}",
        full.stderr
    );
    first.finish(SOON);
    eventually("the slot is free again", SOON, || {
        let mut channel = kiosk.gate.staff("bob").w("kiosk-17", 443);
        let _ = channel.write(b"mine");
        channel.finish(SOON).stdout == "mine"
    });
}

#[test]
fn max_sessions_frees_the_slots_of_a_relay_that_crashed() {
    let window = SupportWindow { max_sessions: Some(1), ..alice_everywhere("berlin").user("bob") };
    let mut kiosk = Kiosk::open(&[window]);
    let (_first, _) = channel(&kiosk.gate, "alice");
    let record = kiosk.gate.sessions()[0]["name"].as_str().expect("a name").to_owned();
    let record = kiosk.gate.state.join(format!("sessions/{record}.json"));
    eventually("the session's record is written", SOON, || record.exists());
    kiosk.gate.crash();
    kiosk.gate.start();
    kiosk.attach();
    channel(&kiosk.gate, "bob");
    let left = kiosk
        .gate
        .await_audit("the crashed session's end", SOON, |line| line["endedBy"] == "Fault");
    assert_eq!(left["user"], "alice", "{left}");
}

#[test]
fn invariant_1_a_further_channel_after_narrowing_is_refused() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let (web, log) = (tidegate_tests::ports::free(), tidegate_tests::ports::free());
    let forwards = [format!("{web}:kiosk-17:443"), format!("{log}:kiosk-17:514")];
    let alice = kiosk.gate.staff("alice");
    let options = ["-N", "-v", "-L", &forwards[0], "-L", &forwards[1]];
    let client = Proc::start("ssh -L", &mut alice.relay(&options));
    client.await_stderr("Entering interactive session", SOON);
    let mut held = std::net::TcpStream::connect(("127.0.0.1", web)).expect("the forward");
    std::io::Write::write_all(&mut held, b"hey").expect("a write");
    std::io::Read::read_exact(&mut held, &mut [0; 3]).expect("an answer");

    kiosk.gate.put(&alice_everywhere("berlin").services(&["web"]));
    eventually("the window's other service is refused", SOON, || {
        let mut other = std::net::TcpStream::connect(("127.0.0.1", log)).expect("the forward");
        let mut got = Vec::new();
        let _ = std::io::Read::read_to_end(&mut other, &mut got);
        client.stderr().contains("administratively prohibited")
    });
    assert_eq!(kiosk.sink.bytes(), 0);
    assert!(client.is_running(), "the live session went with it: {}", client.stderr());
}

#[test]
fn attach_during_window_lets_a_terminal_in_only_around_its_windows() {
    let window = alice_everywhere("berlin");
    let kiosk = Kiosk::detached(|setup| setup);
    let mut gate = kiosk.gate;
    let terminal = gate.terminal("kiosk-17").during_window();
    gate.put_terminal(terminal);
    let far = SupportWindow::once(
        "berlin",
        "alice",
        "kiosk-17",
        Timestamp::now() + SignedDuration::from_hours(3),
        Timestamp::now() + SignedDuration::from_hours(4),
    )
    .services(&["web"]);
    gate.put(&far);
    let clients = gate.clients_of("kiosk-17");
    let forward = [Forward::port(20_018, kiosk.echo.port())];
    let told = wait_for("the terminal is refused before its window", SOON, || {
        let client = clients.start(Program::OpenSsh, &forward);
        let ended = tidegate_tests::wait::poll(Duration::from_secs(4), || client.exited())?;
        Some((ended.code, client.stderr()))
    });
    assert_eq!(told.0, Some(255), "{}", told.1);
    assert!(told.1.contains("kiosk-17"), "{}", told.1);

    // From two minutes before the opening.
    gate.put(&SupportWindow {
        schedule: tidegate_tests::Schedule::Once {
            start: Timestamp::now() + SignedDuration::from_secs(100),
            end: Timestamp::now() + SignedDuration::from_hours(4),
        },
        ..far
    });
    let client = wait_for("the terminal is let in", SOON, || {
        let client = clients.start(Program::OpenSsh, &forward);
        let log = gate.relay().stderr().len();
        let offered = tidegate_tests::wait::poll(Duration::from_secs(3), || {
            (metric(gate.admin, "tidegate_terminals_connected") == Some(1.0))
                .then_some(())
                .or_else(|| client.exited().map(|_| ()))
        });
        let _ = log;
        offered.and_then(|()| client.is_running().then_some(client))
    });
    assert!(client.is_running());
    // It goes when the last open window has closed.
    let closes = in_seconds(6);
    gate.put(&window.closing_at(closes));
    let (session, _) = {
        gate.await_why("alice", "kiosk-17", true);
        channel(&gate, "alice")
    };
    let cut = session.exit(SOON);
    assert!(after(monotonic(closes), cut.at) <= ON_TIME);
    let left = client.exit(SOON);
    assert_eq!(left.code, Some(255), "{}", client.stderr());
    assert!(Timestamp::now() >= closes);
}

#[test]
fn an_idle_terminal_of_attach_during_window_leaves_with_the_last_of_its_windows() {
    let mut kiosk = Kiosk::detached(|setup| setup);
    let terminal = kiosk.gate.terminal("kiosk-17").during_window();
    kiosk.gate.put_terminal(terminal);
    let (first, last) = (in_seconds(8), in_seconds(11));
    kiosk.gate.put(&alice_everywhere("one").closing_at(first));
    kiosk.gate.put(&alice_everywhere("other").closing_at(last));
    kiosk.gate.await_why("alice", "kiosk-17", true);
    kiosk.attach();
    let client = kiosk.client.take().expect("the terminal's client");
    // Nothing is edited and nobody calls: time alone goes by.
    let left = client.exit(SOON);
    assert_eq!(left.code, Some(255), "{}", client.stderr());
    assert!(
        client.stderr().contains("attaches only during support windows"),
        "{}",
        client.stderr()
    );
    assert!(left.at >= monotonic(last), "gone with the first of them");
    let late = after(monotonic(last), left.at);
    assert!(late <= 2 * ON_TIME, "{late:?} after the last had closed");

    // What is taken away is seen at once, whatever was found before.
    let applied = || metric(kiosk.gate.admin, "tidegate_policy_snapshots_applied_total");
    let before = applied();
    kiosk.gate.put(&alice_everywhere("one"));
    eventually("the policy is in force", SOON, || applied() > before);
    kiosk.attach();
    let client = kiosk.client.take().expect("the terminal's client");
    kiosk.gate.remove(&alice_everywhere("one"));
    let edited = Instant::now();
    let late = after(edited, client.exit(SOON).at);
    assert!(late <= ON_TIME, "{late:?} after its window was deleted");
}

#[test]
fn a_black_holed_terminal_that_reconnects_serves_within_a_second() {
    let mut kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let tap = Tap::start(kiosk.gate.addr());
    let clients = kiosk.gate.clients_of("kiosk-17");
    let dark = clients.via(tap.port()).start(Program::OpenSsh, &kiosk.forwards());
    for (service, _, _) in SERVICES {
        kiosk.gate.await_offer("kiosk-17", service);
    }
    channel(&kiosk.gate, "alice");
    // She has logged in beforehand: how fast a client starts is the machine's affair.
    let port = ports::free();
    let forward = format!("{port}:kiosk-17:443");
    let alice = kiosk.gate.staff("alice");
    let staff = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    staff.await_stderr("Entering interactive session", SOON);
    tap.black_hole();
    // The same machine dials again over another path, while the relay believes in the first.
    kiosk.client = Some(clients.start(Program::OpenSsh, &kiosk.forwards()));
    kiosk.gate.await_offer("kiosk-17", "web");
    let granted = Instant::now();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the forward");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket.write_all(b"ping").expect("a write");
    socket.read_exact(&mut [0; 4]).expect("an echo");
    let took = granted.elapsed();
    assert!(took <= ON_TIME, "served {took:?} after the new connection's forward was granted");
    drop(dark);
}

#[test]
fn a_silent_terminal_burns_no_claim_and_gives_a_sentence() {
    // It is connected and answers nothing: the dial gives up by itself.
    let window = SupportWindow { one_time: true, ..alice_everywhere("berlin") };
    let mut kiosk = Kiosk::detached(|setup| setup.window(window));
    let tap = Tap::start(kiosk.gate.addr());
    let clients = kiosk.gate.clients_of("kiosk-17").via(tap.port());
    let _dark = clients.start(Program::OpenSsh, &kiosk.forwards());
    kiosk.gate.await_offer("kiosk-17", "feed");
    tap.black_hole();
    let refused = kiosk.gate.staff("alice").refused("kiosk-17", 443);
    assert_eq!(refused.code, Some(255));
    assert!(
        refused.stderr.contains("is connected but did not answer within 10s"),
        "{}",
        refused.stderr
    );
    tap.release();
    kiosk.attach();
    channel(&kiosk.gate, "alice");
}

#[test]
fn invariant_5_two_terminals_that_fight_are_contended_and_the_old_one_stays() {
    let kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let clients = kiosk.gate.clients_of("kiosk-17");
    let forward = [Forward::port(20_018, kiosk.echo.port())];
    // Each newcomer takes over from one that is alive.
    let mut fighters = Vec::new();
    let refused = wait_for("a newcomer is refused", Duration::from_mins(1), || {
        let client = clients.start(Program::OpenSsh, &forward);
        let told = tidegate_tests::wait::poll(Duration::from_secs(5), || {
            client.exited().map(|_| client.stderr())
        });
        fighters.push(client);
        told
    });
    assert!(fighters.len() >= 4, "only {} connections were needed", fighters.len());
    assert!(refused.contains("two connections fight for kiosk-17"), "{refused}");
    assert_eq!(metric(kiosk.gate.admin, "tidegate_terminals_contended"), Some(1.0));
    // The one in place serves.
    channel(&kiosk.gate, "alice");
    let in_place = &fighters[fighters.len() - 2];
    assert!(in_place.is_running(), "{}", in_place.stderr());
}

#[test]
fn a_terminal_that_is_deleted_is_disconnected() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let terminal = kiosk.gate.terminal("kiosk-17");
    let begun = Instant::now();
    kiosk.gate.remove(&terminal);
    let client = kiosk.client.as_ref().expect("the terminal's client");
    let exit = client.exit(SOON);
    assert!(after(begun, exit.at) <= ON_TIME, "after {:?}", after(begun, exit.at));
    assert!(client.stderr().contains("kiosk-17"), "{}", client.stderr());
}

#[test]
fn a_user_who_may_not_enter_is_told_and_closed() {
    let kiosk = Kiosk::with(|setup| {
        setup
            .window(alice_everywhere("berlin"))
            .user(LoginUser::new("carol").suspended())
            .user(LoginUser::new("dave").from(&["203.0.113.0/24"]))
            .user(LoginUser::new("erin").valid_until(in_seconds(-3600)))
    });
    for (login, part) in
        [("carol", "suspended"), ("dave", "127.0.0.1"), ("erin", "the access of erin ended")]
    {
        let told = kiosk.gate.staff(login).view(&[]);
        let said = format!("{}{}", told.stdout, told.stderr);
        assert!(said.contains(login) && said.contains(part), "{login}: {said}");
        let channel = kiosk.gate.staff(login).refused("kiosk-17", 443);
        assert!(channel.stderr.contains(part), "{login}: {}", channel.stderr);
    }
    let wrong = kiosk.gate.staff("alice").as_login("bob").view(&[]);
    let said = format!("{}{}", wrong.stdout, wrong.stderr);
    assert!(said.contains("alice"), "{said}");
}

#[test]
fn a_window_that_was_extended_serves_new_sessions_only() {
    let kiosk = Kiosk::open(&[]);
    let closes = kiosk.open_for(7);
    let (session, _) = channel(&kiosk.gate, "alice");
    kiosk.gate.put(&alice_everywhere("berlin"));
    let exit = session.exit(SOON);
    assert!(after(monotonic(closes), exit.at) <= ON_TIME);
    assert!(exit.at >= monotonic(closes), "cut before its deadline");
    until(closes);
    channel(&kiosk.gate, "alice");
}
