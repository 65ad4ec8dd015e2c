//! Logins: keys that nobody has, signatures that are somebody else's, names that would be a line of the
//! audit or the log.

use std::io::ErrorKind;

use tidegate_ssh_client::hand::Hand;
use tidegate_ssh_client::{Key, Offer, Reader, Writer, number};

use crate::arena::{Peer, WEB};
use crate::run::{Attack, KNOWN, STRANGER, Verdict, Wrong};
use crate::told::{SOON, is_clean, told};

/// What no line of the audit or the log may begin with.
pub const FORGED: &str = "FORGED";

pub const ATTACKS: &[Attack] = &[
    Attack { name: "10,000 key probes", peers: 25, rounds: 20, budget: STRANGER, run: probes },
    Attack {
        name: "signatures over another session",
        peers: 16,
        rounds: 12,
        budget: STRANGER,
        run: replayed,
    },
    Attack {
        name: "unproven user names with control characters, newlines, 64 KiB",
        peers: 16,
        rounds: 12,
        budget: STRANGER,
        run: unproven_names,
    },
    Attack {
        name: "the same with a proven key",
        peers: 4,
        rounds: 6,
        budget: KNOWN,
        run: proven_names,
    },
];

/// Names of all kinds that a line could be made of.
fn name(round: u32) -> Vec<u8> {
    let forged = format!("{FORGED} {{\"event\":\"Allow\",\"user\":\"alice\"}}");
    match round % 6 {
        0 => format!("alice\n{forged}\n").into_bytes(),
        1 => format!("alice\r\n{forged}\r\n").into_bytes(),
        2 => format!("\u{1b}[2J\u{1b}[H{forged}\0\u{7}\u{8}").into_bytes(),
        3 => format!("alice\u{2028}{forged}\u{85}\u{202e}").into_bytes(),
        4 => [&[0xff, 0xfe, 0xc0, 0x80, b'\n'][..], forged.as_bytes()].concat(),
        _ => format!("\n{forged}\n").repeat(500).into_bytes(),
    }
}

/// A request to log in under this name, with a key's blob, not signed.
fn request(user: &[u8], key: &Key) -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message)
        .u8(number::USERAUTH_REQUEST)
        .string(user)
        .string("ssh-connection")
        .string("publickey")
        .bool(false)
        .string(key.algorithm)
        .string(&key.blob);
    message
}

fn probes(peer: &Peer<'_>) -> Verdict {
    // All from one network: what they ask together is what counts.
    let source = std::net::Ipv4Addr::new(127, 16 + peer.row, 0, 1);
    let hand = Hand::new(peer.connect_from(source)?, Offer::default())?.exchange();
    let mut hand = match hand.and_then(Hand::service) {
        Ok(hand) => hand,
        Err(error) if error.to_string().contains("too many connections begin at once") => {
            return Ok("DISCONNECT, too many connections begin at once".to_owned());
        }
        // That may be lost where the peer still writes.
        Err(error)
            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            return Ok("closed".to_owned());
        }
        Err(error) => return Err(error.into()),
    };
    for n in 0..21 {
        let number = (u32::from(peer.number) * 10_000 + peer.round) * 21 + n;
        hand.say(&request(b"alice", &Key::numbered(number)))?;
        let answer = hand.next(&[number::USERAUTH_FAILURE, number::DISCONNECT])?;
        if answer[0] == number::DISCONNECT {
            let text = String::from_utf8_lossy(&answer).into_owned();
            for words in ["too many keys were offered", "too many unknown keys were offered"] {
                if text.contains(words) {
                    return if hand.is_closed(SOON) {
                        Ok(format!("DISCONNECT 14, {words}"))
                    } else {
                        Err(Wrong("not closed".to_owned()))
                    };
                }
            }
            return Err(Wrong(text));
        }
    }
    Err(Wrong("21 probes were answered".to_owned()))
}

fn replayed(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.stranger()?;
    let mut other = hand.client.session.unwrap_or_default();
    other[usize::from(peer.number) % 32] ^= 1;
    for _ in 0..4 {
        hand.say(&peer.arena.mallory.request("mallory", Some(&other), None))?;
        let kinds = [number::USERAUTH_FAILURE, number::USERAUTH_SUCCESS, number::DISCONNECT];
        match hand.next(&kinds)?[0] {
            number::USERAUTH_FAILURE => {}
            number::DISCONNECT => {
                return told(&mut hand, 14, "too many known keys did not log in");
            }
            _ => return Err(Wrong("let in".to_owned())),
        }
    }
    Err(Wrong("four were answered".to_owned()))
}

fn unproven_names(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.stranger()?;
    if peer.round % 7 == 6 {
        hand.force(&request(&vec![b'\n'; 64 << 10], &peer.arena.mallory))?;
        return told(&mut hand, 2, "a packet cannot have");
    }
    let user = name(peer.round);
    // Known, and not.
    hand.say(&request(&user, &peer.arena.mallory))?;
    hand.next(&[number::USERAUTH_PK_OK])?;
    hand.say(&request(&user, &Key::numbered(peer.round)))?;
    hand.next(&[number::USERAUTH_FAILURE])?;
    Ok("answered by the key alone".to_owned())
}

fn proven_names(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.stranger()?;
    // What a signature covers does not care for text.
    let user = name(peer.round);
    let user = String::from_utf8_lossy(&user).into_owned();
    let session = hand.client.session.unwrap_or_default();
    hand.say(&peer.arena.mallory.request(&user, Some(&session), None))?;
    hand.next(&[number::USERAUTH_SUCCESS])?;
    hand.say(&super::channels::direct(0, 1 << 16, 1 << 15, "kiosk-17", WEB))?;
    // Four connections of a barred key are told on their channels, the others as they are sent away.
    let said = hand.next(&[number::CHANNEL_OPEN_FAILURE, number::DISCONNECT])?;
    let mut r = Reader::new(&said[1..]);
    let malformed = |_| Wrong("malformed".to_owned());
    if said[0] == number::CHANNEL_OPEN_FAILURE {
        r.u32().map_err(malformed)?;
    }
    r.u32().map_err(malformed)?;
    let text = r.text().map_err(malformed)?;
    if is_clean(text) {
        Ok("let in as nobody, and told one clean sentence".to_owned())
    } else {
        Err(Wrong(format!("{text:?}")))
    }
}
