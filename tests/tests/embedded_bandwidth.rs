//! `bandwidthPerSession`: a session is held to it, each way, smoothly and without the loss of a byte;
//! a neighbour on the same connection of the terminal does not feel it, and no new channel gets round it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tidegate_ssh_client::Key;
use tidegate_tests::clock::in_turn;
use tidegate_tests::disk::{random_file, sha256};
use tidegate_tests::hand::{DISCONNECT, Hand, OPEN_CONFIRMATION, OPEN_FAILURE};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::{Kiosk, Proc, SOON};

const RATE: u32 = 2 << 20;
const FILE: u32 = 12 << 20;
const AMPLE: Duration = Duration::from_mins(2);

fn kiosk(limits: &str) -> Kiosk {
    let limits = format!("  limits: {limits}\n");
    Kiosk::with(|setup| setup.relay_spec(&limits).window(alice_everywhere("berlin").user("bob")))
}

fn file(kiosk: &Kiosk) -> std::path::PathBuf {
    let file = kiosk.gate.dir().join("file");
    random_file(&file, u64::from(FILE));
    file
}

/// A session of bob's that echoes.
fn echo(kiosk: &Kiosk) -> impl FnMut() {
    let mut echo = kiosk.gate.staff("bob").w("kiosk-17", 443);
    let mut seen = 0;
    move || {
        echo.write(b"x").expect("an open channel");
        seen += 1;
        echo.await_bytes(seen, SOON);
    }
}

/// Bytes out of all sessions, as the relay counted them between two instants.
struct Out {
    bytes: f64,
    from: Instant,
    to: Instant,
}

impl Out {
    fn now(kiosk: &Kiosk) -> Self {
        let from = Instant::now();
        let bytes = metric(kiosk.gate.admin, "tidegate_session_bytes_total{direction=\"out\"}");
        Self { bytes: bytes.expect("a count"), from, to: Instant::now() }
    }

    /// Percent of the rate since `before`, at the least and at the most.
    fn percent(&self, before: &Self) -> (f64, f64) {
        let of = |time: Duration| {
            (self.bytes - before.bytes) / f64::from(RATE) / time.as_secs_f64() * 100.0
        };
        (of(self.to - before.from), of(self.from - before.to))
    }
}

#[test]
fn a_session_is_held_to_its_bandwidth_and_a_neighbour_does_not_feel_it() {
    let kiosk = kiosk("{bandwidthPerSession: 2Mi}");
    let file = file(&kiosk);
    // A second one has nothing else to do.
    let quiet = self::kiosk("{bandwidthPerSession: 2Mi}");
    let (mut beside, mut alone) = (echo(&kiosk), echo(&quiet));
    beside();
    alone();

    let cat = format!("cat {}", file.display());
    let alice = kiosk.gate.staff("alice");
    let download = Proc::start("download", &mut alice.shell("kiosk-17", &[&cat]));
    // Behind what its windows let through at once.
    download.await_bytes(1 << 20, SOON);
    let before = Out::now(&kiosk);
    // Nine of ten.
    let [beside, idle] = in_turn(40, 90, [&mut beside, &mut alone]);
    let mut burst: f64 = 0.0;
    let mut last = Out::now(&kiosk);
    while before.from.elapsed() < Duration::from_secs(4) {
        std::thread::sleep(Duration::from_millis(200));
        let now = Out::now(&kiosk);
        (burst, last) = (burst.max(now.percent(&last).0), now);
    }
    let (least, most) = last.percent(&before);
    println!(
        "{least:.0} to {most:.0} % of the rate, {burst:.0} % in the fullest 200 ms; an echo beside it \
         took {beside:?}, {idle:?} alone"
    );
    assert!(most >= 85.0 && least <= 110.0, "{least} to {most} % of the rate");
    assert!(burst <= 250.0, "{burst} % of the rate within 200 ms");
    assert!(beside < idle + Duration::from_millis(100), "{beside:?}, and {idle:?} alone");
    download.exit(AMPLE);
    let got = download.with_out(tidegate_tests::process::Stream::sha256);
    assert_eq!(got, sha256(&file));
    let held = "tidegate_session_bytes_held_back_total{direction=\"out\"}";
    let held = metric(kiosk.gate.admin, held).unwrap_or_default();
    assert!(held > f64::from(1 << 20), "{held} bytes were held back");
}

#[test]
fn without_the_limit_a_session_is_as_fast_as_it_can_be() {
    let kiosk = kiosk("{sessionsPerUser: 8}");
    let file = file(&kiosk);
    let alice = kiosk.gate.staff("alice");
    let cat = format!("cat {}", file.display());
    // One of three: whatever else the machine does makes them slower.
    let fast = (0..3).any(|_| {
        let begun = Instant::now();
        let download = Proc::start("download", &mut alice.shell("kiosk-17", &[&cat]));
        assert_eq!(download.exit(AMPLE).code, Some(0), "{}", download.stderr());
        let took = begun.elapsed();
        println!("without the limit: {took:?}");
        took < Duration::from_secs(u64::from(FILE / RATE))
    });
    assert!(fast, "none was faster than with the limit");
    let held = "tidegate_session_bytes_held_back_total{direction=\"out\"}";
    assert_eq!(metric(kiosk.gate.admin, held), Some(0.0));
}

/// A number as SSH has it.
fn word(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&word(u32::try_from(bytes.len()).expect("short")), bytes].concat()
}

/// Carries one window's bytes there and back on a channel of its own.
fn one_window(hand: &mut Hand, number: u32) {
    const WINDOW: usize = 64 << 10;
    let to = [text(b"kiosk-17"), word(443).to_vec(), text(b"127.0.0.1"), word(1).to_vec()].concat();
    let sizes = [word(number), word(1 << 20), word(32 << 10)].concat();
    hand.client.say(&[&[90][..], &text(b"direct-tcpip"), &sizes, &to].concat());
    let told = hand.next(&[OPEN_CONFIRMATION, OPEN_FAILURE, DISCONNECT]).expect("an answer");
    assert_eq!(told[0], OPEN_CONFIRMATION, "{}", String::from_utf8_lossy(&told));
    assert_eq!(told[9..13], word(64 << 10), "the first window");
    let remote = &told[5..9];
    for _ in 0..2 {
        hand.client.say(&[&[94], remote, &text(&vec![b'x'; WINDOW / 2])].concat());
    }
    let mut back = 0;
    while back < WINDOW {
        let data = hand.next(&[94, 97]).expect("an echo");
        assert_eq!(data[0], 94, "closed");
        back += data.len() - 9;
    }
    hand.client.say(&[&[97], remote].concat());
}

#[test]
fn channels_one_after_the_other_are_held_to_it_in_sum() {
    const CHANNELS: u32 = 17;
    let kiosk = kiosk("{bandwidthPerSession: 256Ki}");
    let key = Key::read(&kiosk.gate.key("alice").path);
    let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate).login("alice", &key);
    let begun = Instant::now();
    for number in 0..CHANNELS {
        one_window(&mut hand, number);
    }
    // The last needs not have taken its time, nor what comes at once.
    let took = begun.elapsed();
    println!("{CHANNELS} windows of 64 KiB took {took:?}");
    assert!(took > Duration::from_millis(3500), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
