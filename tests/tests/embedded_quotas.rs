//! Rates and places of one source, one connection and one key (invariant 8): whoever goes beyond them
//! is told so, others do not feel it, and the trail has a line for many. docs/quotas.md lists them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::Value;
use tidegate_ssh_client::{Client, Key, Offer};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, eventually};

const DISCONNECT: u8 = 1;
const AUTH_FAILURE: u8 = 51;
const AUTH_SUCCESS: u8 = 52;
const OPEN_CONFIRMATION: u8 = 91;
const OPEN_FAILURE: u8 = 92;

/// A connection from a chosen loopback address.
fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0)).expect("a loopback address");
    connect(&socket, &to).expect("a connection");
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket
}

/// All that a peer which says no more than its version line is told, until it is closed or waited for.
fn greeted(source: Ipv4Addr, gate: &Gate) -> TcpStream {
    let mut peer = from(source, gate.addr());
    peer.write_all(b"SSH-2.0-flood\r\n").expect("a write");
    peer
}

/// A client that drives `tidegate_ssh_client` by hand.
struct Hand {
    socket: TcpStream,
    client: Client,
    seen: usize,
    over: bool,
}

impl Hand {
    fn new(source: Ipv4Addr, gate: &Gate) -> Self {
        let client = Client::new(Offer::default());
        let mut hand = Self { socket: from(source, gate.addr()), client, seen: 0, over: false };
        while !hand.client.is_open() && !hand.over {
            hand.turn();
        }
        // SERVICE_REQUEST (RFC 4253 section 10).
        hand.client.say(b"\x05\0\0\0\x0cssh-userauth");
        hand
    }

    /// Sends what waits, and takes what comes next.
    fn turn(&mut self) {
        self.flush();
        let mut bytes = vec![0; 64 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(count) if count > 0 => self.client.receive(&bytes[..count]),
            _ => self.over = true,
        }
    }

    fn flush(&mut self) {
        let bytes = self.client.take();
        self.over |= self.socket.write_all(&bytes).is_err();
    }

    /// The next message that is one of `kinds`; `None` once the connection is over.
    fn next(&mut self, kinds: &[u8]) -> Option<Vec<u8>> {
        loop {
            while let Some(message) = self.client.got.get(self.seen).cloned() {
                self.seen += 1;
                if kinds.contains(&message[0]) {
                    return Some(message);
                }
            }
            if self.over {
                return None;
            }
            self.turn();
        }
    }

    fn login(mut self, user: &str, key: &Key) -> Self {
        let session = self.client.session.expect("a session");
        self.client.say(&key.request(user, Some(&session), None));
        self.next(&[AUTH_SUCCESS]).expect("a login");
        self
    }
}

fn says(message: &[u8], words: &str) -> bool {
    String::from_utf8_lossy(message).contains(words)
}

fn aggregated<'a>(lines: &'a [Value], code: &str) -> Vec<&'a Value> {
    let of = |line: &&Value| line["event"] == "DenyAggregate" && line["reason"]["code"] == code;
    lines.iter().filter(of).collect()
}

fn count(lines: &[&Value]) -> u64 {
    lines.iter().filter_map(|line| line["count"].as_u64()).sum()
}

fn unproven(gate: &Gate, why: &str) -> f64 {
    let name = format!("tidegate_unproven_total{{reason=\"{why}\"}}");
    metric(gate.admin, &name).unwrap_or_default()
}

#[test]
fn a_source_begins_so_many_key_exchanges_and_others_do_not_feel_it() {
    const FLOOD: usize = 300;
    let mut kiosk = Kiosk::with(|setup| {
        setup
            .relay_spec("  limits: {perSource: 1024, handshakesPerSource: 4}\n")
            .window(alice_everywhere("berlin"))
    });
    let flood = Ipv4Addr::new(127, 7, 0, 1);
    let begun = Instant::now();
    let peers: Vec<_> = (0..FLOOD).map(|_| greeted(flood, &kiosk.gate)).collect();
    eventually("all were looked at", SOON, || {
        let tables = metric(kiosk.gate.admin, "tidegate_sources{table=\"exchanges\"}");
        let open = metric(kiosk.gate.admin, "tidegate_connections_unauthenticated");
        let over = unproven(&kiosk.gate, "TooManyHandshakes");
        // Each of the others is one of the burst, or of the seconds since.
        tables >= Some(1.0) && open.is_some_and(|open| open + over >= 299.0)
    });
    let seconds = begun.elapsed().as_secs_f64();
    let away = unproven(&kiosk.gate, "TooManyHandshakes");
    let within = 32.0 + 4.0 * seconds + 1.0;
    assert!(away >= 300.0 - within && away <= 300.0 - 32.0, "{away} after {seconds} s");
    // From elsewhere a login is what it always is.
    kiosk.gate.staff("alice").view(&["whoami"]).ok();
    // Who is too many is told so in clear, and no key was exchanged.
    let told = peers.into_iter().rev().find_map(|mut peer| {
        peer.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let mut told = Vec::new();
        let _ = peer.read_to_end(&mut told);
        says(&told, "too many connections begin at once from your network").then_some(told)
    });
    let told = told.expect("one that was told");
    assert!(told.starts_with(b"SSH-2.0-") && told.len() < 2000, "{} bytes", told.len());
    kiosk.gate.stop();
    let lines = kiosk.gate.audit();
    let over = aggregated(&lines, "TooManyHandshakes");
    assert!((1..=3).contains(&over.len()), "{over:?}");
    assert!(over.iter().all(|line| line["sourceAddress"] == "127.7.0.0/24"), "{over:?}");
    assert!((f64::from(u32::try_from(count(&over)).expect("few")) - away).abs() < 1.0);
}

#[test]
fn a_hundred_terminals_behind_one_address_dial_again_at_once() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let site = Ipv4Addr::new(127, 8, 0, 1);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            std::thread::spawn({
                let to = kiosk.gate.addr();
                move || {
                    let mut socket = from(site, to);
                    let mut client = Client::new(Offer::default());
                    let mut bytes = [0; 4096];
                    while !client.is_open() {
                        socket.write_all(&client.take()).expect("a write");
                        let count = socket.read(&mut bytes).expect("a key exchange");
                        assert!(count > 0, "closed");
                        client.receive(&bytes[..count]);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("keys");
    }
    assert!(unproven(&kiosk.gate, "TooManyHandshakes") < 1.0);
}

#[test]
fn ten_thousand_key_probes_are_not_answered_and_known_keys_are() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let begun = Instant::now();
    let (mut answered, mut told, mut next) = (0_u32, 0_u32, 0_u32);
    'probes: for _ in 0..500 {
        let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate);
        for _ in 0..20 {
            next += 1;
            hand.client.say(&Key::numbered(next).request("alice", None, None));
            match hand.next(&[AUTH_FAILURE, DISCONNECT]) {
                Some(message) if message[0] == AUTH_FAILURE => answered += 1,
                Some(message) => {
                    assert!(says(&message, "too many unknown keys"), "{message:?}");
                    told += 1;
                    if told > 30 {
                        break 'probes;
                    }
                    break;
                }
                None => break,
            }
        }
    }
    let most = 1000 + 100 * (begun.elapsed().as_secs() + 1);
    println!("{answered} probes were answered in {:?}, then {told} were not", begun.elapsed());
    assert!(told > 30, "nobody was sent away");
    assert!(answered >= 1000 && u64::from(answered) <= most, "{answered} of at most {most}");
    // Behind the same address, with a key that somebody has.
    kiosk.gate.staff("alice").view(&["whoami"]).ok();
    kiosk.gate.stop();
    let lines = kiosk.gate.audit();
    let over = aggregated(&lines, "TooManyKeyProbes");
    assert!(!over.is_empty() && over.len() <= 3, "{over:?}");
    assert!(count(&over) > 30);
}

#[test]
fn ten_thousand_opens_are_refused_and_their_connection_closed() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let mut echo = kiosk.gate.staff("bob").w("kiosk-17", 443);
    echo.write(b"x").expect("an open channel");
    echo.await_bytes(1, SOON);
    let key = Key::read(&kiosk.gate.key("alice").path);
    let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate).login("alice", &key);
    for number in 0..10_000_u32 {
        let mut open = vec![90];
        open.extend(12_u32.to_be_bytes());
        open.extend(b"direct-tcpip");
        for word in [number, 1 << 16, 1 << 15] {
            open.extend(word.to_be_bytes());
        }
        open.extend(8_u32.to_be_bytes());
        open.extend(b"kiosk-17");
        open.extend(443_u32.to_be_bytes());
        open.extend(9_u32.to_be_bytes());
        open.extend(b"127.0.0.1");
        open.extend(1_u32.to_be_bytes());
        hand.client.say(&open);
    }
    hand.flush();
    hand.over = false;
    let (mut fast, mut others) = (0, 0);
    let goodbye = loop {
        match hand.next(&[DISCONNECT, OPEN_CONFIRMATION, OPEN_FAILURE]) {
            None => break None,
            Some(message) if message[0] == DISCONNECT => break Some(message),
            Some(message) if says(&message, "opened too fast") => {
                // The code, behind the number of the channel.
                assert_eq!(message[5..9], 4_u32.to_be_bytes());
                fast += 1;
            }
            Some(_) => others += 1,
        }
    };
    println!("{others} opens were looked at, {fast} refused as too fast");
    assert!((1..=256).contains(&fast) && others <= 300, "{fast} {others}");
    if let Some(goodbye) = goodbye {
        assert!(says(&goodbye, "opened too fast"), "{goodbye:?}");
    }
    let counted = metric(kiosk.gate.admin, "tidegate_opens_too_fast_total").unwrap_or_default();
    assert!(counted >= 256.0, "{counted}");
    // One line says it, or two.
    eventually("it is in the audit", SOON, || {
        let lines = kiosk.gate.audit();
        let of = |line: &&Value| line["reason"]["code"] == "TooManyOpens";
        let lines: Vec<_> = lines.iter().filter(of).collect();
        !lines.is_empty() && lines.len() <= 3
    });
    echo.write(b"x").expect("an open channel");
    echo.await_bytes(2, SOON);
}

#[test]
fn a_key_that_is_barred_has_four_connections_and_the_fifth_is_closed_at_once() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.user("alice").suspended();
    kiosk.gate.put_user(alice);
    eventually("alice is suspended", SOON, || {
        kiosk.gate.staff("alice").view(&["whoami"]).stderr.contains("suspended")
    });
    let barred = || metric(kiosk.gate.admin, "tidegate_barred").unwrap_or_default();
    eventually("nobody is at the door", SOON, || barred() < 1.0);
    let alice = kiosk.gate.staff("alice");
    let first: Vec<_> =
        (0..4).map(|n| Proc::start(format!("barred {n}"), &mut alice.relay(&["-N"]))).collect();
    eventually("four are at the door", SOON, || barred() > 3.0);
    let begun = Instant::now();
    let fifth = Proc::start("fifth", &mut alice.relay(&["-N"])).exit(SOON);
    assert_ne!(fifth.code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(first.iter().all(Proc::is_running), "the first stay");
    assert_eq!(metric(kiosk.gate.admin, "tidegate_barred_turned_away_total"), Some(1.0));
    drop(first);
    eventually("the places are given back", SOON, || barred() < 1.0);
}
