use proptest::prelude::*;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// RFC 6455 section 1.2's request, with our path and subprotocol.
pub fn handshake() -> String {
    format!(
        "GET /tidegate HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: chat, ssh.tidegate.dev\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn of(text: &str) -> Answer {
    match read(text.as_bytes()) {
        Head::NeedMore => panic!("{text:?} is not whole"),
        Head::Whole { request, consumed } => {
            assert_eq!(consumed, text.find("\r\n\r\n").unwrap() + 4);
            answer(&Ok(request))
        }
        Head::Refused(refusal) => answer(&Err(refusal)),
    }
}

/// Status, headers and body of an answer that ends the connection, with what all of them have.
fn closing(text: &str) -> (u16, String, String) {
    let answer = of(text);
    let why = answer.then.expect_err("an end").to_string();
    assert!(why.is_ascii() && why.len() <= 300, "{why}");
    let sent = String::from_utf8(answer.bytes).unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    for header in [
        "Connection: close",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Content-Security-Policy: default-src 'none'",
    ] {
        assert_eq!(head.split("\r\n").filter(|line| *line == header).count(), 1, "{head}");
    }
    let length: usize = head
        .split("\r\n")
        .find_map(|it| it.strip_prefix("Content-Length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(length == body.len() || (text.starts_with("HEAD ") && body.is_empty()));
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn refused(text: &str, status: u16, why: &str) {
    let (got, _, body) = closing(text);
    assert_eq!(got, status, "{text:?}: {body}");
    assert!(body.contains(why), "{text:?}: {body}");
}

#[test]
fn accepts_the_handshake_of_the_rfc() {
    let answer = of(&handshake());
    assert_eq!(answer.then, Ok(()));
    let sent = String::from_utf8(answer.bytes).unwrap();
    assert_eq!(
        sent,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: ssh.tidegate.dev\r\n\r\n"
    );
    // As Firefox and proxies write it.
    let other = handshake()
        .replace("Connection: Upgrade", "connection: keep-alive,upgrade")
        .replace("Upgrade: websocket", "UPGRADE:WebSocket")
        .replace("chat, ssh", "chat\r\nSec-WebSocket-Protocol: ssh");
    assert_eq!(of(&other).then, Ok(()), "{other}");
}

#[test]
fn refuses_other_handshakes() {
    let with = |from: &str, to: &str| {
        let text = handshake();
        assert!(text.contains(from));
        text.replacen(from, to, 1)
    };
    refused(&with("Host:", "Origin: https://evil.example\r\nHost:"), 403, "Origin");
    refused(&with("Host:", "Origin: null\r\nHost:"), 403, "Origin");
    refused(&with("chat, ssh.tidegate.dev", "chat"), 400, "only subprotocol");
    refused(&with("chat, ssh.tidegate.dev", "SSH.tidegate.dev"), 400, "only subprotocol");
    refused(&with("Sec-WebSocket-Protocol", "X-Protocol"), 400, "no subprotocol");
    let (status, head, _) = closing(&with("Version: 13", "Version: 8"));
    assert!(status == 426 && head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
    refused(&with("Sec-WebSocket-Version", "X-Version"), 426, "version 13");
    refused(&with("Upgrade: websocket", "Upgrade: h2c"), 426, "WebSocket alone");
    refused(&with("Upgrade: websocket", "Upgrade: h2c, websocket"), 426, "WebSocket alone");
    refused(&with("Upgrade: websocket\r\n", ""), 426, "websocat");
    refused("GET /tidegate HTTP/1.1\r\nHost: x\r\n\r\n", 426, "--protocol ssh.tidegate.dev");
    refused("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n", 400, "nothing else");
    refused(&with("/tidegate", "/"), 400, "/tidegate");
    refused(&with("/tidegate", "/tidegate/"), 400, "/tidegate");
    refused(&with("Connection: Upgrade", "Connection: close"), 400, "Connection");
    refused(&with(KEY, "dGhlIHNhbXBsZSBub25jZQ="), 400, "Key");
    refused(&with(KEY, "dGhlIHNhbXBsZSBub25jZR=="), 400, "Key");
    refused(&with("Sec-WebSocket-Key", "X-Key"), 400, "Key");
    refused(&with("HTTP/1.1", "HTTP/1.0"), 400, "HTTP/1.1");
    refused(&with("GET", "POST"), 400, "GET");
    refused(&with("Host:", "Sec-WebSocket-Version: 13\r\nHost:"), 400, "two of a header");
    refused(&with("Host:", &format!("Sec-WebSocket-Key: {KEY}\r\nHost:")), 400, "two of a header");
}

#[test]
fn refuses_what_could_be_read_in_two_ways() {
    let get = |more: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    for (text, why) in [
        (get("Content-Length: 5\r\n"), "body"),
        (get("Transfer-Encoding: chunked\r\n"), "body"),
        (get("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), "both"),
        (get("Content-Length: 0\r\nContent-Length: 0\r\n"), "two of a header"),
        (get("Content-Length: +0\r\n"), "not a number"),
        (get("Content-Length: 0, 5\r\n"), "not a number"),
        (get("Content-Length:\r\n"), "not a number"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .into(),
            "both",
        ),
        (get("A: b\r\n c: d\r\n"), "folded"),
        (get("A: b\r\n\tc: d\r\n"), "folded"),
        (get("A: b\nC: d\r\n"), "bare"),
        (get("A: b\rC: d\r\n"), "bare"),
        (get("A: b\0\r\n"), "NUL"),
        (get("A : b\r\n"), "name is malformed"),
        (get("A\t: b\r\n"), "name is malformed"),
        (get("A\u{e9}: b\r\n"), "name is malformed"),
        (get("Content-Length\u{b}: 5\r\n"), "name is malformed"),
        (get(": b\r\n"), "name is malformed"),
        (get("no colon\r\n"), "name is malformed"),
        (get("A: \u{1}\r\n"), "value is malformed"),
        (get("Host: y\r\n"), "two of a header"),
        (get("").replace("Host: x", "Host: x y"), "Host"),
        (get("").replace("Host: x", "Host: x/y"), "Host"),
        (get("").replace("Host: x\r\n", ""), "no Host"),
        (get("").replace("/ ", "http://other.example/ "), "no HTTP proxy"),
        (get("").replace("/ ", "* "), "no HTTP proxy"),
        (get("").replace("/ ", "/\u{e9} "), "no HTTP proxy"),
        (get("").replace("GET /", "CONNECT relay:22"), "no HTTP proxy"),
        (get("").replace("GET", "CONNECT"), "no CONNECT"),
        (get("").replace("/ ", "/  "), "request line"),
        (get("").replace("/ HTTP", "/\tHTTP"), "request line"),
        (get("").replace(" HTTP/1.1", ""), "request line"),
        (get("").replace("HTTP/1.1", "HTTP/1.1 "), "request line"),
        (get("").replace("HTTP/1.1", "HTTP/3.0"), "request line"),
        (format!(" {}", get("")), "begins with a space"),
    ] {
        refused(&text, 400, why);
    }
    refused(&get(&"A: b\r\n".repeat(64)), 431, "64 headers");
    refused(&get(&format!("A: {}\r\n", "b".repeat(8192))), 431, "8192");
    assert_eq!(closing(&get(&"A: b\r\n".repeat(63))).0, 200);
    // A bare LF is refused before any head ends.
    let Head::Refused(_) = read(b"GET / HTTP/1.1\n") else { panic!() };
}

#[test]
fn anybody_else_learns_what_this_is() {
    let (status, head, body) = closing("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status == 200 && head.contains("text/html") && body.contains("websocat --binary"));
    assert_eq!(closing("GET /?a=b HTTP/1.0\r\n\r\n").0, 200);
    let (status, _, body) = closing("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, _, body) = closing("HEAD /tidegate HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((status, body.as_str()), (426, ""));
    let (status, _, body) = closing("GET /<script>alert(1)</script> HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status == 404 && !body.contains("alert"));
    refused("GET /.well-known/tidegate HTTP/1.1\r\nHost: x\r\n\r\n", 404, "signed list");
    let (status, head, _) = closing("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert!(status == 405 && head.contains("\r\nAllow: GET, HEAD\r\n"));
}

#[test]
fn http2_is_told_in_its_own_words() {
    let answer = of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(answer.then.is_err());
    let (settings, goaway) = answer.bytes.split_at(9);
    assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let (head, payload) = goaway.split_at(9);
    assert_eq!(head[3], 7);
    assert_eq!(usize::from(head[2]), payload.len());
    assert_eq!(payload[..8], [0, 0, 0, 0, 0, 0, 0, 13]);
    assert!(payload[8..].is_ascii());
}

proptest! {
    /// However a head is split, the answer is the same, comes once it is whole, and has nothing of it.
    #[test]
    fn a_prefix_of_a_head_says_nothing_else(
        lines in proptest::collection::vec(prop_oneof![
            4 => "[A-Za-z-]{1,12}: [ -~]{0,12}",
            1 => prop::sample::select(vec!["Host: x", "Upgrade: websocket", "Content-Length: 0", "Connection: upgrade", ""]).prop_map(String::from),
            1 => "[ -~\r\n\t\u{e9}]{0,8}",
        ], 0..10),
        start in prop::sample::select(vec!["GET / HTTP/1.1", "GET /tidegate HTTP/1.1", "PRI * HTTP/2.0", "POST / HTTP/1.1", "CONNECT x HTTP/1.1"]),
    ) {
        let whole = format!("{start}\r\n{}\r\n\r\n", lines.join("\r\n")).into_bytes();
        let last = read(&whole);
        prop_assert!(last != Head::NeedMore);
        let mut decided = false;
        for end in 0..=whole.len() {
            let now = read(&whole[..end]);
            prop_assert!(now == last || (!decided && now == Head::NeedMore));
            decided |= now != Head::NeedMore;
        }
        let answer = answer(&match last {
            Head::Whole { request, .. } => Ok(request),
            Head::Refused(refusal) => Err(refusal),
            Head::NeedMore => unreachable!(),
        });
        prop_assert!(answer.bytes.len() < 2048);
    }
}

/// What was looked at is not looked at again: it could be anything by then. Only the end of the head is,
/// and all of it once it is whole.
#[test]
fn a_head_that_trickles_is_looked_at_once() {
    const END: &str = "\r\n\r\n";
    let whole = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(8000));
    let mut scan = Scan::default();
    for end in 1_usize..whole.len() {
        let mut came = vec![0; end.saturating_sub(END.len())];
        came.extend(&whole.as_bytes()[came.len()..end]);
        assert_eq!(scan.read(&came), Head::NeedMore, "{end} bytes");
    }
    assert!(matches!(scan.read(whole.as_bytes()), Head::Whole { .. }));
    // Nor where it grows too large.
    let mut scan = Scan::default();
    assert_eq!(scan.read("A".repeat(MOST - 1).as_bytes()), Head::NeedMore);
    assert_eq!(
        scan.read(&[b"\0".repeat(MOST - 1), b"A".to_vec()].concat()),
        Head::Refused(Refusal::TooLarge)
    );
}
