//! Rates and places of one source, one connection and one key (invariant 8): whoever goes beyond them
//! is told so, others do not feel it, and the trail has a line for many. docs/quotas.md lists them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_ssh_client::{Client, Key, Offer};
use tidegate_tests::clients::Program;
use tidegate_tests::hand::{
    AUTH_FAILURE, AUTH_PK_OK, AUTH_SUCCESS, DISCONNECT, Hand, OPEN_CONFIRMATION, OPEN_FAILURE,
    connect_from,
};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, eventually};

/// All that a peer which says no more than its version line is told, until it is closed or waited for.
fn greeted(source: Ipv4Addr, gate: &Gate) -> TcpStream {
    let mut peer = connect_from(source, gate.addr());
    peer.write_all(b"SSH-2.0-flood\r\n").expect("a write");
    peer
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
    // Each of the others is one of the burst, or of the seconds since: one address has three quarters.
    let least = || 300.0 - (24.0 + 3.0 * begun.elapsed().as_secs_f64() + 1.0);
    eventually("all were looked at", SOON, || {
        unproven(&kiosk.gate, "TooManyHandshakes") >= least()
    });
    let tables = metric(kiosk.gate.admin, "tidegate_sources{table=\"exchanges\"}");
    assert!(tables >= Some(1.0), "{tables:?}");
    let away = unproven(&kiosk.gate, "TooManyHandshakes");
    assert!(away <= 300.0 - 24.0, "{away}");
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
    let written = f64::from(u32::try_from(count(&over)).expect("few"));
    assert!(written >= away && written <= 300.0 - 24.0, "{written} of {away}");
}

#[test]
fn next_door_to_a_flood_a_login_is_what_it_always_is() {
    let kiosk = Kiosk::with(|setup| {
        setup
            .relay_spec("  limits: {perSource: 1024, handshakesPerSource: 4}\n")
            .window(alice_everywhere("berlin"))
    });
    let key = Key::read(&kiosk.gate.key("alice").path);
    let (over, gate) = (AtomicBool::new(false), &kiosk.gate);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(greeted(Ipv4Addr::new(127, 7, 0, 1), gate));
            }
        });
        let more = |than: f64| unproven(gate, "TooManyHandshakes") > than;
        eventually("it is over its rate", SOON, || more(100.0));
        let next_door: Vec<_> = (2..6)
            .map(|n| Hand::new(Ipv4Addr::new(127, 7, 0, n), gate))
            .map(|mut hand| {
                // Where it was sent away no key was exchanged.
                let session = hand.client.session?;
                hand.client.say(&key.request("alice", Some(&session), None));
                hand.next(&[AUTH_SUCCESS, DISCONNECT])
            })
            .collect();
        let so_far = unproven(gate, "TooManyHandshakes");
        eventually("it goes on", SOON, || more(so_far));
        over.store(true, Ordering::Relaxed);
        flood.join().expect("a flood");
        for told in next_door {
            assert_eq!(told.and_then(|told| told.first().copied()), Some(AUTH_SUCCESS));
        }
    });
}

/// The alert access_denied (RFC 8446 section 6).
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What `openssl s_client` says first.
fn client_hello() -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("its address").to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-servername", "relay.example.com", "-connect", &address]);
    let _openssl = Proc::start("openssl s_client", &mut openssl);
    let mut accepted = None;
    eventually("openssl connects", SOON, || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (mut socket, _) = accepted.expect("it has");
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut hello = vec![0; 5];
    socket.read_exact(&mut hello).expect("a record");
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + length, 0);
    socket.read_exact(&mut hello[5..]).expect("its rest");
    hello
}

/// The beginning of the answer, which is long enough to know it, and all of one that is an alert.
fn answer(peer: &mut TcpStream) -> Vec<u8> {
    let mut told = [0; 7];
    peer.read_exact(&mut told).expect("an answer");
    if told[0] == 21 {
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
        return [&told[..], &rest].concat();
    }
    told.to_vec()
}

#[test]
fn a_flood_of_tls_costs_places_of_the_same_rate_and_is_told_by_an_alert() {
    const FLOOD: u32 = 100;
    let mut kiosk = Kiosk::with(|setup| {
        setup
            .relay_spec("  limits: {perSource: 1024, handshakesPerSource: 4}\n")
            .window(alice_everywhere("berlin"))
    });
    let hello = client_hello();
    let flood = Ipv4Addr::new(127, 7, 0, 1);
    let begun = Instant::now();
    let mut peers: Vec<_> = (0..FLOOD)
        .map(|_| {
            let mut peer = connect_from(flood, kiosk.gate.addr());
            peer.write_all(&hello).expect("a write");
            peer
        })
        .collect();
    let answers: Vec<_> = peers.iter_mut().map(answer).collect();
    let within = 24.0 + 3.0 * begun.elapsed().as_secs_f64() + 1.0;
    let away = answers.iter().filter(|told| **told == ACCESS_DENIED).count();
    let away = f64::from(u32::try_from(away).expect("few"));
    let served = answers.iter().filter(|told| told[0] == 22).count();
    let served = f64::from(u32::try_from(served).expect("few"));
    assert!((away + served - f64::from(FLOOD)).abs() < 0.5, "{answers:?}");
    assert!((24.0..=within).contains(&served), "{served} of at most {within}");
    eventually("they are counted", SOON, || unproven(&kiosk.gate, "TooManyHandshakes") >= away);
    // SSH of the same source is over its rate, too; from elsewhere a login is what it always is.
    kiosk.gate.staff("alice").view(&["whoami"]).ok();
    drop(peers);
    kiosk.gate.stop();
    let lines = kiosk.gate.audit();
    let over = aggregated(&lines, "TooManyHandshakes");
    assert!((1..=3).contains(&over.len()), "{over:?}");
    assert!(over.iter().all(|line| line["sourceAddress"] == "127.7.0.0/24"), "{over:?}");
    assert!((f64::from(u32::try_from(count(&over)).expect("few")) - away).abs() < 0.5);
}

/// A connection of a declared proxy's that says who is behind it, and what that one says first.
fn behind_proxy(gate: &Gate, source: &str, first: &[u8]) -> TcpStream {
    let mut peer = connect_from(Ipv4Addr::new(127, 0, 9, 1), gate.addr());
    let header = format!("PROXY TCP4 {source} 127.0.0.1 4000 80\r\n");
    peer.write_all(&[header.as_bytes(), first].concat()).expect("a write");
    peer
}

#[test]
fn who_is_behind_a_proxy_has_the_rate_of_its_own_network() {
    let mut kiosk = Kiosk::detached(|setup| {
        setup.relay_spec(
            "  limits: {perSource: 16, handshakesPerSource: 1}\n  \
             exposure: {type: NodePort, proxyProtocol: {from: [127.0.9.0/24]}}\n",
        )
    });
    let hello = client_hello();
    let begun = Instant::now();
    let mut told = [0, 0];
    for n in 0..40 {
        let source = format!("192.0.2.{n}");
        if n % 2 == 0 {
            let mut peer = behind_proxy(&kiosk.gate, &source, &hello);
            told[0] += u64::from(answer(&mut peer) == ACCESS_DENIED);
        } else {
            // It ends with the first keys where it is served.
            let mut hand = Hand::on(behind_proxy(&kiosk.gate, &source, b""));
            let goodbye = hand.over.then(|| hand.next(&[DISCONNECT]).expect("a goodbye"));
            let words = "too many connections begin at once";
            told[1] += u64::from(goodbye.is_some_and(|goodbye| says(&goodbye, words)));
        }
    }
    let within = 8 + begun.elapsed().as_secs() + 1;
    assert!(told[0] > 0 && told[1] > 0, "{told:?}");
    let away = told[0] + told[1];
    assert!(away <= 32 && away + within >= 40, "{away} of 40 were told, {within} may begin");
    // By the same proxy from another network.
    for n in 0..4 {
        let mut hand = Hand::on(behind_proxy(&kiosk.gate, &format!("198.51.100.{n}"), b""));
        hand.client.say(&Key::numbered(n).request("alice", None, None));
        assert_eq!(hand.next(&[AUTH_FAILURE, DISCONNECT]).expect("an answer")[0], AUTH_FAILURE);
    }
    kiosk.gate.stop();
    let lines = kiosk.gate.audit();
    let over = aggregated(&lines, "TooManyHandshakes");
    assert!(over.iter().all(|line| line["sourceAddress"] == "192.0.2.0/24"), "{over:?}");
    assert_eq!(count(&over), away);
    let unknown = aggregated(&lines, "UnknownKey");
    let of_theirs = unknown.iter().filter(|line| line["sourceAddress"] == "198.51.100.0/24");
    assert_eq!(count(&of_theirs.copied().collect::<Vec<_>>()), 4);
}

#[test]
fn key_exchanges_before_a_login_count_for_the_source() {
    let kiosk = Kiosk::detached(|setup| {
        setup.relay_spec("  limits: {perSource: 16, handshakesPerSource: 1}\n")
    });
    let begun = Instant::now();
    let mut exchanges = 0;
    let told = 'told: loop {
        let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate);
        // A connection may begin eight more.
        for _ in 0..8 {
            let before = hand.client.exchanges;
            hand.client.begin();
            while hand.client.exchanges == before && !hand.over {
                hand.turn();
            }
            if hand.over {
                break 'told hand.next(&[DISCONNECT]);
            }
        }
        exchanges += hand.client.exchanges;
        assert!(exchanges < 90, "nobody was sent away");
    };
    let within = 6 + begun.elapsed().as_secs() + 1;
    assert!(u64::try_from(exchanges).expect("few") <= within, "{exchanges} of at most {within}");
    let told = told.expect("a goodbye");
    assert!(says(&told, "too many connections begin at once from your network"), "{told:?}");
    eventually("it is counted", SOON, || unproven(&kiosk.gate, "TooManyHandshakes") > 0.0);
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
                    let mut socket = connect_from(site, to);
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
    let most = 750 + 75 * (begun.elapsed().as_secs() + 1);
    println!("{answered} probes were answered in {:?}, then {told} were not", begun.elapsed());
    assert!(told > 30, "nobody was sent away");
    assert!(answered >= 750 && u64::from(answered) <= most, "{answered} of at most {most}");
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
    eventually("they are counted", SOON, || {
        metric(kiosk.gate.admin, "tidegate_opens_too_fast_total") >= Some(256.0)
    });
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

#[test]
fn a_login_user_has_so_many_connections_and_the_next_is_told_why() {
    let mut kiosk = Kiosk::with(|setup| {
        setup
            .relay_spec("  limits: {connectionsPerUser: 3}\n")
            .window(alice_everywhere("berlin").user("bob"))
    });
    let alice = kiosk.gate.staff("alice");
    let mut held: Vec<_> =
        (0..3).map(|n| Proc::start(format!("held {n}"), &mut alice.relay(&["-N"]))).collect();
    let of_alice = |line: &&Value| line["event"] == "Login" && line["user"] == "alice";
    eventually("three are there", SOON, || kiosk.gate.audit().iter().filter(of_alice).count() == 3);
    for n in 0..5 {
        let next = Proc::start(format!("next {n}"), &mut alice.relay(&["-N"])).finish(SOON);
        let told = "alice has 3 connections open, which is the most a login user may have";
        assert!(next.code != Some(0) && next.stderr.contains(told), "{next:?}");
    }
    assert!(held.iter().all(Proc::is_running), "those that were there stay");
    kiosk.gate.staff("bob").view(&["whoami"]).ok();
    held.pop();
    eventually("its place is given back", SOON, || alice.view(&["whoami"]).code == Some(0));
    let denies = "tidegate_denies_total{reason=\"TooManyConnections\"}";
    let denied = metric(kiosk.gate.admin, denies).expect("a count");
    drop(held);
    kiosk.gate.stop();
    // The first has a line of its own; all others share one a minute.
    let lines = kiosk.gate.audit();
    let apart: Vec<_> =
        lines.iter().filter(of_alice).filter(|it| it["decision"] == "Deny").collect();
    let counted = aggregated(&lines, "TooManyConnections");
    assert!(apart.len() <= 2 && (1..=2).contains(&counted.len()), "{apart:?} {counted:?}");
    for line in &counted {
        assert_eq!(
            (&line["user"], &line["sourceAddress"]),
            (&"alice".into(), &"127.0.0.0/24".into())
        );
        assert_eq!(line["keyFingerprint"], apart[0]["keyFingerprint"]);
    }
    let all = u64::try_from(apart.len()).expect("few") + count(&counted);
    assert!(
        (f64::from(u32::try_from(all).expect("few")) - denied).abs() < 0.5,
        "{all} of {denied}"
    );
}

#[test]
fn a_barred_terminal_has_no_more_time_for_what_it_asks() {
    let mut kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let suspended = kiosk.gate.terminal("kiosk-17").suspended();
    kiosk.gate.put_terminal(suspended);
    let key = Key::read(&kiosk.gate.key("kiosk-17").path);
    eventually("the terminal is suspended", SOON, || {
        let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate).login("terminal", &key);
        hand.next(&[DISCONNECT]).is_some_and(|told| says(&told, "suspended"))
    });
    let mut hands = Vec::new();
    let away = || metric(kiosk.gate.admin, "tidegate_barred_turned_away_total");
    // Four have a place. Where logins take long the first give theirs back meanwhile, and it takes more.
    eventually("two are sent away", SOON, || {
        hands.push(Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate).login("terminal", &key));
        away() >= Some(2.0)
    });
    let begun = Instant::now();
    let asking: Vec<_> = hands
        .into_iter()
        .map(|mut hand| {
            std::thread::spawn(move || {
                while !hand.over {
                    hand.client.say(&forward("tcpip-forward", 20_017));
                    // REQUEST_FAILURE.
                    match hand.next(&[82, DISCONNECT]) {
                        Some(told) if told[0] == DISCONNECT => return says(&told, "suspended"),
                        _ => std::thread::sleep(Duration::from_millis(100)),
                    }
                }
                false
            })
        })
        .collect();
    assert!(asking.into_iter().all(|hand| hand.join().expect("an answer")), "all are told why");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[test]
fn a_terminal_has_so_many_connections_and_the_oldest_idle_one_gives_way() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let mut echo = kiosk.gate.staff("alice").w("kiosk-17", 443);
    echo.write(b"x").expect("an open channel");
    echo.await_bytes(1, SOON);
    let key = Key::read(&kiosk.gate.key("kiosk-17").path);
    // Twelve with its client, within the 2 s that an idle one has; then one more in the place of each.
    let flood = |gate: &Gate| {
        let login = || Hand::new(Ipv4Addr::LOCALHOST, gate).login("terminal", &key);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..8).map(|_| login()).collect())).collect();
            let hands = threads.into_iter().map(|thread| thread.join().expect("logins"));
            hands.flat_map(|hands: Vec<_>| hands).collect::<Vec<Hand>>()
        })
    };
    let told = |hand: &mut Hand| {
        let told = hand.next(&[DISCONNECT]).expect("a goodbye");
        let crowded = says(&told, "kiosk-17 has 12 connections open, one for each service");
        assert!(crowded || says(&told, "no service was offered"), "{told:?}");
        usize::from(crowded)
    };
    let gave_way: usize = flood(&kiosk.gate).iter_mut().map(told).sum();
    assert!((1..=32 - 11).contains(&gave_way), "{gave_way}");
    // The one that offers stays through it, and one that comes into the crowd takes over from it.
    let client = kiosk.client.as_ref().expect("a client");
    assert!(client.is_running(), "the terminal's client stays");
    echo.write(b"x").expect("an open channel");
    echo.await_bytes(2, SOON);
    let crowd = flood(&kiosk.gate);
    let newer = kiosk.gate.clients_of("kiosk-17").start(Program::OpenSsh, &kiosk.forwards());
    let older = kiosk.client.take().expect("a client").finish(SOON);
    assert!(older.stderr.contains("a newer connection of kiosk-17 has taken over"), "{older:?}");
    assert!(newer.is_running());
    drop(crowd);
    drop(newer);
    let denies = "tidegate_denies_total{reason=\"TooManyConnections\"}";
    let denied = metric(kiosk.gate.admin, denies).expect("a count");
    assert!(denied >= 1.0);
    kiosk.gate.stop();
    // The first has a line of its own; the others share one a minute.
    let lines = kiosk.gate.audit();
    let of = |line: &&Value| line["reason"]["code"] == "TooManyConnections";
    let lines: Vec<_> = lines.iter().filter(of).collect();
    assert!((1..=4).contains(&lines.len()), "{lines:?}");
    assert!(lines.iter().all(|line| line["terminal"] == "kiosk-17"), "{lines:?}");
}

#[test]
fn a_terminal_that_offers_and_takes_back_has_no_more_time_for_it() {
    let kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let key = Key::read(&kiosk.gate.key("kiosk-17").path);
    let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate).login("terminal", &key);
    let begun = Instant::now();
    let told = loop {
        for name in ["tcpip-forward", "cancel-tcpip-forward"] {
            hand.client.say(&forward(name, 20_017));
            // REQUEST_SUCCESS.
            match hand.next(&[81, DISCONNECT]) {
                Some(answer) if answer[0] == DISCONNECT => hand.over = true,
                Some(_) => {}
                None => hand.over = true,
            }
        }
        if hand.over {
            break true;
        }
        if begun.elapsed() > Duration::from_secs(15) {
            break false;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    assert!(told, "it is still there");
}

#[test]
fn a_terminal_that_offers_and_takes_back_without_end_is_sent_away() {
    let kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let key = Key::read(&kiosk.gate.key("kiosk-17").path);
    let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate).login("terminal", &key);
    // 255 of 256 at once, and in one go: 2 s after the login it has to offer something.
    for turn in 0..255 {
        let name = if turn % 2 == 0 { "tcpip-forward" } else { "cancel-tcpip-forward" };
        hand.client.say(&forward(name, 20_017));
    }
    for turn in 0..255 {
        // REQUEST_SUCCESS, REQUEST_FAILURE.
        let answer = hand.next(&[81, 82, DISCONNECT]).expect("an answer");
        assert_eq!(answer[0], 81, "{turn}");
    }
    let mut more = 0..5000;
    let goodbye = more.find_map(|_| {
        hand.client.say(&forward("tcpip-forward", 20_017));
        let answer = hand.next(&[81, 82, DISCONNECT]).expect("an answer, or a goodbye");
        (answer[0] == DISCONNECT).then_some(answer)
    });
    let goodbye = goodbye.expect("a goodbye");
    assert!(says(&goodbye, "offered or taken back too fast"), "{goodbye:?}");
    eventually("it is in the audit, once", SOON, || {
        let lines = kiosk.gate.audit();
        let of = |line: &&Value| line["reason"]["code"] == "TooManyForwards";
        lines.iter().filter(of).count() == 1
    });
    kiosk.gate.await_offer("kiosk-17", "ssh");
    let log = kiosk.gate.relay().stderr();
    let told = log.lines().filter(|line| line.contains("terminal offers a service")).count();
    assert_eq!(told, 1, "{log}");
}

/// tcpip-forward, or its cancelling, for a port of localhost.
fn forward(name: &str, port: u32) -> Vec<u8> {
    let words = [&[80][..], &text(name.as_bytes()), &[1], &text(b"localhost")];
    [&words.concat()[..], &port.to_be_bytes()].concat()
}

/// What a request for a login is answered with, whole.
fn asked(hand: &mut Hand, request: &[u8]) -> (Vec<u8>, Duration) {
    hand.client.say(request);
    let begun = Instant::now();
    let told = hand.next(&[AUTH_FAILURE, AUTH_PK_OK, DISCONNECT]).expect("an answer");
    (told, begun.elapsed())
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

#[test]
fn existing_and_invented_users_cannot_be_told_apart_before_a_key_is_proven() {
    const TIMED: usize = 15;
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = Key::read(&kiosk.gate.key("alice").path);
    let bob = Key::read(&kiosk.gate.key("bob").path);
    // Login users, one with a window and one without; a terminal; nobody.
    let users = ["alice", "bob", "kiosk-17", "zelda", "zelda.acme"];
    let mut told: Vec<Vec<Vec<u8>>> = Vec::new();
    for user in users {
        let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate);
        let begin = [&[50][..], &text(user.as_bytes()), &text(b"ssh-connection")].concat();
        let none = [&begin[..], &text(b"none")].concat();
        let password = [&begin[..], &text(b"password"), &[0], &text(b"secret")].concat();
        // By a key that nobody has, by keys that somebody has, and with a signature of another session.
        let requests = [
            none,
            password,
            Key::numbered(1).request(user, None, None),
            alice.request(user, None, None),
            bob.request(user, None, None),
            Key::numbered(1).request(user, Some(&[7; 32]), None),
            alice.request(user, Some(&[7; 32]), None),
        ];
        told.push(requests.iter().map(|request| asked(&mut hand, request).0).collect());
    }
    assert!(told.iter().all(|it| *it == told[0]), "{told:?}");
    assert_eq!(told[0].iter().filter(|it| it[0] == AUTH_PK_OK).count(), 2);
    // And by time: each in turn, so that whatever else the machine does falls on both.
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..20 {
        let mut hand = Hand::new(Ipv4Addr::LOCALHOST, &kiosk.gate);
        for n in 0..TIMED {
            let which = (round + n) % 2;
            let request = Key::numbered(2).request(["alice", "zelda"][which], None, None);
            took[which].push(asked(&mut hand, &request).1);
        }
    }
    let [known, invented] = took.map(|mut all| {
        all.sort();
        all[all.len() / 2]
    });
    println!("median answer: {known:?} for a name that exists, {invented:?} for another");
    let apart = known.abs_diff(invented);
    assert!(apart < Duration::from_micros(100) + known / 4, "{known:?} {invented:?}");
}
