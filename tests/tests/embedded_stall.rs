//! A reader that stands still holds up nobody else (DESIGN.md section 6, flow): its own channel waits,
//! within the window that its sender was given.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate_tests::clock::in_turn;
use tidegate_tests::disk::{random_file, sha256};
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::{Kiosk, Proc, SOON, Staff, eventually, ports};

/// By how much a neighbour may be slower than with nobody else there.
const NOTICED: Duration = Duration::from_millis(100);
/// Round trips that are measured, of which the slowest third does not count: the machine has other
/// things to do, too.
const ROUNDS: usize = 15;
/// What counts, in percent.
const COUNTED: usize = 67;
const FILE: u64 = 48 << 20;

/// Waits until `bytes` has not changed for half a second.
fn still(what: &str, bytes: impl Fn() -> u64) {
    let mut last = (bytes(), Instant::now());
    eventually(what, SOON, || {
        let now = bytes();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    });
}

/// A session of bob's.
struct Bobs {
    echo: Proc,
    seen: u64,
    bob: Staff,
}

impl Bobs {
    fn begin(kiosk: &Kiosk) -> Self {
        let bob = kiosk.gate.staff("bob");
        let mut begun = Self { echo: bob.w("kiosk-17", 443), seen: 0, bob };
        begun.trip();
        begun
    }

    /// A byte that comes back.
    fn trip(&mut self) {
        self.echo.write(b"x").expect("an open channel");
        self.seen += 1;
        self.echo.await_bytes(self.seen, SOON);
    }

    /// The same on a connection of its own.
    fn open(&self) {
        let mut channel = self.bob.w("kiosk-17", 443);
        channel.write(b"x").expect("an open channel");
        channel.await_bytes(1, SOON);
    }
}

#[test]
fn a_stopped_client_in_a_download_holds_up_no_other_session() {
    // Two, with a download in the one alone.
    let [kiosk, quiet] =
        ["berlin", "rome"].map(|name| Kiosk::open(&[alice_everywhere(name).user("bob")]));
    let file = kiosk.gate.dir().join("file");
    random_file(&file, FILE);
    let (mut beside, mut alone) = (Bobs::begin(&kiosk), Bobs::begin(&quiet));

    let cat = format!("cat {}", file.display());
    let alice = kiosk.gate.staff("alice");
    let download = Proc::start("download", &mut alice.shell("kiosk-17", &[&cat]));
    download.await_bytes(1 << 20, SOON);
    download.signal_group(Signal::STOP);
    let session = || {
        let sessions = kiosk.gate.sessions();
        let of_alice = sessions.iter().find(|it| it["user"] == "alice");
        of_alice.and_then(|it| it["bytesOut"].as_u64()).unwrap_or(0)
    };
    still("nothing more goes to the stopped client", session);
    let [took, idle] = in_turn(ROUNDS, COUNTED, [&mut || beside.trip(), &mut || alone.trip()]);
    assert!(took < idle + NOTICED, "an echo took {took:?}, and {idle:?} alone");
    let [took, idle] = in_turn(ROUNDS, COUNTED, [&mut || beside.open(), &mut || alone.open()]);
    assert!(took < idle + NOTICED, "an open took {took:?}, and {idle:?} alone");

    download.signal_group(Signal::CONT);
    let exit = download.exit(Duration::from_mins(2));
    assert_eq!(exit.code, Some(0), "{}", download.stderr());
    let got = download.with_out(tidegate_tests::process::Stream::sha256);
    assert_eq!(got, sha256(&file));
}

/// Resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn a_thousand_stalled_channels_keep_no_more_than_their_windows() {
    /// What the relay gives a channel at first.
    const WINDOW: u64 = 64 << 10;
    const EACH: usize = 300 << 10;
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    // 256 channels are the most on one connection.
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let port = ports::free();
            let forward = format!("{port}:kiosk-17:514");
            let client = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
            client.await_stderr("Entering interactive session", SOON);
            (client, port)
        })
        .collect();
    let mut sockets = Vec::new();
    for (_, port) in &clients {
        for _ in 0..250 {
            sockets.push(TcpStream::connect(("127.0.0.1", *port)).expect("the forward"));
            // The client's backlog is short.
            let opened = sockets.len();
            eventually("it is open", SOON, || kiosk.sink.served().len() + 8 > opened);
        }
    }
    eventually("all are open", SOON, || kiosk.sink.served().len() == 1000);
    let terminal = kiosk.client.as_ref().expect("the terminal's client");
    terminal.stop();
    let relay = kiosk.gate.relay().pid();
    let before = resident(relay);
    let writers: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || socket.write_all(&vec![b'z'; EACH]).map(|()| socket))
                .expect("a thread")
        })
        .collect();
    let grown = || resident(relay).saturating_sub(before);
    eventually("much waits in the relay", Duration::from_mins(1), || grown() > 32 << 20);
    still("the windows are full", || resident(relay));
    let grown = grown();
    // A queue that grows by doubling may have twice what is in it.
    assert!(grown < 2 * 1000 * WINDOW, "{} MiB for 1000 windows", grown >> 20);
    terminal.signal(Signal::CONT);
    let sockets: Vec<_> =
        writers.into_iter().map(|it| it.join().expect("a writer").expect("a write")).collect();
    let all = (1000 * EACH) as u64;
    eventually("every byte has arrived", Duration::from_mins(2), || kiosk.sink.bytes() == all);
    drop(sockets);
}
