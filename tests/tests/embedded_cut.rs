//! Invariants 2 and 3: the end of a session, measured at the client's socket and at the terminal's
//! service, whatever causes it and whatever state the client is in.

use std::io::Write as _;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate_ssh_client::hand::{Hand, Parting};
use tidegate_ssh_client::{Key, Offer, Writer, number};
use tidegate_tests::clock::{after, monotonic};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{LoginUser, SupportWindow, in_seconds};
use tidegate_tests::procfs::{descriptors, sockets_on};
use tidegate_tests::{Gate, Kiosk, Proc, SOON, Setup, Tap, eventually};

/// The most that a cut may take (invariants 2 and 3).
const ON_TIME: Duration = Duration::from_secs(1);

/// What the relay holds while nobody has a session.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    sockets: usize,
    tasks: u64,
    sessions: u64,
}

fn held(gate: &Gate) -> Held {
    let gauge = |name: &str| {
        let value = metric(gate.admin, name).unwrap_or_else(|| panic!("no metric {name}"));
        format!("{value}").parse().expect("a whole number")
    };
    Held {
        descriptors: descriptors(gate.relay().pid()),
        sockets: sockets_on(gate.port).len(),
        tasks: gauge("tidegate_supervisor_tasks"),
        sessions: gauge("tidegate_sessions_current"),
    }
}

/// Nothing of a session that was cut at `cut` is left one second later.
fn nothing_left(gate: &Gate, before: &Held, cut: Instant) {
    let until = cut + ON_TIME + Duration::from_secs(1);
    loop {
        let now = held(gate);
        let gone = now.descriptors <= before.descriptors
            && now.sockets <= before.sockets
            && now.tasks <= before.tasks
            && now.sessions <= before.sessions;
        if gone {
            break;
        }
        assert!(Instant::now() < until, "left behind: {now:?}, before the session: {before:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes to a client's standard input until it is told to stop or cannot.
struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    fn start(mut stdin: ChildStdin) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let chunk = [b'.'; 4096];
            while !told.load(Ordering::Acquire) && stdin.write_all(&chunk).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A session of alice's that streams into the terminal's sink, through a tap.
struct Stream {
    // Dropped first: the feeder's pipe closes with the client.
    client: Proc,
    _feeder: Feeder,
    tap: Tap,
    before: Held,
}

impl Stream {
    fn start(kiosk: &Kiosk) -> Self {
        let before = held(&kiosk.gate);
        let tap = Tap::start(kiosk.gate.addr());
        let mut client = kiosk.gate.staff("alice").via(tap.port()).w("kiosk-17", 514);
        let feeder = Feeder::start(client.take_stdin());
        eventually("the stream runs", SOON, || {
            assert!(client.is_running(), "the stream ended: {}", client.stderr());
            kiosk.sink.bytes() > 64 << 10
        });
        Self { client, _feeder: feeder, tap, before }
    }

    /// After something at `cut` that ends the session: ends on time at the socket and at the
    /// service, says why, and leaves nothing.
    fn assert_cut(&self, kiosk: &Kiosk, cut: Instant, reason: &str, ended_by: &str) {
        eventually("the relay ends the connection", SOON, || self.tap.last().relay_ended.is_some());
        let socket = after(cut, self.tap.last().relay_ended.expect("an end"));
        assert!(socket <= ON_TIME, "the socket was closed {socket:?} after the cut");
        let exit = self.client.exit(SOON);
        let told = self.client.stderr();
        assert_eq!(exit.code, Some(255), "{told}");
        assert!(told.contains(reason), "'{reason}' is not in: {told}");
        nothing_left(&kiosk.gate, &self.before, cut);
        eventually("the service's connection ends", SOON, || kiosk.sink.all_ended());
        let service = after(cut, kiosk.sink.last_byte().expect("bytes"));
        assert!(service <= ON_TIME, "the service saw a byte {service:?} after the cut");
        let end = kiosk
            .gate
            .await_audit("the session's end", SOON, |line| line["endedBy"].as_str().is_some());
        assert_eq!(end["endedBy"], ended_by, "{end}");
        println!("cut ({ended_by}): socket +{socket:?}, last byte at the service +{service:?}");
    }
}

/// Opens a stream, changes something, and expects the cut.
fn revoked(
    declare: impl FnOnce(Setup) -> Setup,
    change: impl FnOnce(&mut Gate),
    reason: &str,
    ended_by: &str,
) {
    let mut kiosk = Kiosk::with(declare);
    let stream = Stream::start(&kiosk);
    let cut = Instant::now();
    change(&mut kiosk.gate);
    stream.assert_cut(&kiosk, cut, reason, ended_by);
}

fn with_window(setup: Setup) -> Setup {
    setup.window(alice_everywhere("berlin"))
}

#[test]
fn invariant_2_cut_at_the_deadline() {
    let kiosk = Kiosk::open(&[]);
    let closes = kiosk.open_for(8);
    let stream = Stream::start(&kiosk);
    stream.assert_cut(
        &kiosk,
        monotonic(closes),
        "support window default/berlin closed",
        "Deadline",
    );
    assert!(
        stream.client.exited().expect("an end").at >= monotonic(closes),
        "the session was cut before its deadline"
    );
}

#[test]
fn invariant_3_cut_when_the_window_is_suspended() {
    revoked(
        with_window,
        |gate| gate.put(&alice_everywhere("berlin").suspended()),
        "berlin",
        "Revoked",
    );
}

#[test]
fn invariant_3_cut_when_the_window_names_other_users() {
    let narrowed = SupportWindow { users: vec!["bob".to_owned()], ..alice_everywhere("berlin") };
    revoked(with_window, |gate| gate.put(&narrowed), "berlin", "Revoked");
}

#[test]
fn invariant_3_cut_when_the_window_loses_the_service() {
    let narrowed = alice_everywhere("berlin").services(&["ssh", "web"]);
    revoked(with_window, |gate| gate.put(&narrowed), "berlin", "Revoked");
}

#[test]
fn invariant_3_cut_when_the_window_is_made_shorter() {
    // Its end is moved to an instant that has passed.
    let narrowed = alice_everywhere("berlin").closing_at(in_seconds(-30));
    revoked(with_window, |gate| gate.put(&narrowed), "berlin", "Revoked");
}

#[test]
fn invariant_3_cut_when_the_window_is_deleted() {
    revoked(with_window, |gate| gate.remove(&alice_everywhere("berlin")), "berlin", "Revoked");
}

#[test]
fn invariant_3_cut_when_the_window_is_moved_away() {
    revoked(
        with_window,
        |gate| {
            let away = gate.dir().join("berlin.yaml");
            std::fs::rename(gate.manifests.join("windows/berlin.yaml"), away).expect("a move");
        },
        "berlin",
        "Revoked",
    );
}

#[test]
fn invariant_3_cut_when_the_user_is_deleted() {
    revoked(with_window, |gate| gate.remove(&LoginUser::new("alice")), "alice", "Revoked");
}

#[test]
fn invariant_3_cut_when_the_user_is_suspended() {
    revoked(
        with_window,
        |gate| {
            let alice = gate.user("alice").suspended();
            gate.put_user(alice);
        },
        "alice",
        "Revoked",
    );
}

#[test]
fn invariant_3_cut_when_the_key_is_removed() {
    revoked(
        with_window,
        |gate| {
            let other = gate.key("another").public;
            let alice = LoginUser { keys: vec![other], ..gate.user("alice") };
            gate.put_user(alice);
        },
        "alice",
        "Revoked",
    );
}

#[test]
fn invariant_3_cut_when_the_source_range_is_narrowed() {
    revoked(
        with_window,
        |gate| {
            let alice = gate.user("alice").from(&["203.0.113.0/24"]);
            gate.put_user(alice);
        },
        "alice",
        "Revoked",
    );
}

#[test]
fn invariant_3_cut_when_the_terminal_is_deleted() {
    revoked(
        with_window,
        |gate| {
            let terminal = gate.terminal("kiosk-17");
            gate.remove(&terminal);
        },
        "kiosk-17",
        "Revoked",
    );
}

#[test]
fn invariant_3_cut_when_the_terminal_is_suspended() {
    revoked(
        with_window,
        |gate| {
            let terminal = gate.terminal("kiosk-17").suspended();
            gate.put_terminal(terminal);
        },
        "kiosk-17",
        "Revoked",
    );
}

#[test]
fn invariant_3_one_session_is_cut_and_its_neighbour_lives_on() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let mut neighbour = kiosk.gate.staff("bob").w("kiosk-17", 443);
    neighbour.write(b"one").expect("an open channel");
    neighbour.await_stdout("one", SOON);
    let stream = Stream::start(&kiosk);
    let sessions = kiosk.gate.sessions();
    let alices = sessions
        .iter()
        .find(|session| session["user"] == "alice")
        .unwrap_or_else(|| panic!("no session of alice's in {sessions:?}"));
    let name = alices["name"].as_str().expect("a name").to_owned();

    let cut = Instant::now();
    kiosk.gate.control(&["cut", &name]).ok();
    let socket = {
        eventually("the relay ends the connection", SOON, || {
            stream.tap.last().relay_ended.is_some()
        });
        after(cut, stream.tap.last().relay_ended.expect("an end"))
    };
    assert!(socket <= ON_TIME, "the socket was closed {socket:?} after the cut");
    assert_eq!(stream.client.exit(SOON).code, Some(255));
    assert!(stream.client.stderr().contains("cut"), "{}", stream.client.stderr());
    eventually("the service's connection ends", SOON, || kiosk.sink.all_ended());
    assert!(after(cut, kiosk.sink.last_byte().expect("bytes")) <= ON_TIME);

    neighbour.write(b"two").expect("the neighbour's channel");
    neighbour.await_stdout("onetwo", SOON);
    assert_eq!(neighbour.finish(SOON).code, Some(0));
    assert!(kiosk.client.as_mut().is_some_and(|client| client.is_running()));
}

#[test]
fn invariant_3_a_connection_with_two_sessions_keeps_the_other_one() {
    // One staff connection, two services: only the session of the service that the window loses is
    // cut, by CLOSE, and the connection stays.
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let (web, log) = (tidegate_tests::ports::free(), tidegate_tests::ports::free());
    let alice = kiosk.gate.staff("alice");
    let forwards = [format!("{web}:kiosk-17:443"), format!("{log}:kiosk-17:514")];
    let options = ["-N", "-v", "-L", &forwards[0], "-L", &forwards[1]];
    let client = Proc::start("ssh -L", &mut alice.relay(&options));
    client.await_stderr("Entering interactive session", SOON);
    let mut kept = std::net::TcpStream::connect(("127.0.0.1", web)).expect("the forward");
    kept.write_all(b"one").expect("a write");
    read(&mut kept, b"one");
    let mut lost = std::net::TcpStream::connect(("127.0.0.1", log)).expect("the forward");
    lost.write_all(b"x").expect("a write");
    eventually("the sink has it", SOON, || kiosk.sink.bytes() == 1);

    let cut = Instant::now();
    kiosk.gate.put(&alice_everywhere("berlin").services(&["ssh", "web"]));
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut lost, &mut rest);
    assert!(cut.elapsed() <= ON_TIME, "the channel was closed {:?} after the cut", cut.elapsed());
    kept.write_all(b"two").expect("a write");
    read(&mut kept, b"two");
    assert!(client.is_running());
}

#[test]
fn invariant_3_a_connection_that_loses_both_sessions_at_once_is_told_before_any_close() {
    let kiosk = Kiosk::open(&[]);
    let alice = kiosk.gate.staff("alice");
    // Whoever parts first must not be faster than the word; a race, so more than once.
    for round in 0..5 {
        kiosk.gate.put(&alice_everywhere("berlin"));
        kiosk.gate.await_why("alice", "kiosk-17", true);
        let (web, log) = (tidegate_tests::ports::free(), tidegate_tests::ports::free());
        let forwards = [format!("{web}:kiosk-17:443"), format!("{log}:kiosk-17:514")];
        let options = ["-N", "-vv", "-L", &forwards[0], "-L", &forwards[1]];
        let client = Proc::start("ssh -L", &mut alice.relay(&options));
        client.await_stderr("Entering interactive session", SOON);
        let open = |port| std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward");
        let (_web, _log) = (open(web), open(log));
        eventually("both sessions", SOON, || kiosk.gate.sessions().len() == 2);

        kiosk.gate.remove(&alice_everywhere("berlin"));
        let exit = client.exit(SOON);
        let told = client.stderr();
        assert_eq!(exit.code, Some(255), "round {round}: {told}");
        assert!(told.contains("Received disconnect"), "round {round}: {told}");
        assert!(!told.contains("rcvd close"), "round {round}: {told}");
        eventually("no session", SOON, || kiosk.gate.sessions().is_empty());
    }
}

fn read(socket: &mut std::net::TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    std::io::Read::read_exact(socket, &mut got).expect("an answer");
    assert_eq!(got, wanted);
}

/// A session that takes all that the terminal's source gives, cut while `hold` is in force.
fn cut_while(hold: impl FnOnce(&Proc, &Tap), options: &[&str]) {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let before = held(&kiosk.gate);
    let tap = Tap::start(kiosk.gate.addr());
    let alice = kiosk.gate.staff("alice").via(tap.port());
    let mut arguments = options.to_vec();
    arguments.extend(["-W", "kiosk-17:873"]);
    let client = Proc::start("ssh -W", &mut alice.relay(&arguments));
    client.await_bytes(1 << 20, SOON);
    hold(&client, &tap);
    // Full once nothing has moved for a while.
    let mut last = (kiosk.source.bytes(), Instant::now());
    eventually("the windows are full", SOON, || {
        let now = kiosk.source.bytes();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    });
    let cut = Instant::now();
    kiosk.gate.put(&alice_everywhere("berlin").suspended());
    nothing_left(&kiosk.gate, &before, cut);
    eventually("the service's connection ends", SOON, || kiosk.source.all_ended());
    client.signal(Signal::CONT);
}

#[test]
fn invariant_2_cut_a_client_that_is_stopped() {
    cut_while(|client, _| client.stop(), &[]);
}

#[test]
fn invariant_2_cut_a_client_with_a_full_window() {
    cut_while(|_, tap| tap.hold_down(), &[]);
}

#[test]
fn invariant_2_cut_a_client_whose_line_went_dark_while_it_rekeyed_all_the_time() {
    cut_while(|_, tap| tap.black_hole(), &["-o", "RekeyLimit=64K"]);
}

/// A session of a peer that asks for new keys, reads these messages of the relay's in answer and then
/// leaves the relay waiting, cut.
fn cut_in_an_exchange(answers: &[u8]) {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let before = held(&kiosk.gate);
    let socket = std::net::TcpStream::connect(kiosk.gate.addr()).expect("a connection");
    let key = Key::read(&kiosk.gate.key("alice").path);
    let hand = Hand::new(socket, Offer::default()).and_then(|hand| hand.log_in("alice", &key));
    let mut hand = hand.expect("a login");
    let mut open = Vec::new();
    let mut w = Writer::new(&mut open);
    w.u8(number::CHANNEL_OPEN).string("direct-tcpip").u32(0).u32(1 << 20).u32(1 << 15);
    w.string("kiosk-17").u32(514).string("127.0.0.1").u32(1);
    hand.say(&open).expect("a request");
    let opened = hand.next(&[number::CHANNEL_OPEN_CONFIRMATION]).expect("a channel");
    let mut data = vec![number::CHANNEL_DATA];
    Writer::new(&mut data).bytes(&opened[5..9]).string("x");
    hand.say(&data).expect("an open channel");
    eventually("the session is open", SOON, || kiosk.sink.bytes() == 1);

    // The login's own exchange was seen, too.
    hand.client.seen.clear();
    hand.client.begin();
    for answer in answers {
        hand.flush().expect("a message of the exchange");
        // A turn sends nothing: what the client has to say next stays with it.
        eventually(&format!("the relay is in the exchange: message {answer}"), SOON, || {
            hand.turn(Duration::from_millis(10)).expect("an open connection");
            hand.client.seen.contains(answer)
        });
    }
    // The message that the relay waits for is thrown away.
    assert!(!hand.client.take().is_empty(), "the relay waits for nothing");
    let cut = Instant::now();
    kiosk.gate.put(&alice_everywhere("berlin").suspended());
    let parting = hand.parting(SOON);
    let told = cut.elapsed();
    assert!(hand.is_closed(SOON), "the socket stayed open");
    let socket = cut.elapsed();
    let Parting::Told { code: 11, text } = &parting else { panic!("{parting:?}") };
    assert!(text.contains("berlin"), "{text}");
    assert!(socket <= ON_TIME, "the socket was closed {socket:?} after the cut");
    // Though the peer does not close its end.
    nothing_left(&kiosk.gate, &before, cut);
    eventually("the service's connection ends", SOON, || kiosk.sink.all_ended());
    assert_eq!(kiosk.sink.bytes(), 1);
    println!("cut after message {answers:?}: told +{told:?}, socket +{socket:?}: {text}");
}

#[test]
fn invariant_2_cut_in_the_middle_of_a_rekey() {
    // The relay waits for the peer's share, and seals no data meanwhile.
    cut_in_an_exchange(&[number::KEXINIT]);
}

#[test]
fn invariant_2_cut_at_the_end_of_a_rekey() {
    // The relay has new keys, and waits for the peer's NEWKEYS.
    cut_in_an_exchange(&[number::KEXINIT, number::NEWKEYS]);
}

#[test]
fn invariant_2_the_terminal_is_told_when_its_session_is_cut() {
    // The other direction: bytes that the staff client still sends reach nobody.
    let kiosk = Kiosk::open(&[]);
    let closes = kiosk.open_for(7);
    let _stream = Stream::start(&kiosk);
    eventually("the service's connection ends", SOON, || kiosk.sink.all_ended());
    let seen = kiosk.sink.served().pop().expect("a connection");
    let end = after(monotonic(closes), seen.ended.expect("an end"));
    assert!(end <= ON_TIME, "the terminal's service saw the end {end:?} after closes");
}
