//! Floods of messages that ask for little or nothing.

use std::time::{Duration, Instant};

use tidegate_ssh_client::hand::Parting;
use tidegate_ssh_client::{Writer, number};

use crate::arena::Peer;
use crate::run::{Attack, KNOWN, STRANGER, Verdict, Wrong};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "flood of IGNORE and DEBUG before a login",
        peers: 8,
        rounds: 50,
        budget: STRANGER,
        run: ignores_before,
    },
    Attack {
        name: "flood of IGNORE and DEBUG after a login",
        peers: 8,
        rounds: 50,
        budget: KNOWN,
        run: ignores_after,
    },
    Attack {
        name: "flood of global requests, answers read",
        peers: 8,
        rounds: 50,
        budget: KNOWN,
        run: globals_read,
    },
    Attack {
        name: "flood of global requests, answers never read",
        peers: 8,
        rounds: 1,
        budget: KNOWN,
        run: globals_unread,
    },
];

/// As much as a second of them is worth, each of 1 KiB.
const FLOOD: usize = 500;

fn ignore() -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message).u8(number::IGNORE).string([0; 1024]);
    message
}

fn debug() -> Vec<u8> {
    let mut message = Vec::new();
    let mut w = Writer::new(&mut message);
    w.u8(number::DEBUG).bool(true).string("\u{1b}[2J\nFORGED".repeat(60)).string("en");
    message
}

/// What nobody has, with an answer that says no.
fn keepalive() -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message).u8(number::GLOBAL_REQUEST).string("keepalive@openssh.com").bool(true);
    message
}

fn ping() -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message).u8(number::PING).string("x");
    message
}

fn flooded(mut hand: tidegate_ssh_client::hand::Hand) -> Verdict {
    for _ in 0..FLOOD {
        hand.client.say(&ignore());
        hand.client.say(&debug());
        hand.flush()?;
    }
    // Behind all of them it is heard.
    hand.say(&ping())?;
    hand.next(&[number::PONG])?;
    Ok("passed over, and what follows is answered".to_owned())
}

fn ignores_before(peer: &Peer<'_>) -> Verdict {
    flooded(peer.stranger()?)
}

fn ignores_after(peer: &Peer<'_>) -> Verdict {
    flooded(peer.staff()?)
}

fn globals_read(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    for _ in 0..20 {
        for _ in 0..100 {
            hand.client.say(&keepalive());
        }
        hand.flush()?;
        for _ in 0..100 {
            hand.next(&[number::REQUEST_FAILURE])?;
        }
    }
    Ok("each is answered".to_owned())
}

fn globals_unread(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    hand.socket.set_write_timeout(Some(Duration::from_millis(500)))?;
    // Or its kernel would take some MiB of answers for it.
    rustix::net::sockopt::set_socket_recv_buffer_size(&hand.socket, 16 << 10)
        .map_err(std::io::Error::from)?;
    let (begun, mut sent) = (Instant::now(), 0_u64);
    // Until the relay reads no more, or parts.
    let stood = loop {
        for _ in 0..100 {
            hand.client.say(&keepalive());
        }
        sent += 100;
        match hand.flush() {
            Ok(()) if sent > 10_000_000 => {
                return Err(Wrong(format!(
                    "{sent} requests were taken of a peer that reads nothing"
                )));
            }
            Ok(()) if begun.elapsed() > Duration::from_mins(1) => break false,
            Ok(()) => {}
            Err(error) => {
                let waits = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
                break waits.contains(&error.kind());
            }
        }
    };
    // What a stand still leaves of a sealed packet is of no use any more.
    std::thread::sleep(peer.until.saturating_duration_since(Instant::now()));
    if stood {
        return Ok("no more is read of it".to_owned());
    }
    match hand.parting(Duration::from_secs(10)) {
        Parting::Told { code: 11, text } if text.contains("asks for more than it reads") => {
            Ok(format!("DISCONNECT 11, {text}"))
        }
        Parting::Closed => Ok("closed".to_owned()),
        other => Err(Wrong(format!("after {sent} requests {other:?}"))),
    }
}
