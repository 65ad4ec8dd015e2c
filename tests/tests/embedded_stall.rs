//! A reader that stands still holds up nobody else (DESIGN.md section 6, flow): its own channel waits,
//! within the window that its sender was given.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate_tests::disk::sha256;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::{Kiosk, Proc, SOON, eventually, ports};

/// By how much a neighbour may be slower than with nobody else there.
const NOTICED: Duration = Duration::from_millis(100);
/// Round trips that are measured, of which the slowest third does not count: the machine has other
/// things to do, too.
const ROUNDS: usize = 15;
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

/// The time that two of three of `acts` take at most.
fn usual(mut act: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            act();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS * 2 / 3]
}

/// How long an echo takes on a session of bob's, and how long a new channel.
fn measure(kiosk: &Kiosk, echo: &mut Proc, seen: &mut u64) -> (Duration, Duration) {
    let trip = usual(|| {
        echo.write(b"x").expect("an open channel");
        *seen += 1;
        echo.await_bytes(*seen, SOON);
    });
    let bob = kiosk.gate.staff("bob");
    let open = usual(|| {
        let mut channel = bob.w("kiosk-17", 443);
        channel.write(b"x").expect("an open channel");
        channel.await_bytes(1, SOON);
    });
    (trip, open)
}

#[test]
fn a_stopped_client_in_a_download_holds_up_no_other_session() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let file = kiosk.gate.dir().join("file");
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom").expect("it"), FILE);
    std::io::copy(&mut random, &mut std::fs::File::create(&file).expect("a file")).expect("a copy");
    let mut echo = kiosk.gate.staff("bob").w("kiosk-17", 443);
    let mut seen = 0;
    let idle = measure(&kiosk, &mut echo, &mut seen);

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
    let beside = measure(&kiosk, &mut echo, &mut seen);
    assert!(beside.0 < idle.0 + NOTICED, "an echo took {:?}, and {:?} alone", beside.0, idle.0);
    assert!(beside.1 < idle.1 + NOTICED, "an open took {:?}, and {:?} alone", beside.1, idle.1);

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
