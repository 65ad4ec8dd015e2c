//! What a connection speaks, by its first bytes. Decided at the first byte that leaves one answer
//! only, and by [`MOST`] bytes at the latest; nothing is taken away, so that the next layer begins
//! with the same bytes.
//!
//! | first bytes | kind |
//! |---|---|
//! | `SSH-` | `Ssh` (RFC 4253 section 4.2) |
//! | 22, 3, 0 to 4, a length of 45 to 16,384, 1 | `Tls`: a record of version 3.x with a ClientHello (RFC 8446 section 5.1) |
//! | a method of HTTP and a space | `Http` (RFC 9110 section 9), also the preface of HTTP/2 (RFC 9113 section 3.4) |
//! | `PROXY `, or the signature of version 2 | `Proxy` |
//! | anything else | `Unknown` |
//!
//! Which of them may come where says [`crate::arrival`].

use crate::proxy;

/// A protocol, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ssh,
    Tls,
    Http,
    Proxy,
    Unknown,
}

/// The most bytes that are needed: the signature of PROXY version 2.
pub const MOST: usize = proxy::BINARY.len();

const SSH: &[u8] = b"SSH-";

const PREFIXES: [(&[u8], Kind); 13] = [
    (SSH, Kind::Ssh),
    (proxy::LINE, Kind::Proxy),
    (proxy::BINARY, Kind::Proxy),
    (b"GET ", Kind::Http),
    (b"HEAD ", Kind::Http),
    (b"POST ", Kind::Http),
    (b"PUT ", Kind::Http),
    (b"DELETE ", Kind::Http),
    (b"CONNECT ", Kind::Http),
    (b"OPTIONS ", Kind::Http),
    (b"TRACE ", Kind::Http),
    (b"PATCH ", Kind::Http),
    (b"PRI ", Kind::Http),
];

/// A record's type for handshakes, and a handshake's for a ClientHello.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The least of a ClientHello: its head, version, random, an empty session ID, one cipher suite, one
/// compression method. Who splits it over records begins with a longer part than that, too.
const SHORTEST_HELLO: u16 = 4 + 2 + 32 + 1 + 4 + 2;
/// RFC 8446 section 5.1.
const LONGEST_RECORD: u16 = 1 << 14;

/// Looks at all the bytes that came so far; `None`: more are needed.
pub fn sniff(bytes: &[u8]) -> Option<Kind> {
    if bytes.first() == Some(&HANDSHAKE) {
        return tls(bytes);
    }
    let mut needed = false;
    for (prefix, kind) in PREFIXES {
        if bytes.starts_with(prefix) {
            return Some(kind);
        }
        needed |= prefix.starts_with(bytes);
    }
    if needed { None } else { Some(Kind::Unknown) }
}

fn tls(bytes: &[u8]) -> Option<Kind> {
    let is = |at: usize, may: &dyn Fn(u8) -> bool| bytes.get(at).is_none_or(|byte| may(*byte));
    let length = |low: u8| {
        let high = bytes.get(3).copied().unwrap_or_default();
        (SHORTEST_HELLO..=LONGEST_RECORD).contains(&u16::from_be_bytes([high, low]))
    };
    let [most, _] = LONGEST_RECORD.to_be_bytes();
    let may_be = is(1, &|major| major == 3)
        && is(2, &|minor| minor <= 4)
        && is(3, &|high| high <= most)
        && is(4, &length)
        && is(5, &|kind| kind == CLIENT_HELLO);
    match (may_be, bytes.len()) {
        (false, _) => Some(Kind::Unknown),
        (true, 0..6) => None,
        (true, _) => Some(Kind::Tls),
    }
}

/// Whether the peer may be one that waits for our banner: it sent nothing, or the beginning of its own.
pub fn may_wait_for_banner(bytes: &[u8]) -> bool {
    SSH.starts_with(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: [u8; 6] = [22, 3, 1, 2, 0, 1];

    #[test]
    fn each_is_known_by_as_few_bytes_as_can_be() {
        for (bytes, kind, by) in [
            (&b"SSH-2.0-OpenSSH_9.2"[..], Kind::Ssh, 4),
            (b"GET / HTTP/1.1", Kind::Http, 4),
            (b"PRI * HTTP/2.0\r\n", Kind::Http, 4),
            (b"CONNECT relay:22 HTTP/1.1", Kind::Http, 8),
            (b"PROXY TCP4 ", Kind::Proxy, 6),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Kind::Proxy, 12),
            (&HELLO, Kind::Tls, 6),
            (b"X", Kind::Unknown, 1),
            (b"SSX", Kind::Unknown, 3),
            (b"GETX", Kind::Unknown, 4),
            (b"PROPFIND / HTTP/1.1", Kind::Unknown, 4),
            (b"\x16\x03\x05", Kind::Unknown, 3),
            (b"\x16\x02", Kind::Unknown, 2),
            (b"\x16\x03\x01\x41", Kind::Unknown, 4),
            (b"\x16\x03\x01\x40\x01", Kind::Unknown, 5),
            (b"\x16\x03\x01\x00\x05", Kind::Unknown, 5),
            (b"\x16\x03\x01\x02\x00\x02", Kind::Unknown, 6),
            // SSLv2's, a server's alert, RDP, SMB, a stray newline.
            (b"\x80\x2e\x01", Kind::Unknown, 1),
            (b"\x15\x03\x01", Kind::Unknown, 1),
            (b"\x03\x00\x00\x13", Kind::Unknown, 1),
            (b"\r\n\r\n\r\n", Kind::Unknown, 5),
        ] {
            for end in 0..by {
                assert_eq!(sniff(&bytes[..end]), None, "{bytes:?} at {end}");
            }
            for end in by..=bytes.len() {
                assert_eq!(sniff(&bytes[..end]), Some(kind), "{bytes:?} at {end}");
            }
        }
        assert!(may_wait_for_banner(b"") && may_wait_for_banner(b"SSH"));
        assert!(!may_wait_for_banner(b"G") && !may_wait_for_banner(b"\r"));
    }

    proptest! {
        #[test]
        fn an_answer_stays_and_comes_in_time(
            start in prop::sample::select(PREFIXES.map(|it| it.0).into_iter().chain([&HELLO[..]]).collect::<Vec<_>>()),
            keep in 0usize..13,
            tail in any::<Vec<u8>>(),
        ) {
            let whole = [&start[..keep.min(start.len())], &tail].concat();
            let mut answer = None;
            for end in 0..=whole.len() {
                let now = sniff(&whole[..end]);
                prop_assert!(answer.is_none() || now == answer);
                prop_assert!(now.is_some() || end < MOST);
                answer = now;
            }
        }
    }
}
