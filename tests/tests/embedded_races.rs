//! What happens at the same time: someone leaves while a terminal is dialled, policy changes under
//! a session, many channels open at once, the disk fills up in the middle of an admission.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate_tests::clients::{Forward, Program};
use tidegate_tests::clock::{after, monotonic};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{DOMAIN, LoginUser, SupportWindow, Terminal, in_seconds};
use tidegate_tests::process::Stream;
use tidegate_tests::{
    Gate, Kiosk, Proc, SOON, SmallDisk, Staff, Tap, eventually, have, ports, wait_for,
};

/// The most that a revocation or a deadline may take (invariants 2 and 3).
const ON_TIME: Duration = Duration::from_secs(1);

/// A channel of `login`'s to `web` that has echoed once.
fn channel(gate: &Gate, login: &str) -> Proc {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    channel
}

/// Whether a byte of `login`'s came through the service `web` and back, and what was said.
fn gets_through(gate: &Gate, login: &str) -> (bool, String) {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    let _ = channel.write(b"ping");
    let done = channel.finish(SOON);
    (done.stdout == "ping", done.stderr)
}

fn lines(gate: &Gate, event: &str) -> Vec<Value> {
    gate.audit().into_iter().filter(|line| line["event"] == event).collect()
}

/// The line of the end of the only session that has ended.
#[track_caller]
fn the_end(gate: &Gate) -> Value {
    gate.await_audit("the session's end", SOON, |line| line["event"] == "End")
}

fn live(gate: &Gate) -> Option<f64> {
    metric(gate.admin, "tidegate_sessions_current")
}

/// The whole trail is one chain.
#[track_caller]
fn verify(gate: &Gate) {
    gate.command(&["audit", "verify", &gate.state.to_string_lossy()]).ok();
}

/// A forward of a running `ssh -L`, with a read that gives up.
fn dial(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the forward");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket
}

/// `ssh -N -L …` with each of `forwards`, once it stands.
fn forwarding(staff: &Staff, forwards: &[String]) -> Proc {
    let mut options = vec!["-N", "-v"];
    options.extend(forwards.iter().flat_map(|forward| ["-L", forward]));
    let client = Proc::start("ssh -L", &mut staff.relay(&options));
    client.await_stderr("Entering interactive session", SOON);
    client
}

/// kiosk-17, reached through a tap, with a window of one place for alice and bob.
struct Dialled {
    tap: Tap,
    kiosk: Kiosk,
}

impl Dialled {
    fn new() -> Self {
        let window =
            SupportWindow { max_sessions: Some(1), ..alice_everywhere("berlin").user("bob") };
        let mut kiosk = Kiosk::detached(|setup| setup.window(window));
        let tap = Tap::start(kiosk.gate.addr());
        let clients = kiosk.gate.clients_of("kiosk-17").via(tap.port());
        let mut command = clients.command_with(Program::OpenSsh, &["-N", "-v"], &kiosk.forwards());
        let client = Proc::start("ssh -v -R", &mut command);
        // The relay has nothing more to say to it until it is dialled.
        client.await_stderr("remote forward success for: listen 20020", SOON);
        kiosk.client = Some(client);
        Self { tap, kiosk }
    }

    fn terminal(&self, signal: Signal) {
        self.kiosk.client.as_ref().expect("the terminal's client").signal(signal);
    }

    /// A channel of alice's that the terminal, which is stopped, has been asked to open.
    fn begin(&self) -> Proc {
        self.kiosk.client.as_ref().expect("the terminal's client").stop();
        let asked = self.tap.last().down;
        let staff = self.kiosk.gate.staff("alice").w("kiosk-17", 443);
        eventually("the terminal is dialled", SOON, || self.tap.last().down > asked);
        staff
    }

    /// Nothing of alice's attempt lives or is held, and every session that began has ended.
    fn assert_nothing_left(&self) {
        let gate = &self.kiosk.gate;
        eventually("no session lives", SOON, || live(gate) == Some(0.0));
        eventually("the window's only place is free", SOON, || gets_through(gate, "bob").0);
        eventually("the terminal's channels are closed", SOON, || self.kiosk.echo.all_ended());
        eventually("every session has its end", SOON, || {
            let ended = lines(gate, "End");
            lines(gate, "Allow")
                .iter()
                .all(|allow| ended.iter().any(|end| end["session"] == allow["session"]))
        });
        assert!(gate.sessions().is_empty());
        eventually("no claim is held", SOON, || {
            std::fs::read_dir(gate.state.join("claims")).expect("the claims").count() == 0
        });
        assert_eq!(metric(gate.admin, "tidegate_supervisor_panics_total"), Some(0.0));
    }
}

#[test]
fn invariant_1_staff_who_leave_during_the_dial_leave_nothing() {
    let dialled = Dialled::new();
    let gate = &dialled.kiosk.gate;
    let mut staff = dialled.begin();
    staff.kill();
    let left =
        gate.await_audit("the refusal of who has left", SOON, |line| line["event"] == "Deny");
    assert_eq!(left["reason"]["code"], "StaffLeft", "{left}");
    assert_eq!(left["user"], "alice", "{left}");
    assert_eq!(left["terminal"], format!("kiosk-17.{DOMAIN}").as_str(), "{left}");
    assert_eq!(left["service"], "443", "{left}");
    assert_eq!(live(gate), Some(0.0));
    dialled.terminal(Signal::CONT);
    dialled.assert_nothing_left();
    assert!(lines(gate, "Allow").iter().all(|line| line["user"] == "bob"));
    verify(gate);
}

#[test]
fn invariant_7_opens_that_end_after_their_connection_are_written_down() {
    const OPENS: usize = 5;
    let dialled = Dialled::new();
    let gate = &dialled.kiosk.gate;
    dialled.kiosk.client.as_ref().expect("the terminal's client").stop();
    let port = tidegate_tests::ports::free();
    let forward = format!("{port}:kiosk-17:443");
    let mut staff =
        Proc::start("ssh -L", &mut gate.staff("alice").relay(&["-N", "-v", "-L", &forward]));
    staff.await_stderr("Entering interactive session", SOON);
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward");
    let _sockets: Vec<_> = (0..OPENS).map(|_| connect()).collect();
    // Each but the last is on its way before the next is taken up.
    eventually("all are asked for", SOON, || {
        staff.stderr().matches("forwarding to kiosk-17 port 443 requested").count() == OPENS
    });
    staff.kill();
    eventually("all are written down", SOON, || {
        let refused = metric(gate.admin, "tidegate_denies_total{reason=\"StaffLeft\"}");
        let lines = lines(gate, "Deny");
        let left = lines.iter().filter(|line| line["reason"]["code"] == "StaffLeft");
        let written: u64 = left.map(|line| line["count"].as_u64().unwrap_or(1)).sum();
        let written = u32::try_from(written).expect("few");
        written > 1 && refused == Some(f64::from(written))
    });
    dialled.terminal(Signal::CONT);
    dialled.assert_nothing_left();
}

#[test]
fn invariant_1_staff_who_leave_as_the_terminal_answers_leave_nothing() {
    let dialled = Dialled::new();
    for _ in 0..8 {
        let mut staff = dialled.begin();
        staff.signal(Signal::KILL);
        dialled.terminal(Signal::CONT);
        staff.kill();
        dialled.assert_nothing_left();
    }
    let gate = &dialled.kiosk.gate;
    for line in lines(gate, "Deny").iter().filter(|line| line["user"] == "alice") {
        assert_eq!(line["reason"]["code"], "StaffLeft", "{line}");
    }
    for line in lines(gate, "End").iter().filter(|line| line["user"] == "alice") {
        assert_eq!(line["endedBy"], "Staff", "{line}");
    }
    verify(gate);
}

#[test]
fn invariant_5_a_terminal_whose_last_service_is_undeclared_is_told_and_disconnected() {
    let mut kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let clients = kiosk.gate.clients_of("kiosk-17");
    let client = clients.start(Program::OpenSsh, &[Forward::port(20_018, kiosk.echo.port())]);
    kiosk.gate.await_offer("kiosk-17", "web");
    let mut terminal = kiosk.gate.terminal("kiosk-17");
    terminal.services.retain(|service| service.name != "web");
    kiosk.gate.put_terminal(terminal);
    let begun = Instant::now();
    let exit = client.exit(SOON);
    let took = after(begun, exit.at);
    assert!(took <= Duration::from_secs(3), "it was disconnected after {took:?}");
    let told = client.stderr();
    assert!(told.contains("no service was offered; kiosk-17 may offer ssh (-R 20017"), "{told}");
    assert!(!told.contains("web"), "{told}");
}

#[test]
fn invariant_7_a_terminals_refused_forward_is_in_the_trail() {
    let kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let to = kiosk.echo.port();
    let forwards =
        [Forward::port(20_018, to), Forward::port(20_099, to), Forward::bound("kiosk-18", 22, to)];
    let client = kiosk.gate.clients_of("kiosk-17").start(Program::OpenSsh, &forwards);
    kiosk.gate.await_offer("kiosk-17", "web");
    for (asked, sentence) in [
        ("localhost:20099", "kiosk-17 declares no listenPort 20099"),
        ("kiosk-18:22", "only under its own name, not under kiosk-18"),
    ] {
        let deny = kiosk.gate.await_audit("the refused -R", SOON, |line| {
            line["event"] == "Deny"
                && line["service"].as_str().is_some_and(|service| service.contains(asked))
        });
        assert_eq!(deny["decision"], "Deny", "{deny}");
        assert_eq!(deny["terminal"], "kiosk-17", "{deny}");
        assert_eq!(deny["terminalKeyFingerprint"], kiosk.gate.key("kiosk-17").fingerprint());
        assert!(deny["sourceAddress"].as_str().is_some_and(|from| from.starts_with("127.0.0.1")));
        let said = deny["reason"]["sentence"].as_str().expect("a sentence");
        assert!(said.contains(sentence), "{said}");
    }
    // What it may offer serves all the same.
    assert!(client.is_running());
    channel(&kiosk.gate, "alice");
}

#[test]
fn invariant_3_cut_when_the_terminals_key_is_removed() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let session = channel(&kiosk.gate, "alice");
    let other = kiosk.gate.key("another").public;
    let terminal = Terminal { keys: vec![other], ..kiosk.gate.terminal("kiosk-17") };
    let cut = Instant::now();
    kiosk.gate.put_terminal(terminal);
    let exit = session.exit(SOON);
    assert!(after(cut, exit.at) <= ON_TIME, "cut {:?} after the change", after(cut, exit.at));
    assert_eq!(exit.code, Some(255));
    let told = session.stderr();
    assert!(told.contains("access was withdrawn") && told.contains("kiosk-17"), "{told}");
    let end = the_end(&kiosk.gate);
    assert_eq!(end["endedBy"], "Revoked", "{end}");
    let client = kiosk.client.take().expect("the terminal's client");
    let gone = client.exit(SOON);
    assert!(after(cut, gone.at) <= ON_TIME, "it left {:?} after the change", after(cut, gone.at));
    assert!(client.stderr().contains("has another key"), "{}", client.stderr());
    eventually("its service's connection ends", SOON, || kiosk.echo.all_ended());
    let clients = kiosk.gate.clients_of("kiosk-17");
    let again = clients.finish(Program::OpenSsh, &kiosk.forwards(), SOON);
    assert!(again.stderr.contains("Permission denied"), "{}", again.stderr);
}

/// Two terminals with nine services between them, all echoes, and what reaches each.
fn nine_services() -> (Kiosk, Vec<Proc>, Vec<(String, u16)>) {
    const SPLIT: u16 = 5;
    let names: Vec<String> = (0..9).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let declare = |terminal: &str, numbers: std::ops::Range<u16>| {
        numbers.fold(Terminal::new(terminal), |terminal, n| {
            terminal.service(names[usize::from(n)], 1000 + n, Some(21_000 + n))
        })
    };
    let kiosk = Kiosk::detached(|setup| {
        setup
            .relay_spec("  limits: {sessionsPerUser: 8}\n")
            .terminal(declare("kiosk-18", 0..SPLIT))
            .terminal(declare("kiosk-19", SPLIT..9))
            .window(
                SupportWindow::open("nine", "alice", "kiosk-18")
                    .terminal("kiosk-19")
                    .services(&names),
            )
    });
    let mut clients = Vec::new();
    let mut targets = Vec::new();
    for (terminal, numbers) in [("kiosk-18", 0..SPLIT), ("kiosk-19", SPLIT..9)] {
        let to = kiosk.echo.port();
        let forwards: Vec<_> = numbers.clone().map(|n| Forward::port(21_000 + n, to)).collect();
        clients.push(kiosk.gate.clients_of(terminal).start(Program::OpenSsh, &forwards));
        for n in numbers {
            kiosk.gate.await_offer(terminal, names[usize::from(n)]);
            targets.push((terminal.to_owned(), 1000 + n));
        }
    }
    (kiosk, clients, targets)
}

const ONE_TOO_MANY: &str =
    "alice has 8 sessions open, which is the most a login user may have; end one first";

#[test]
fn invariant_8_nine_opens_at_once_on_one_connection_make_eight_sessions() {
    let (kiosk, clients, targets) = nine_services();
    let gate = &kiosk.gate;
    let local: Vec<u16> = targets.iter().map(|_| ports::free()).collect();
    let forwards: Vec<String> = targets
        .iter()
        .zip(&local)
        .map(|((terminal, port), local)| format!("{local}:{terminal}:{port}"))
        .collect();
    let client = forwarding(&gate.staff("alice"), &forwards);
    let barrier = std::sync::Barrier::new(local.len());
    let mut open: Vec<Option<TcpStream>> = std::thread::scope(|scope| {
        let tries: Vec<_> = local
            .iter()
            .map(|port| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let mut socket = dial(*port);
                    let _ = socket.write_all(b"ping");
                    let mut got = [0; 4];
                    socket.read_exact(&mut got).is_ok().then_some(socket)
                })
            })
            .collect();
        tries.into_iter().map(|one| one.join().expect("a try")).collect()
    });
    assert_eq!(open.iter().flatten().count(), 8, "{}", client.stderr());
    client.await_stderr("open failed", SOON);
    let told = client.stderr();
    assert_eq!(told.matches("open failed").count(), 1, "{told}");
    assert!(told.contains(ONE_TOO_MANY), "{told}");
    assert_eq!(live(gate), Some(8.0));
    // The others live, on the same connection, and so do the terminals'.
    for socket in open.iter_mut().flatten() {
        socket.write_all(b"pong").expect("a live session");
        let mut got = [0; 4];
        socket.read_exact(&mut got).expect("a live session");
        assert_eq!(&got, b"pong");
    }
    assert!(client.is_running() && clients.iter().all(Proc::is_running));
    assert_eq!(lines(gate, "Allow").len(), 8);
    gate.await_audit("the login", SOON, |line| line["event"] == "Login");
    assert_eq!(lines(gate, "Login").len(), 1);
    assert_eq!(lines(gate, "End").len(), 0);
    // One that ends makes room for one.
    let (index, refused) = (
        open.iter().position(Option::is_some).expect("a session"),
        open.iter().position(Option::is_none).expect("a refusal"),
    );
    drop(client);
    eventually("they have ended", SOON, || live(gate) == Some(0.0));
    assert_eq!(lines(gate, "End").len(), 8);
    let (terminal, port) = &targets[refused];
    let mut late = gate.staff("alice").w(terminal, *port);
    late.write(b"late").expect("an open channel");
    late.await_stdout("late", SOON);
    drop(open.remove(index));
}

#[test]
fn invariant_8_nine_connections_at_once_make_eight_sessions() {
    let (kiosk, clients, targets) = nine_services();
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let mut opened: Vec<Proc> =
        targets.iter().map(|(terminal, port)| alice.w(terminal, *port)).collect();
    for one in &mut opened {
        // The refused one may have gone.
        let _ = one.write(b"ping");
    }
    let refused = wait_for("nine answers", SOON, || {
        let (gone, there): (Vec<_>, Vec<_>) = opened.iter().partition(|one| !one.is_running());
        let echoed = there.iter().filter(|one| one.stdout() == "ping").count();
        (gone.len() + echoed == 9).then(|| {
            let said = gone.iter().map(|one| {
                // With all that it wrote.
                one.exit(SOON);
                one.stderr()
            });
            said.collect::<Vec<_>>()
        })
    });
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains(ONE_TOO_MANY), "{refused:?}");
    assert_eq!(live(gate), Some(8.0));
    let at = opened.iter().position(|one| !one.is_running()).expect("the refused one");
    opened.remove(at);
    for one in &mut opened {
        one.write(b"pong").expect("a live session");
        one.await_stdout("pingpong", SOON);
    }
    assert!(clients.iter().all(Proc::is_running));
    // A session that ends makes room for one.
    let first = opened.remove(0);
    assert_eq!(first.finish(SOON).code, Some(0));
    eventually("there is room for another", SOON, || {
        let (terminal, port) = &targets[at];
        let mut late = alice.w(terminal, *port);
        let _ = late.write(b"late");
        late.finish(SOON).stdout == "late"
    });
}

#[test]
fn invariant_7_a_terminal_that_is_killed_ends_its_sessions_with_the_reason() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let mut shell = Proc::start("ssh -J", &mut alice.shell("kiosk-17", &["cat"]));
    shell.write(b"one\n").expect("an open session");
    shell.await_stdout("one\n", SOON);
    let mut raw = channel(&kiosk.gate, "alice");
    kiosk.client.as_mut().expect("the terminal's client").kill();
    for session in [&shell, &raw] {
        assert_eq!(session.exit(SOON).code, Some(255), "{}", session.stderr());
        session.await_stderr("the connection of kiosk-17 ended", SOON);
    }
    assert!(raw.write(b"more").is_err() || !raw.is_running());
    eventually("both ends are written down", SOON, || lines(&kiosk.gate, "End").len() == 2);
    for end in lines(&kiosk.gate, "End") {
        assert_eq!(end["endedBy"], "Terminal", "{end}");
        assert_eq!(end["reason"]["sentence"], "the connection of kiosk-17 ended");
    }
    let why = alice.view(&["why", "kiosk-17"]).stdout;
    assert!(why.contains("the connection of kiosk-17 ended"), "{why}");
    kiosk.attach();
    channel(&kiosk.gate, "alice");
}

#[test]
fn invariant_6_a_full_disk_uses_no_one_time_window_up() {
    let once = SupportWindow { one_time: true, ..alice_everywhere("once").user("bob") };
    let mut disk = None;
    let kiosk = Kiosk::with(|setup| {
        disk = SmallDisk::mount(&setup.dir().join("state"));
        setup.window(once)
    });
    let Some(disk) = &disk else { return };
    let gate = &kiosk.gate;
    let ballast = disk.fill();
    // First the claim finds no room, then the trail itself, whose last page was not yet full.
    let mut told = std::collections::BTreeSet::new();
    eventually("the trail cannot be written", SOON, || {
        for login in ["alice", "bob"] {
            let (through, said) = gets_through(gate, login);
            assert!(!through, "admitted with a full disk");
            assert!(!said.contains("admits one session and was used"), "{said}");
            let sentence = said.rsplit("open failed: ").next().unwrap_or_default();
            told.insert(sentence.lines().next().unwrap_or_default().trim().to_owned());
        }
        told.iter().any(|said| said.contains("cannot write its audit log"))
    });
    println!("refused with: {told:#?}");
    assert_eq!(kiosk.echo.bytes(), 0);
    std::fs::remove_file(&ballast).expect("the ballast");
    eventually("the relay is ready again", SOON, || {
        gate.readiness().is_some_and(|(status, _)| status == 200)
    });
    let (through, said) = gets_through(gate, "bob");
    assert!(through, "a refused attempt used the window up: {said}");
    let (through, said) = gets_through(gate, "alice");
    assert!(!through && said.contains("admits one session and was used by bob"), "{said}");
    assert_eq!(lines(gate, "Allow").len(), 1);
    verify(gate);
}

#[test]
fn invariant_6_a_disk_with_room_for_the_claim_alone_uses_no_window_up() {
    const PAGE: u64 = 4096;
    // Where in its last page the trail ends, so that the line of the attempt's login still fits and
    // the one of its admission does not.
    for ends in [2900..3300, 3300..3600] {
        let once = SupportWindow { one_time: true, ..alice_everywhere("once").user("bob") };
        let mut disk = None;
        let kiosk = Kiosk::with(|setup| {
            disk = SmallDisk::mount(&setup.dir().join("state"));
            setup.window(once)
        });
        let Some(disk) = &disk else { return };
        let gate = &kiosk.gate;
        eventually("the trail ends where it should", SOON, || {
            let trail = std::fs::metadata(gate.state.join("audit/audit.jsonl"));
            let there = ends.contains(&(trail.expect("the trail").len() % PAGE));
            if !there {
                gate.staff("alice").view(&["whoami"]).ok();
            }
            there
        });
        let ballast = disk.fill();
        let file = std::fs::File::options().write(true).open(&ballast).expect("the ballast");
        let length = file.metadata().expect("the ballast").len();
        file.set_len((length - 1) / PAGE * PAGE).expect("one page of room");
        drop(file);
        let (first, said) = gets_through(gate, "alice");
        std::fs::remove_file(&ballast).expect("the ballast");
        eventually("the relay is ready", SOON, || {
            gate.readiness().is_some_and(|(status, _)| status == 200)
        });
        let (second, told) = gets_through(gate, "bob");
        assert!(first != second, "alice: {first} {said}\nbob: {second} {told}");
        assert_eq!(lines(gate, "Allow").len(), 1);
        verify(gate);
    }
}

/// The deadline that the relay has for its only session.
fn deadline(gate: &Gate) -> Option<jiff::Timestamp> {
    let sessions = gate.sessions();
    let [session] = &sessions[..] else { return None };
    session["deadline"].as_str()?.parse().ok()
}

#[test]
fn invariant_2_a_deadline_moves_earlier_with_its_window() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let session = channel(&kiosk.gate, "alice");
    let closes = in_seconds(5);
    kiosk.gate.put(&alice_everywhere("berlin").closing_at(closes));
    eventually("the new time is in force", SOON, || deadline(&kiosk.gate) == Some(closes));
    let exit = session.exit(SOON);
    assert!(exit.at >= monotonic(closes), "cut before the new time");
    let late = after(monotonic(closes), exit.at);
    assert!(late <= ON_TIME, "cut {late:?} after the new time");
    assert!(session.stderr().contains("default/berlin closed"), "{}", session.stderr());
    let end = the_end(&kiosk.gate);
    assert_eq!(end["endedBy"], "Deadline", "{end}");
    assert!(end["overrunMs"].as_u64().is_some_and(|overrun| overrun <= 1000), "{end}");
}

#[test]
fn invariant_2_a_deadline_never_moves_later() {
    let closes = in_seconds(600);
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").closing_at(closes)]);
    let gate = &kiosk.gate;
    let session = channel(gate, "alice");
    assert_eq!(deadline(gate), Some(closes));
    // Later than at admission, then earlier, then later again: the earliest stands.
    gate.put(&alice_everywhere("berlin"));
    eventually("the later time is in force", SOON, || opens_until(gate) > Some(closes));
    assert_eq!(deadline(gate), Some(closes));
    let earlier = in_seconds(7);
    gate.put(&alice_everywhere("berlin").closing_at(earlier));
    eventually("the earlier time is in force", SOON, || deadline(gate) == Some(earlier));
    gate.put(&alice_everywhere("berlin"));
    eventually("the later time is in force", SOON, || opens_until(gate) > Some(closes));
    assert_eq!(deadline(gate), Some(earlier));
    let exit = session.exit(SOON);
    assert!(exit.at >= monotonic(earlier), "cut before its deadline");
    let late = after(monotonic(earlier), exit.at);
    assert!(late <= ON_TIME, "cut {late:?} after its deadline");
    assert_eq!(the_end(gate)["endedBy"], "Deadline");
    // The window is open, for new sessions.
    channel(gate, "alice");
}

/// Until when a new session of alice's would last.
fn opens_until(gate: &Gate) -> Option<jiff::Timestamp> {
    let told = gate.staff("alice").view(&["why", "kiosk-17", "--json"]).stdout;
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    deadlines(&told).into_iter().max()
}

/// Every `deadline` in an answer.
fn deadlines(value: &Value) -> Vec<jiff::Timestamp> {
    match value {
        Value::Array(items) => items.iter().flat_map(deadlines).collect(),
        Value::Object(fields) => {
            let here = fields.get("deadline").and_then(Value::as_str);
            let here = here.and_then(|at| at.parse().ok());
            here.into_iter().chain(fields.values().flat_map(deadlines)).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn invariant_3_a_reload_that_changes_nothing_cuts_nobody() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let mut sessions = ["alice", "bob"].map(|login| channel(&kiosk.gate, login));
    let names = |gate: &Gate| -> Vec<_> {
        gate.sessions()
            .iter()
            .map(|s| (s["name"].to_string(), s["window"].to_string(), s["deadline"].to_string()))
            .collect()
    };
    let before = names(&kiosk.gate);
    assert_eq!(before.len(), 2);
    let files: Vec<_> = ["windows/berlin", "users/alice", "terminals/kiosk-17", "mesh", "relay"]
        .iter()
        .map(|name| kiosk.gate.manifests.join(format!("{name}.yaml")))
        .collect();
    // Each round ends with a change that shows: what came before it has been read by then.
    for round in 0_u32..4 {
        for file in &files {
            match round {
                0 => kiosk.gate.relay().signal(Signal::HUP),
                1 => drop(Proc::run("touch", Command::new("touch").arg(file), SOON).ok()),
                // In place, as an editor does: for a moment the file is empty.
                2 => {
                    let text = std::fs::read(file).expect("a manifest");
                    std::fs::write(file, text).expect("a manifest");
                }
                // By a rename, as Git does: another inode.
                _ => {
                    let copy = file.with_extension("new");
                    std::fs::copy(file, &copy).expect("a copy");
                    std::fs::rename(&copy, file).expect("a rename");
                }
            }
            for session in &mut sessions {
                session.write(b".").expect("a session was cut");
            }
        }
        let users = metric(kiosk.gate.admin, "tidegate_policy_objects{kind=\"LoginUser\"}");
        kiosk.gate.put_user(LoginUser::new(&format!("carol-{round}")));
        eventually("the change that shows is in force", SOON, || {
            metric(kiosk.gate.admin, "tidegate_policy_objects{kind=\"LoginUser\"}") > users
        });
        for session in &sessions {
            session.await_bytes(4 + u64::from(round + 1) * files.len() as u64, SOON);
            assert!(session.is_running(), "round {round}: {}", session.stderr());
        }
        assert_eq!(names(&kiosk.gate), before, "round {round}");
    }
    assert!(kiosk.client.as_ref().is_some_and(Proc::is_running));
    assert_eq!(lines(&kiosk.gate, "End").len(), 0);
    assert_eq!(lines(&kiosk.gate, "Detach").len(), 0);
    for session in sessions {
        assert_eq!(session.finish(SOON).code, Some(0));
    }
}

#[test]
fn invariant_1_channels_of_a_multiplexed_connection_are_one_session() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let socket = gate.dir().join("master");
    let path = socket.to_string_lossy().into_owned();
    let master = Proc::start("ssh -M", &mut alice.relay(&["-M", "-N", "-S", &path]));
    eventually("the master listens", SOON, || socket.exists());
    let open = |text: &str| {
        let mut command = alice.relay(&["-S", &path, "-W", "kiosk-17:443"]);
        let mut channel = Proc::start("ssh -S -W", &mut command);
        channel.write(text.as_bytes()).expect("an open channel");
        channel.await_stdout(text, SOON);
        channel
    };
    let mut channels = vec![open("one"), open("two"), open("three")];
    eventually("three channels are written down", SOON, || lines(gate, "Channel").len() == 2);
    let allowed = lines(gate, "Allow");
    let [allow] = &allowed[..] else { panic!("{allowed:?}") };
    for further in lines(gate, "Channel") {
        for field in ["session", "user", "terminal", "service", "window", "sourceAddress"] {
            assert_eq!(further[field], allow[field], "{field}: {further}");
        }
    }
    assert_eq!(gate.sessions().len(), 1);
    // A channel that closes ends itself alone.
    assert_eq!(channels.remove(0).finish(SOON).code, Some(0));
    channels[0].write(b"more").expect("an open channel");
    channels[0].await_stdout("twomore", SOON);
    assert_eq!(lines(gate, "End").len(), 0);
    let mut exit = alice.relay(&["-S", &path, "-O", "exit"]);
    Proc::run("ssh -O exit", &mut exit, SOON).ok();
    master.exit(SOON);
    let end = the_end(gate);
    assert_eq!(end["session"], allow["session"]);
    assert_eq!(end["endedBy"], "Staff");
    assert_eq!((&end["bytesIn"], &end["bytesOut"]), (&15.into(), &15.into()));
    for channel in &channels {
        channel.exit(SOON);
    }
    assert!(gate.sessions().is_empty());
    let count = |event| lines(gate, event).len();
    assert_eq!((count("Allow"), count("Channel"), count("End")), (1, 2, 1));
    verify(gate);
}

#[test]
fn invariant_1_nothing_but_services_is_forwarded_and_why_tells() {
    if !have("ssh-agent") {
        return;
    }
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let path = |name: &str| gate.dir().join(name).to_string_lossy().into_owned();

    let agent = path("agent");
    let mut command = Command::new("ssh-agent");
    let _agent = Proc::start("ssh-agent", command.args(["-D", "-a", &agent]));
    eventually("the agent listens", SOON, || UnixStream::connect(&agent).is_ok());
    let identity = format!("IdentityAgent={agent}");
    // -Y: trusted, so that no X server is asked for a cookie.
    let mut command = alice.relay(&["-A", "-Y", "-T", "-o", &identity]);
    command.env("DISPLAY", "127.0.0.1:99").arg("whoami");
    let done = Proc::run("ssh -A -Y", &mut command, SOON).ok();
    assert!(done.stdout.contains("alice"), "the view works all the same: {}", done.stdout);
    assert!(done.stderr.contains("X11 forwarding request failed"), "{}", done.stderr);

    let local = path("local");
    let forward = format!("{local}:/run/docker.sock");
    let client = forwarding(&alice, &[forward]);
    let mut peer = UnixStream::connect(&local).expect("the forward");
    assert!(peer.read_to_end(&mut Vec::new()).is_ok_and(|bytes| bytes == 0));
    client.await_stderr("open failed: unknown channel type", SOON);
    assert!(client.is_running(), "{}", client.stderr());

    let remote = format!("{}:127.0.0.1:1", path("remote"));
    let options = ["-N", "-o", "ExitOnForwardFailure=no", "-R", &remote];
    let remote = Proc::start("ssh -R unix", &mut alice.relay(&options));
    remote.await_stderr("remote port forwarding failed", SOON);
    let options = ["-N", "-o", "ExitOnForwardFailure=no", "-R", "20018:127.0.0.1:1"];
    let port = Proc::start("ssh -R", &mut alice.relay(&options));
    port.await_stderr("remote port forwarding failed", SOON);

    let sentences = [
        "the relay refuses X11 forwarding",
        "the relay refuses agent forwarding",
        "the relay refuses a connection to a Unix socket",
        "the relay refuses forwarding of a Unix socket",
    ];
    // A client may be answered before it is noted.
    eventually("why tells of each", SOON, || {
        let why = alice.view(&["why", "kiosk-17"]).ok().stdout;
        sentences.iter().all(|sentence| why.contains(sentence)) && why.contains("-R")
    });
    for sentence in sentences {
        gate.await_audit(sentence, SOON, |line| {
            line["event"] == "Deny"
                && line["user"] == "alice"
                && line["reason"]["sentence"].as_str().is_some_and(|s| s.starts_with(sentence))
        });
    }
    // Nobody else is shown it.
    let bobs = gate.staff("bob").view(&["why", "kiosk-17"]).stdout;
    assert!(sentences.iter().all(|sentence| !bobs.contains(sentence)), "{bobs}");
    assert_eq!(kiosk.echo.bytes(), 0);
}

#[test]
fn invariant_3_a_neighbour_on_the_same_service_loses_no_byte() {
    const TOTAL: usize = 24 << 20;
    const CHUNK: usize = 64 << 10;
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let gate = &kiosk.gate;
    let mut sent = vec![0; TOTAL];
    let mut random = std::fs::File::open("/dev/urandom").expect("/dev/urandom");
    random.read_exact(&mut sent).expect("random bytes");
    let over = Arc::new(AtomicBool::new(false));
    let feed = |mut stdin: std::process::ChildStdin, bytes: Vec<u8>| {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            // Slowly enough that the cut falls into the middle of it; the last chunk waits for the cut.
            let last = bytes.len() - CHUNK;
            for (at, chunk) in (0..).step_by(CHUNK).zip(bytes.chunks(CHUNK)) {
                while at == last && !over.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(4));
                }
                if stdin.write_all(chunk).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(4));
            }
        })
    };
    let mut alice = gate.staff("alice").w("kiosk-17", 443);
    let mut bob = gate.staff("bob").w("kiosk-17", 443);
    let feeding = [feed(alice.take_stdin(), sent.clone()), feed(bob.take_stdin(), sent.clone())];
    alice.await_bytes(1 << 20, SOON);
    bob.await_bytes(1 << 20, SOON);
    let sessions = gate.sessions();
    let of_alice = sessions.iter().find(|session| session["user"] == "alice");
    let name = of_alice.expect("alice's session")["name"].as_str().expect("a name").to_owned();
    let cut = Instant::now();
    gate.control(&["cut", &name]).ok();
    let exit = alice.exit(SOON);
    assert_eq!(exit.code, Some(255));
    assert!(after(cut, exit.at) <= ON_TIME, "cut after {:?}", after(cut, exit.at));
    assert!(alice.stderr().contains("the session was cut"), "{}", alice.stderr());
    let echoed = bob.with_out(|out| out.total);
    assert!(echoed < TOTAL as u64, "bob was through before alice was cut");
    over.store(true, Ordering::Release);
    bob.await_bytes(TOTAL as u64, Duration::from_mins(2));
    for thread in feeding {
        thread.join().expect("a feeder");
    }
    assert_eq!(bob.exit(SOON).code, Some(0), "{}", bob.stderr());
    assert_eq!(bob.with_out(|out| out.total), TOTAL as u64);
    let wanted: [u8; 32] = Sha256::digest(&sent).into();
    assert_eq!(bob.with_out(Stream::sha256), wanted, "bytes were lost or changed");
    assert!(kiosk.client.as_ref().is_some_and(Proc::is_running));
    eventually("both ends are written down", SOON, || lines(gate, "End").len() == 2);
    let by = |user: &str| {
        let ends = lines(gate, "End");
        let end = ends.iter().find(|line| line["user"] == user).cloned();
        end.expect("an end")
    };
    assert_eq!(by("alice")["endedBy"], "Cut");
    assert_eq!(by("bob")["endedBy"], "Staff");
    assert_eq!(by("bob")["bytesIn"], TOTAL);
    assert_eq!(by("bob")["bytesOut"], TOTAL);
}
