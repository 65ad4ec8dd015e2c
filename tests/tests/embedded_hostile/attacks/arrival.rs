//! What comes before SSH: banners without end, storms, TLS and HTTP that are none, PROXY headers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::arena::{BALANCERS, Peer};
use crate::run::{Attack, STRANGER, Verdict, Wrong};
use crate::told::SOON;

pub const ATTACKS: &[Attack] = &[
    Attack { name: "endless banner", peers: 16, rounds: 20, budget: STRANGER, run: endless_banner },
    Attack {
        name: "connect and close, FIN and RST, as fast as it goes",
        peers: 16,
        rounds: 500,
        // Ten of each may be under way.
        budget: 10 * STRANGER,
        run: storm,
    },
    Attack { name: "TLS junk", peers: 16, rounds: 40, budget: STRANGER, run: tls_junk },
    Attack { name: "request smuggling", peers: 16, rounds: 40, budget: STRANGER, run: smuggling },
    Attack {
        name: "Upgrade to something else",
        peers: 16,
        rounds: 40,
        budget: STRANGER,
        run: upgrade,
    },
    Attack {
        name: "PROXY from an undeclared range",
        peers: 16,
        rounds: 40,
        budget: STRANGER,
        run: undeclared,
    },
    Attack {
        name: "PROXY with oversized TLVs",
        peers: 16,
        rounds: 40,
        budget: STRANGER,
        run: oversized_tlvs,
    },
    Attack { name: "two PROXY headers", peers: 16, rounds: 40, budget: STRANGER, run: two_headers },
];

/// All that is said until the relay has closed, as a text; it has to close within its time.
fn answer(socket: &mut TcpStream) -> Result<String, Wrong> {
    let until = Instant::now() + SOON;
    let mut got = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let said = String::from_utf8_lossy(&got).into_owned();
            return Err(Wrong(format!("not closed within {SOON:?} after {said:?}")));
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut bytes) {
            Ok(count) if count > 0 => got.extend(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return Ok(String::from_utf8_lossy(&got).into_owned()),
        }
        if got.len() > 16 << 10 {
            return Err(Wrong(format!("{} bytes were said", got.len())));
        }
    }
}

/// Sends this and is told these words; each of them one time.
fn says(mut socket: TcpStream, sent: &[u8], words: &str) -> Verdict {
    socket.write_all(sent)?;
    let told = answer(&mut socket)?;
    if told.matches(words).count() == 1 && told.matches("HTTP/1.").count() <= 1 {
        Ok(words.to_owned())
    } else {
        Err(Wrong(format!("{told:?} in place of {words}, for {:?}", String::from_utf8_lossy(sent))))
    }
}

fn endless_banner(peer: &Peer<'_>) -> Verdict {
    let mut socket = peer.connect()?;
    let mut sent = 0_u32;
    socket.write_all(b"SSH-2.0-")?;
    while socket.write_all(&[b'a'; 4096]).is_ok() {
        sent += 4096;
        if sent > 16 << 20 {
            return Err(Wrong(format!("{sent} bytes of banner were taken")));
        }
    }
    let told = answer(&mut socket)?;
    // What is unread as the connection is reset may be lost.
    let words = "the version line is longer than 255 bytes";
    if told.contains(words) {
        Ok(format!("DISCONNECT 2, {words}"))
    } else if told.is_empty() || told.starts_with("SSH-2.0-Tidegate") {
        Ok("closed".to_owned())
    } else {
        Err(Wrong(format!("{told:?}")))
    }
}

fn storm(peer: &Peer<'_>) -> Verdict {
    for n in 0..10 {
        let mut socket = peer.connect()?;
        match n % 3 {
            0 => drop(socket),
            1 => {
                let _ = socket.write_all(b"SSH-2.0-x\r\n");
                let _ = socket.shutdown(Shutdown::Write);
            }
            _ => {
                let _ = socket.write_all(b"SSH-2.");
                // With what the relay has said unread, this is an RST.
                let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
            }
        }
    }
    Ok("ten connections came and went".to_owned())
}

fn tls_junk(peer: &Peer<'_>) -> Verdict {
    let mut sent = match peer.round % 3 {
        // A ClientHello whose body is none.
        0 => [&[22, 3, 1, 0, 0x80, 1, 0, 0, 0x7c][..], &[0xa5; 0x7c]].concat(),
        // One that is to be 16 MiB long, over many records.
        1 => [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[3; 0x3ffc]].concat().repeat(8),
        // Lengths that contradict one another.
        _ => [&[22, 3, 3, 0, 0x40, 1, 0, 0, 0x3c, 3, 3][..], &[0xff; 0x3a]].concat(),
    };
    sent.extend([0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]);
    let mut socket = peer.connect()?;
    // It may close in the middle.
    let _ = socket.write_all(&sent);
    let told = answer(&mut socket)?;
    // An alert, or what was lost with the reset.
    if told.is_empty() || told.starts_with('\u{15}') {
        Ok(if told.is_empty() { "closed".to_owned() } else { "a TLS alert".to_owned() })
    } else {
        Err(Wrong(format!("{told:?}")))
    }
}

const HOST: &str = "Host: relay\r\n";
/// What a second request would be answered by, were there one.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: relay\r\n\r\n";

fn smuggling(peer: &Peer<'_>) -> Verdict {
    let cases = [
        (
            "POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "GET / HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
            "400 Bad Request",
        ),
        ("GET / HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n{host}X: a\nContent-Length: 40\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n{host}Content-Length: 40\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n{host}{host}\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n{host}\r\n", "200 OK"),
        ("GET http://other/ HTTP/1.1\r\n{host}\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\n{host} X-Folded: a\r\n\r\n", "400 Bad Request"),
    ];
    let (request, status) = cases[peer.round as usize % cases.len()];
    // Right behind it the request that is to pass as one of somebody else's.
    let sent = request.replace("{host}", HOST) + SECOND;
    says(peer.connect()?, sent.as_bytes(), &format!("HTTP/1.1 {status}"))
}

fn upgrade(peer: &Peer<'_>) -> Verdict {
    let cases = [
        (
            "GET /tidegate HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "426 Upgrade Required",
        ),
        (
            "GET /tidegate HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
            "426 Upgrade Required",
        ),
        (
            "GET /other HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "400 Bad Request",
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "of HTTP it speaks version 1.1 alone"),
        ("CONNECT kiosk-17:22 HTTP/1.1\r\n{host}\r\n", "400 Bad Request"),
    ];
    let (request, words) = cases[peer.round as usize % cases.len()];
    says(peer.connect()?, request.replace("{host}", HOST).as_bytes(), words)
}

const HEADER: &str = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";

/// A header of version 2, of a connection over TCP and IPv4, with what follows the addresses.
fn binary(more: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    let length = u16::try_from(12 + more.len()).unwrap_or(u16::MAX);
    header.extend(length.to_be_bytes());
    header.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]);
    header.extend(more);
    header
}

fn undeclared(peer: &Peer<'_>) -> Verdict {
    let words = "outside of the declared source ranges";
    let sent = if peer.round.is_multiple_of(2) { HEADER.into() } else { binary(&[]) };
    says(peer.connect()?, &[&sent[..], b"SSH-2.0-x\r\n"].concat(), words)
}

fn oversized_tlvs(peer: &Peer<'_>) -> Verdict {
    let (more, words) = match peer.round % 3 {
        0 => (vec![4; 65_000], "longer than 1460 bytes"),
        1 => (vec![4, 0xff, 0xff, 0], "a TLV that reaches beyond its end"),
        _ => ([&[5, 0, 200][..], &[7; 200]].concat(), "a unique ID of more than 128 bytes"),
    };
    says(peer.connect_from(BALANCERS)?, &binary(&more), words)
}

fn two_headers(peer: &Peer<'_>) -> Verdict {
    let header = |first: bool| if first { HEADER.into() } else { binary(&[]) };
    let sent = [header(peer.round.is_multiple_of(2)), header(peer.round % 4 < 2)].concat();
    says(peer.connect_from(BALANCERS)?, &sent, "a second PROXY protocol header")
}
