use proptest::prelude::*;

use super::client::{End, Framed, Relay};
use crate::arrival::{Arrival, Closed, Offer, Step};
use crate::stack::Transport;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 5938\r\n";

/// What comes of bytes, one at a time.
fn end(proxy: bool, bytes: &[u8]) -> End {
    let mut end = End::new(Offer { tls: None, proxy });
    for byte in bytes {
        end.receive(&[*byte]);
    }
    end
}

fn refused(proxy: bool, bytes: &[u8], why: &str) {
    let end = end(proxy, bytes);
    let Closed::Refused(fault) = end.closed() else { panic!("{bytes:?}: {:?}", end.closed()) };
    let told = String::from_utf8(end.written.clone()).unwrap();
    assert!(told.ends_with("\r\n") && told.is_ascii() && told.len() <= 300, "{told}");
    assert!(fault.to_string().contains(why), "{bytes:?}: {fault}");
}

#[test]
fn ssh_is_passed_on_from_its_first_byte() {
    let plain = end(false, b"SSH-2.0-x\r\nrest");
    assert_eq!((&plain.plain[..], plain.written.len()), (&b"SSH-2.0-x\r\nrest"[..], 0));
    let Relay::Ssh(stack) = plain.relay else { panic!() };
    assert!(stack.transport() == Transport::Plain);
    let mut arrival = Arrival::new(Offer { tls: None, proxy: true });
    assert_eq!(arrival.receive(&[LINE, b"SSH-2.0-x"].concat()), Step::Ssh);
    assert_eq!(arrival.proxied().unwrap().source, "192.0.2.1:1024".parse().unwrap());
    assert_eq!(arrival.finish().1, b"SSH-2.0-x");
}

#[test]
fn a_header_is_required_where_declared_and_refused_elsewhere() {
    refused(true, b"SSH-2.0-x", "does not begin with a PROXY");
    refused(true, b"GET / HTTP/1.1\r\n", "does not begin with a PROXY");
    refused(false, LINE, "outside of the declared");
    refused(false, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "outside of the declared");
    refused(true, &[LINE, LINE].concat(), "second PROXY");
    refused(true, &[LINE, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"].concat(), "second PROXY");
    refused(true, b"PROXY TCP4 x\r\n", "address");
    for check in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let end = end(true, check);
        assert_eq!(end.closed(), &Closed::HealthCheck);
        assert!(end.written.is_empty(), "not a byte");
    }
}

#[test]
fn anything_else_gets_one_clear_line() {
    refused(false, b"HELO x\r\n", "neither SSH, TLS nor HTTP");
    refused(false, b"\x03\0\0\x13", "neither");
    refused(false, b"\x16\x02", "neither");
    let none = end(false, &[22, 3, 1, 2, 0, 1]);
    assert_eq!(none.written, [21, 3, 3, 0, 2, 2, 40], "where there is no TLS");
    let page = end(false, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(matches!(page.closed(), Closed::Answered(_)));
    assert!(page.written.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let bare = end(false, b"GET / HTTP/1.1\n");
    assert!(bare.written.starts_with(b"HTTP/1.1 400 "));
    // What follows means nothing.
    let mut late = end(false, b"X");
    late.receive(b"SSH-2.0-x\r\n");
    assert!(matches!(late.relay, Relay::Closed(_)) && late.plain.is_empty());
}

#[test]
fn silence_may_be_greeted_and_then_only_ssh_comes() {
    let mut arrival = Arrival::new(Offer { tls: None, proxy: true });
    assert!(!arrival.may_greet(), "the header comes first");
    arrival.receive(LINE);
    assert!(arrival.may_greet());
    arrival.receive(b"SS");
    assert!(arrival.may_greet(), "what came may be of a banner");
    arrival.greet();
    assert!(!arrival.may_greet());
    assert_eq!(arrival.receive(b"H-2.0-x"), Step::Ssh);
    for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 2, 0, 1]] {
        let mut arrival = Arrival::new(Offer::default());
        arrival.greet();
        assert!(matches!(arrival.receive(other), Step::Closed(Closed::Refused(_))));
        assert!(arrival.stack().output().as_slice().starts_with(b"This is a Tidegate relay"));
    }
    let mut arrival = Arrival::new(Offer::default());
    arrival.receive(b"G");
    assert!(!arrival.may_greet(), "what came cannot be of a banner");
}

/// A WebSocket up to its 101.
fn websocket() -> (End, Framed) {
    let mut end = End::new(Offer::default());
    let mut client = Framed::new();
    end.receive(&std::mem::take(&mut client.out));
    client.receive(&std::mem::take(&mut end.written));
    assert!(client.is_open());
    (end, client)
}

#[test]
fn a_websocket_has_ssh_inside() {
    let (mut end, mut client) = websocket();
    client.send(b"SS");
    client.send(b"H-2.0-x\r\n");
    for byte in std::mem::take(&mut client.out) {
        end.receive(&[byte]);
    }
    assert_eq!(end.plain, b"SSH-2.0-x\r\n");
    assert_eq!(end.stack().transport().name(), "WebSocket");
    assert_eq!(end.stack().send(b"SSH-2.0-Tidegate\r\n"), Ok(18));
    end.take();
    client.receive(&end.written);
    assert_eq!(client.plain, b"SSH-2.0-Tidegate\r\n");
    // The relay's goodbye, once, and nothing behind it.
    end.written.clear();
    end.stack().close();
    end.stack().close();
    assert_eq!(end.stack().send(b"late"), Ok(0));
    end.take();
    assert_eq!(end.written, [0x88, 2, 0x03, 0xe8]);
    client.out.clear();
    client.receive(&end.written);
    end.receive(&client.out);
    assert!(end.ended);
}

#[test]
fn a_websocket_without_ssh_inside_is_closed() {
    for inside in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\0\x01", LINE, b"x"] {
        let (mut end, mut client) = websocket();
        client.send(inside);
        end.receive(&client.out);
        assert!(matches!(end.closed(), Closed::Refused(_)));
        assert_eq!(end.written[..4], [0x88, end.written[1], 0x03, 0xf0], "1008");
    }
    // Against the protocol, right behind the request.
    let mut end = End::new(Offer::default());
    end.receive(&[&Framed::new().out[..], b"GET / HTTP/1.1\r\n\r\n"].concat());
    let Closed::Refused(fault) = end.closed() else { panic!() };
    assert!(fault.to_string().contains("reserved bit"), "{fault}");
    assert!(end.written.starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn what_waits_is_bounded() {
    let (mut end, mut client) = websocket();
    client.send(b"SSH-2.0-x\r\n");
    end.receive(&client.out);
    let stack = end.stack();
    let sent = stack.send(&vec![7; 1 << 20]).unwrap();
    assert!((60 * 1024..=80 * 1024).contains(&sent), "{sent}");
    assert!((64 * 1024..=80 * 1024).contains(&stack.output().len()));
    assert_eq!(stack.send(b"more"), Ok(0));
    let some = stack.output().as_slice()[..20_000].to_vec();
    stack.output().consume(some.len());
    assert_eq!(stack.send(b"more"), Ok(4));
    end.take();
    client.receive(&some);
    client.receive(&end.written);
    assert_eq!(client.plain.len(), sent + 4);
}

proptest! {
    #[test]
    fn any_split_comes_to_the_same_end(
        start in prop_oneof![
            Just(LINE.to_vec()),
            Just([LINE, LINE].concat()),
            Just([LINE, b"SSH-2.0-x\r\nmore"].concat()),
            Just([LINE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"].concat()),
            Just([LINE, &Framed::new().out[..], b"\x82\x84\0\0\0\0SSH-\x82\x81\0\0\0\0z"].concat()),
            Just([LINE, &Framed::new().out[..], b"\x82\x84\0\0\0\0junk"].concat()),
            Just([LINE, &Framed::new().out[..], b"\x88\x80\0\0\0\0"].concat()),
            Just(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c0123456789abSSH-".to_vec()),
        ],
        tail in proptest::collection::vec(any::<u8>(), 0..20),
        cut in 0usize..40,
        sizes in proptest::collection::vec(1usize..50, 1..10),
    ) {
        let mut bytes = start;
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        bytes.extend(tail);
        let mut whole = End::new(Offer { tls: None, proxy: true });
        let mut parts = End::new(Offer { tls: None, proxy: true });
        // As the relay reads: what comes behind SSH's first byte is SSH's.
        let feed = |end: &mut End, part: &[u8]| match &mut end.relay {
            Relay::Ssh(stack) => {
                let mut buffer = part.to_vec();
                if let Ok(got) = stack.receive(&mut buffer, 0..part.len()) {
                    end.plain.extend_from_slice(&buffer[..got.plain]);
                }
            }
            _ => end.receive(part),
        };
        feed(&mut whole, &bytes);
        let (mut rest, mut sizes) = (&bytes[..], sizes.iter().copied().cycle());
        while !rest.is_empty() {
            let (part, then) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            rest = then;
            feed(&mut parts, part);
        }
        match (whole.relay, parts.relay) {
            (Relay::Ssh(_), Relay::Ssh(_)) => prop_assert_eq!(whole.plain, parts.plain),
            (Relay::Arriving(whole), Relay::Arriving(parts)) => {
                prop_assert_eq!(whole.finish().1, parts.finish().1);
            }
            // Of two faults in one read the outer is seen first; one behind SSH's first bytes may come
            // too late to keep it from beginning.
            (Relay::Closed(Closed::Refused(_)), Relay::Closed(Closed::Refused(_)))
            | (Relay::Closed(_), Relay::Ssh(_)) => {}
            (Relay::Closed(whole), Relay::Closed(parts)) => prop_assert_eq!(whole, parts),
            _ => prop_assert!(false),
        }
    }
}
