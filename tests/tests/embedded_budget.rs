//! Fixed budgets before authentication (invariant 8), as far as a login feels them: slow peers in
//! great number do not keep anybody out.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use tidegate_tests::clock::in_turn;
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::{Gate, Kiosk, SOON, eventually, ports};

/// A connection from a chosen loopback address.
fn from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// The median time of a few logins at each of two relays.
fn login_times(gates: [&Gate; 2]) -> [Duration; 2] {
    let [mut one, mut other] = gates.map(|gate| {
        let alice = gate.staff("alice");
        move || drop(alice.view(&["whoami"]).ok())
    });
    in_turn(9, 50, [&mut one, &mut other])
}

#[test]
fn slow_peers_do_not_slow_a_login() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alone = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let mut peers = Vec::new();
    // Most of them from elsewhere, some from where alice comes from.
    for n in 0..2000_u32 {
        let source = Ipv4Addr::new(127, 1, u8::try_from(n % 100).expect("less than 100"), 1);
        peers.extend(from(source, gate.addr()));
    }
    for _ in 0..200 {
        peers.extend(from(Ipv4Addr::LOCALHOST, gate.addr()));
    }
    assert_eq!(peers.len(), 2200, "the relay's accept queue turned some away");
    for (n, peer) in peers.iter_mut().enumerate() {
        // Some say nothing, some begin a banner, some stop in the middle of the key exchange.
        let begin: &[u8] = match n % 3 {
            0 => b"",
            1 => b"SSH-2.0-slow",
            _ => b"SSH-2.0-slow\r\n\0\0\x04",
        };
        let _ = peer.write_all(begin);
    }
    let [idle, crowded] = login_times([&alone.gate, gate]);
    println!("login: idle {idle:?}, with 2200 slow peers {crowded:?}");
    assert!(
        metric(gate.admin, "tidegate_connections_unauthenticated").is_some_and(|n| n <= 1024.0)
    );
    assert!(crowded <= idle * 2, "a login takes {crowded:?}, on an idle relay {idle:?}");
    // A connection that has proved a key is no part of the crowd.
    assert!(kiosk.client.as_ref().is_some_and(tidegate_tests::Proc::is_running));
    drop(peers);
    eventually("the crowd is gone", SOON, || {
        metric(gate.admin, "tidegate_connections_unauthenticated") == Some(0.0)
    });
}

#[test]
fn a_peer_that_never_logs_in_is_closed_after_twenty_seconds() {
    let kiosk = Kiosk::open(&[]);
    let mut peer = TcpStream::connect(kiosk.gate.addr()).expect("a connection");
    peer.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let begun = Instant::now();
    peer.write_all(b"SSH-2.0-slow\r\n").expect("a write");
    let _ = std::io::Read::read_to_end(&mut peer, &mut Vec::new());
    let lasted = begun.elapsed();
    assert!(lasted >= Duration::from_secs(15) && lasted <= Duration::from_secs(25), "{lasted:?}");
}

#[test]
fn what_is_no_ssh_gets_one_clear_line() {
    let kiosk = Kiosk::open(&[]);
    for said in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x00\x10", b"HELO\r\n"] {
        let mut peer = TcpStream::connect(kiosk.gate.addr()).expect("a connection");
        peer.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        peer.write_all(said).expect("a write");
        let mut told = Vec::new();
        let _ = std::io::Read::read_to_end(&mut peer, &mut told);
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(!told.trim().is_empty(), "nothing was said to {said:?}");
        assert!(told.len() < 2000, "{told}");
    }
}

#[test]
fn an_endless_banner_is_cut_short() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let mut peer = TcpStream::connect(kiosk.gate.addr()).expect("a connection");
    peer.set_write_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut sent = 0_u64;
    peer.write_all(b"SSH-2.0-").expect("a write");
    while sent < 64 << 20 {
        match peer.write(&[b'a'; 4096]) {
            Ok(count) if count > 0 => sent += count as u64,
            _ => break,
        }
    }
    assert!(sent < 16 << 20, "{sent} bytes of banner were taken");
    kiosk.gate.staff("alice").view(&["whoami"]).ok();
}

#[test]
fn ports_are_bound_before_anything_else_and_named_when_they_cannot_be() {
    let mut kiosk = Kiosk::open(&[]);
    kiosk.gate.stop();
    let taken = std::net::TcpListener::bind(("127.0.0.1", ports::free())).expect("a port");
    kiosk.gate.port = taken.local_addr().expect("an address").port();
    kiosk.gate.spawn();
    let exit = kiosk.gate.relay().exit(SOON);
    assert_ne!(exit.code, Some(0));
    let told = kiosk.gate.relay().stderr();
    assert!(told.contains(&kiosk.gate.port.to_string()), "{told}");
}
