use proptest::prelude::*;

use super::client::{Client, Handshake};
use super::frame::{build, close};
use super::*;
use crate::Fault;
use crate::http;
use crate::layer::Layer;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame with any head: its first byte, its payload, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = build(0, payload.len(), Some(KEY)).as_slice().to_vec();
    bytes[0] = first;
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// What one layer makes of bytes: data, what it answers, whether it ended.
type Made = Result<(Vec<u8>, Vec<u8>, bool), (Fault, Vec<u8>)>;

fn run(layer: &mut dyn Layer, bytes: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Made {
    let (mut data, mut out, mut ended) = (Vec::new(), Vec::new(), false);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, then) = rest.split_at(sizes.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = then;
        let mut buffer = now.to_vec();
        match layer.receive(&mut buffer, 0..now.len(), &mut out) {
            Ok(got) => {
                data.extend_from_slice(&buffer[..got.plain]);
                ended |= got.ended;
            }
            Err(fault) => return Err((fault, out)),
        }
    }
    Ok((data, out, ended))
}

fn all(bytes: &[u8]) -> Made {
    run(&mut Server::default(), bytes, &mut std::iter::empty())
}

#[test]
fn the_frames_of_the_rfc() {
    // Section 5.7, its text frames with the opcode of binary ones.
    let masked = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(all(&masked).unwrap(), (b"Hello".to_vec(), vec![], false));
    assert_eq!(frame(0x82, b"Hello"), masked);
    let fragmented = [frame(0x02, b"Hel"), frame(0x80, b"lo")].concat();
    assert_eq!(all(&fragmented).unwrap().0, b"Hello");
    let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let pong = [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(all(&ping).unwrap().1, pong);
    assert_eq!(head(256).as_slice(), [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(head(65536).as_slice(), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(head(125).as_slice(), [0x82, 125]);
    assert_eq!(head(126).as_slice(), [0x82, 126, 0, 126]);
    // Its unmasked message is what a server sends.
    let mut client = Client::new(Box::new(|key| key.copy_from_slice(&KEY)));
    let unmasked = [0x82, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let (data, out, _) = run(&mut client, &unmasked, &mut std::iter::empty()).unwrap();
    assert_eq!((&data[..], out.len()), (&b"Hello"[..], 0));
    let mut sent = Vec::new();
    client.send(b"Hello", &mut sent).unwrap();
    assert_eq!(sent, masked);
    assert!(run(&mut client, &masked, &mut std::iter::empty()).is_err(), "a masked server");
}

#[test]
fn refuses_with_the_codes_of_the_rfc() {
    let big = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &KEY].concat();
    for (bytes, code, why) in [
        (vec![0x82, 0x05, b'H'], 1002, "not masked"),
        (frame(0xc2, b"x"), 1002, "reserved bit"),
        (frame(0xa2, b"x"), 1002, "reserved bit"),
        (frame(0x92, b"x"), 1002, "reserved bit"),
        (b"GET / HTTP/1.1\r\n".to_vec(), 1002, "reserved bit"),
        (frame(0x81, b"x"), 1003, "--binary"),
        (frame(0x01, b"x"), 1003, "--binary"),
        (frame(0x83, b"x"), 1002, "reserved opcode"),
        (frame(0x87, b"x"), 1002, "reserved opcode"),
        (frame(0x8b, b"x"), 1002, "reserved opcode"),
        (frame(0x8f, b"x"), 1002, "reserved opcode"),
        (frame(0x80, b"x"), 1002, "has not begun"),
        ([frame(0x02, b"x"), frame(0x82, b"y")].concat(), 1002, "inside another"),
        ([frame(0x02, b"x"), frame(0x80, b"y"), frame(0x80, b"z")].concat(), 1002, "not begun"),
        (frame(0x09, b"x"), 1002, "fragmented"),
        (frame(0x08, b""), 1002, "fragmented"),
        (frame(0x89, &[0; 126]), 1002, "longer than 125"),
        (frame(0x88, &[0; 300]), 1002, "longer than 125"),
        (big(1 << 63), 1002, "highest bit"),
        (big(65535), 1002, "more bytes than it needs"),
        ([&[0x82, 0xfe, 0, 125][..], &KEY].concat(), 1002, "more bytes than it needs"),
        (frame(0x88, &[3]), 1002, "half a code"),
        (frame(0x88, &close(999, "")), 1002, "nobody may send"),
        (frame(0x88, &close(1005, "")), 1002, "nobody may send"),
        (frame(0x88, &close(1006, "")), 1002, "nobody may send"),
        (frame(0x88, &close(5000, "")), 1002, "nobody may send"),
        (frame(0x88, &[3, 0xe8, 0xff]), 1007, "UTF-8"),
    ] {
        let (fault, out) = all(&bytes).expect_err(why);
        let told = fault.to_string();
        assert!(told.contains(why) && told.is_ascii() && told.len() <= 300, "{bytes:?}: {told}");
        assert_eq!(out[0], 0x88, "{bytes:?}");
        assert_eq!(usize::from(out[1]), out.len() - 2);
        assert_eq!(u16::from_be_bytes([out[2], out[3]]), code, "{bytes:?}");
        assert!(told.starts_with(str::from_utf8(&out[4..]).unwrap()));
        // Known without the byte behind it that no head is needed for.
        assert!(all(&bytes[..bytes.len().min(1)]).is_err() || bytes.len() > 1);
    }
}

#[test]
fn closes_as_the_rfc_says() {
    let bye = [frame(0x82, b"last"), frame(0x88, &close(1001, "going")), frame(0x83, b"junk")];
    let mut server = Server::default();
    let (data, mut out, ended) = run(&mut server, &bye.concat(), &mut std::iter::empty()).unwrap();
    assert_eq!((&data[..], &out[..], ended), (&b"last"[..], &[0x88, 2, 0x03, 0xe9][..], true));
    server.close(&mut out);
    server.send(b"late", &mut out).unwrap();
    assert_eq!(out.len(), 4, "nothing comes behind a close frame");
    assert_eq!(all(&frame(0x88, b"")).unwrap(), (vec![], vec![0x88, 0], true));
    // Ours first: the peer's is taken, and not answered once more.
    let mut server = Server::default();
    let mut out = Vec::new();
    server.close(&mut out);
    assert_eq!(out, [0x88, 2, 0x03, 0xe8]);
    let peer = [frame(0x82, b"more"), frame(0x89, b"?"), frame(0x88, &out[2..])].concat();
    let (data, out, ended) = run(&mut server, &peer, &mut std::iter::empty()).unwrap();
    assert_eq!((&data[..], &out[..], ended), (&b"more"[..], &[][..], true));
}

#[test]
fn floods_are_bounded() {
    // One read of many pings: the last is answered.
    let pings: Vec<u8> = (0..100).flat_map(|it| frame(0x89, &[it])).collect();
    assert_eq!(all(&pings).unwrap().1, [0x8a, 1, 99]);
    for (first, payload) in [(0x89, &b"x"[..]), (0x8a, b"x"), (0x82, b""), (0x89, b"")] {
        let flood = frame(first, payload).repeat(1025);
        let (fault, out) = all(&flood).expect_err("a flood");
        assert!(fault.to_string().contains("without data"));
        let at = out.len() - 2 - fault.to_string().len() - 2;
        assert_eq!(out[at..at + 4], [0x88, out[at + 1], 0x03, 0xf0]);
        assert!(all(&flood[..flood.len() / 1025 * 1024]).is_ok());
        // Data pays for them, in either direction.
        let paid = [frame(first, payload).repeat(512), frame(0x82, &[7; 2048])].concat();
        assert!(all(&paid.repeat(50)).is_ok());
        let mut server = Server::default();
        for _ in 0..50 {
            run(&mut server, &frame(first, payload).repeat(512), &mut std::iter::empty()).unwrap();
            server.send(&[7; 2048], &mut Vec::new()).unwrap();
        }
    }
    // One that reads nothing gets no more pongs.
    let mut out = vec![0; 64 * 1024 + 1];
    let mut server = Server::default();
    let mut ping = frame(0x89, b"later");
    let length = ping.len();
    server.receive(&mut ping, 0..length, &mut out).unwrap();
    assert_eq!(out.len(), 64 * 1024 + 1);
    out.clear();
    server.receive(&mut [], 0..0, &mut out).unwrap();
    assert_eq!(out, *b"\x8a\x05later");
}

#[test]
fn the_client_asks_as_the_server_wants() {
    let handshake = Handshake::new("relay.example.com:80", *b"the sample nonce");
    let text = str::from_utf8(&handshake.request).unwrap();
    assert!(text.contains("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"));
    let http::Head::Whole { request, consumed } = http::read(&handshake.request) else { panic!() };
    assert_eq!(consumed, handshake.request.len());
    let answer = http::answer(&Ok(request));
    let mut sent = answer.bytes.clone();
    sent.extend(b"\x82\x01x");
    assert_eq!(handshake.read(&sent).unwrap(), Some(sent.len() - 3));
    for end in 0..answer.bytes.len() {
        assert_eq!(handshake.read(&sent[..end]).unwrap(), None);
    }
    for (from, to) in [("s3pP", "S3pP"), ("101", "200"), ("dev", "com"), (": websocket", ": h2c")] {
        let other = String::from_utf8(answer.bytes.clone()).unwrap().replacen(from, to, 1);
        assert!(handshake.read(other.as_bytes()).is_err(), "{other}");
    }
    assert!(handshake.read(b"SSH-2.0-OpenSSH\r\n").is_err());
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = || proptest::collection::vec(any::<u8>(), 0..300);
    let one = prop_oneof![
        8 => payload().prop_map(|it| frame(0x82, &it)),
        2 => (payload(), payload()).prop_map(|(a, b)| [frame(0x02, &a), frame(0x89, &b[..b.len().min(125)]), frame(0x80, &b)].concat()),
        1 => proptest::collection::vec(any::<u8>(), 0..125).prop_map(|it| frame(0x8a, &it)),
        1 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..140)).prop_map(|(first, it)| frame(first, &it)),
    ];
    proptest::collection::vec(one, 0..20).prop_map(|it| it.concat())
}

proptest! {
    /// What a read of everything gives, reads of any sizes give, pongs aside.
    #[test]
    fn any_split_gives_the_same(bytes in frames(), sizes in proptest::collection::vec(1usize..60, 1..20)) {
        let whole = all(&bytes);
        let parts = run(&mut Server::default(), &bytes, &mut sizes.iter().copied().cycle());
        match (whole, parts) {
            (Ok(whole), Ok(parts)) => prop_assert_eq!((whole.0, whole.2), (parts.0, parts.2)),
            (Err(whole), Err(parts)) => prop_assert_eq!(whole.0, parts.0),
            (whole, parts) => prop_assert!(false, "{:?} {:?}", whole, parts),
        }
    }

    /// What a client sends arrives, and back, in place behind any room in front.
    #[test]
    fn client_and_server_understand_each_other(parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..70_000)), 0..6), room in 0usize..40) {
        let mut seed = 1_u8;
        let mut client = Client::new(Box::new(move |key| for byte in key {
            seed = seed.wrapping_mul(29).wrapping_add(7);
            *byte = seed;
        }));
        let mut server = Server::default();
        for (to_server, part) in parts {
            let (mut sent, mut back) = (Vec::new(), Vec::new());
            let (from, to): (&mut dyn Layer, &mut dyn Layer) =
                if to_server { (&mut client, &mut server) } else { (&mut server, &mut client) };
            from.send(&part, &mut sent).unwrap();
            let mut buffer = vec![0; room];
            buffer.extend(&sent);
            let length = buffer.len();
            let got = to.receive(&mut buffer, room..length, &mut back).unwrap();
            prop_assert_eq!(&buffer[..got.plain], &part[..]);
            prop_assert!(back.is_empty());
        }
    }
}
