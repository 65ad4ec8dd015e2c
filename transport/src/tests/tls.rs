use std::io::{Read as _, Write as _};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::client::{End, Framed, Relay};
use crate::arrival::{Arrival, Closed, Offer, Step};
use crate::tls::{self, config};
use crate::websocket::client::Handshake;

const NAME: &str = "relay.example.com";

struct Certificate {
    relay: Arc<tls::Config>,
    /// For each version.
    client: [Arc<ClientConfig>; 2],
}

fn certificate() -> &'static Certificate {
    static MADE: std::sync::OnceLock<Certificate> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let names = vec![NAME.to_owned(), format!("*.{NAME}")];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = tls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let chain = made.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(chain.clone()).unwrap();
        let client = [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            Arc::new(config)
        });
        Certificate { relay: Arc::new(config(vec![chain], key.into()).unwrap()), client }
    })
}

struct Client {
    tls: ClientConnection,
    plain: Vec<u8>,
    /// Read sizes of the relay.
    sizes: Box<dyn Iterator<Item = usize>>,
}

impl Client {
    fn new(version: usize, sizes: Vec<usize>) -> Self {
        let config = Arc::clone(&certificate().client[version]);
        let tls = ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
        Self { tls, plain: Vec::new(), sizes: Box::new(sizes.into_iter().cycle()) }
    }

    /// Lets everything that is on its way arrive.
    fn settle(&mut self, end: &mut End) {
        loop {
            let mut raw = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut raw).unwrap();
            }
            let mut rest = &raw[..];
            while !rest.is_empty() {
                let (part, then) = rest.split_at(self.sizes.next().unwrap().min(rest.len()));
                rest = then;
                end.receive(part);
            }
            let written = std::mem::take(&mut end.written);
            let mut input = &written[..];
            while !input.is_empty() {
                self.tls.read_tls(&mut input).unwrap();
                self.tls.process_new_packets().unwrap();
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = self.tls.reader().read(&mut bytes) {
                    self.plain.extend_from_slice(&bytes[..count]);
                }
            }
            if raw.is_empty() && written.is_empty() {
                return;
            }
        }
    }

    fn send(&mut self, plain: &[u8]) {
        self.tls.writer().write_all(plain).unwrap();
    }
}

fn end(proxy: bool) -> End {
    End::new(Offer { tls: Some(Arc::clone(&certificate().relay)), proxy })
}

#[test]
fn tls_has_ssh_or_http_inside_and_no_tls() {
    for version in [0, 1] {
        let mut relay = end(false);
        let mut client = Client::new(version, vec![7, 1, 300]);
        client.settle(&mut relay);
        assert!(!client.tls.is_handshaking(), "without a word of SSH's");
        let Relay::Arriving(arrival) = &relay.relay else { panic!() };
        assert!(arrival.may_greet(), "silence may be greeted inside of TLS, too");
        client.send(b"SSH-2.0-x\r\n");
        client.settle(&mut relay);
        assert_eq!(relay.plain, b"SSH-2.0-x\r\n");
        assert_eq!(relay.stack().transport().name(), "TLS");
        client.tls.send_close_notify();
        client.settle(&mut relay);
        assert!(relay.ended);

        for (inside, why, told) in [
            (
                &b"\x16\x03\x01\x02\0\x01"[..],
                "TLS inside TLS",
                "This is a Tidegate relay: the peer speaks TLS",
            ),
            (b"PROXY TCP4 ", "inside TLS", "This is a Tidegate relay: a PROXY"),
            (b"nothing", "neither SSH", "This is a Tidegate relay; it speaks SSH"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "page", "HTTP/1.1 200 OK\r\n"),
        ] {
            let mut relay = end(false);
            let mut client = Client::new(version, vec![100]);
            client.send(inside);
            client.settle(&mut relay);
            let (Closed::Refused(fault) | Closed::Answered(fault)) = relay.closed() else {
                panic!()
            };
            assert!(fault.to_string().contains(why), "{fault}");
            assert!(client.plain.starts_with(told.as_bytes()), "{:?}", client.plain);
            let mut rest = [0];
            assert_eq!(client.tls.reader().read(&mut rest).unwrap(), 0, "a close_notify came");
        }
    }
}

#[test]
fn tls_begins_when_the_driver_has_been_asked() {
    let mut client = Client::new(1, vec![4096]);
    let mut hello = Vec::new();
    client.tls.write_tls(&mut hello).unwrap();
    let offer = || Offer { tls: Some(Arc::clone(&certificate().relay)), proxy: true };
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n";
    let (first, rest) = hello.split_at(100);
    let mut arrival = Arrival::new(offer());
    assert_eq!(arrival.receive(&[&header[..], first].concat()), Step::Tls);
    assert_eq!(arrival.proxied().unwrap().source, "192.0.2.7:1".parse().unwrap());
    assert!(arrival.stack().output().is_empty() && !arrival.may_greet());
    // One that does not answer has lost nothing.
    assert_eq!(arrival.receive(rest), Step::Tls);
    assert_eq!(arrival.begin_tls(), Step::More);
    assert!(arrival.stack().output().len() > 100, "the relay's part of the handshake");
    assert_eq!(arrival.begin_tls(), Step::More, "once");

    let mut arrival = Arrival::new(offer());
    arrival.receive(header);
    assert_eq!(arrival.receive(&hello), Step::Tls);
    let Step::Closed(Closed::Refused(fault)) = arrival.turn_away("too many") else { panic!() };
    assert_eq!(fault.to_string(), "too many");
    // access_denied.
    assert_eq!(arrival.stack().output().as_slice(), [21, 3, 3, 0, 2, 2, 49]);
    assert_eq!(arrival.receive(&hello), Step::More);
}

#[test]
fn junk_of_tls_is_told_in_its_own_words() {
    // A ClientHello that is none; one that never ends; records that are too long.
    let hello = [&[22, 3, 1, 2, 0, 1][..], &[0xff; 511]].concat();
    let mut fragments = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    fragments.resize(5 + 0x4000, 0);
    for _ in 0..3 {
        fragments.extend([22, 3, 1, 0x40, 0]);
        fragments.resize(fragments.len() + 0x4000, 0);
    }
    let mut late = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    late.resize(50, 0);
    late.extend([22, 3, 3, 0xff, 0xff]);
    late.resize(70_000, 0);
    for (bytes, why) in [
        (hello, "no TLS that can be spoken"),
        (fragments, "32768 bytes"),
        (late, "no TLS that can be spoken"),
    ] {
        let mut relay = end(false);
        for part in bytes.chunks(1000) {
            relay.receive(part);
        }
        let Closed::Refused(fault) = relay.closed() else { panic!() };
        let told = fault.to_string();
        assert!(told.contains(why) && told.is_ascii() && told.len() <= 300, "{told}");
        // An alert, where the handshake did not just grow.
        assert!(relay.written.is_empty() || relay.written[0] == 21, "{:?}", relay.written);
    }
    // One that does not trust the certificate says so.
    let mut relay = end(false);
    let mut client = Client::new(1, vec![4096]);
    client.tls = ClientConnection::new(
        Arc::clone(&certificate().client[1]),
        "other.example.com".try_into().unwrap(),
    )
    .unwrap();
    let mut hello = Vec::new();
    client.tls.write_tls(&mut hello).unwrap();
    relay.receive(&hello);
    let written = std::mem::take(&mut relay.written);
    let mut input = &written[..];
    while !input.is_empty() {
        client.tls.read_tls(&mut input).unwrap();
        let _ = client.tls.process_new_packets();
    }
    let mut alert = Vec::new();
    while client.tls.wants_write() {
        client.tls.write_tls(&mut alert).unwrap();
    }
    relay.receive(&alert);
    let Closed::Refused(fault) = relay.closed() else { panic!() };
    assert_eq!(fault.to_string(), "the peer ends TLS with the alert BadCertificate");
}

#[test]
fn a_peer_that_reads_nothing_makes_nothing_grow() {
    let mut relay = end(false);
    let mut client = Client::new(1, vec![4096]);
    client.send(b"SSH-2.0-x\r\n");
    client.settle(&mut relay);
    for _ in 0..1000 {
        client.tls.refresh_traffic_keys().unwrap();
        client.send(b"x");
        let mut raw = Vec::new();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut raw).unwrap();
        }
        let Relay::Ssh(stack) = &mut relay.relay else { panic!() };
        let mut buffer = [&vec![0; crate::layer::HEADROOM], &raw[..]].concat();
        let all = buffer.len();
        stack.receive(&mut buffer, crate::layer::HEADROOM..all).unwrap();
        assert!(stack.output().len() < 1024, "{}", stack.output().len());
    }
}

#[test]
fn a_peer_of_a_websocket_in_tls_that_reads_nothing_makes_nothing_grow() {
    let mut relay = end(false);
    let mut client = Client::new(1, vec![4096]);
    let handshake = Handshake::new("relay.example.com", *b"the sample nonce");
    client.send(&handshake.request);
    client.settle(&mut relay);
    // Frames of a client: a ping of 125 bytes, and data that pays for it.
    let masked = |kind: u8, payload: &[u8]| {
        let head = [kind, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        [&head, payload].concat()
    };
    client.send(&masked(0x82, b"SSH-2.0-x\r\n"));
    client.settle(&mut relay);
    let mut most = 0;
    for _ in 0..2000 {
        client.send(&masked(0x89, &[7; 125]));
        client.send(&masked(0x82, b"data"));
        let mut raw = Vec::new();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut raw).unwrap();
        }
        let Relay::Ssh(stack) = &mut relay.relay else { panic!() };
        let mut buffer = [&vec![0; crate::layer::HEADROOM], &raw[..]].concat();
        let all = buffer.len();
        stack.receive(&mut buffer, crate::layer::HEADROOM..all).unwrap();
        most = most.max(stack.output().len());
    }
    assert!((crate::stack::FULL..crate::stack::FULL + 1024).contains(&most), "{most}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// SSH in TLS and in a WebSocket in TLS, behind a PROXY header or not, both ways, with reads of any size.
    #[test]
    fn bytes_arrive_both_ways(
        version in 0usize..2,
        websocket: bool,
        proxy: bool,
        parts in proptest::collection::vec((any::<bool>(), 1usize..60_000), 1..6),
        sizes in proptest::collection::vec(prop_oneof![1usize..60, 1usize..20_000, Just(16_389usize), 200_000usize..262_144], 1..8),
    ) {
        let mut relay = end(proxy);
        if proxy {
            relay.receive(b"PROXY TCP6 2001:db8::1 2001:db8::2 1024 5938\r\n");
        }
        let mut client = Client::new(version, sizes);
        let mut framed = websocket.then(Framed::new);
        let mut up = b"SSH-2.0-x\r\n".to_vec();
        let mut down = Vec::new();
        if let Some(framed) = &mut framed {
            client.send(&std::mem::take(&mut framed.out));
            client.settle(&mut relay);
            framed.receive(&std::mem::take(&mut client.plain));
            prop_assert!(framed.is_open());
        }
        let mut parts = parts.into_iter();
        let mut next = Some((true, up.clone()));
        let mut fill = 0_u8;
        while let Some((to_relay, part)) = next {
            if to_relay {
                match &mut framed {
                    Some(framed) => {
                        framed.send(&part);
                        client.send(&std::mem::take(&mut framed.out));
                    }
                    None => client.send(&part),
                }
            } else {
                prop_assert_eq!(relay.stack().send(&part).unwrap(), part.len());
                relay.take();
            }
            client.settle(&mut relay);
            next = parts.next().map(|(to_relay, length)| {
                let part: Vec<u8> = (0..length).map(|at| {
                    fill = fill.wrapping_mul(5).wrapping_add(u8::try_from(at % 7).unwrap());
                    fill
                }).collect();
                if to_relay { &mut up } else { &mut down }.extend_from_slice(&part);
                (to_relay, part)
            });
        }
        prop_assert_eq!(&relay.plain, &up);
        if let Some(framed) = &mut framed {
            framed.receive(&client.plain);
        }
        let arrived = framed.as_ref().map_or(&client.plain, |it| &it.plain);
        prop_assert_eq!(arrived, &down);
    }
}

/// See `speed.rs`.
#[test]
#[ignore = "measures"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn speed_of_tls() {
    const TOTAL: usize = 1 << 30;
    let report = |what: &str, bytes: usize, time: std::time::Duration| {
        let bytes = u32::try_from(bytes).unwrap();
        println!("{what}: {:.0} MB/s", f64::from(bytes) / time.as_secs_f64() / 1e6);
    };
    let mut relay = end(false);
    let mut client = Client::new(1, vec![1 << 20]);
    client.send(b"SSH-2.0-x\r\n");
    client.settle(&mut relay);
    let room = crate::layer::HEADROOM;
    let mut buffer = vec![0; room + (256 << 10)];
    let (mut up, mut down) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    let mut moved = 0;
    let mut raw = Vec::new();
    while moved < TOTAL {
        // As much as its own bound lets through.
        for _ in 0..3 {
            client.send(&[7; 16_384]);
        }
        raw.clear();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut raw).unwrap();
        }
        buffer[room..room + raw.len()].copy_from_slice(&raw);
        let began = std::time::Instant::now();
        let got = relay.stack().receive(&mut buffer, room..room + raw.len()).unwrap();
        up += began.elapsed();
        moved += got.plain;
        let began = std::time::Instant::now();
        let sent = relay.stack().send(&buffer[..got.plain]).unwrap();
        down += began.elapsed();
        assert_eq!(sent, got.plain);
        let all = relay.stack().output().len();
        relay.stack().output().consume(all);
    }
    report("TLS 1.3 from a client", moved, up);
    report("TLS 1.3 to a client", moved, down);
}
