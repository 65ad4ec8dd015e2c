//! Terminals of mallory's: forwards by the thousand, forwards that come and go, and answers to an open
//! that are none.

use tidegate_ssh_client::hand::Hand;
use tidegate_ssh_client::{Reader, Writer, number};

use super::channels::direct;
use crate::arena::{Peer, WEB};
use crate::run::{Attack, KNOWN, Verdict, Wrong};
use crate::told::{is_clean, told, told_or_closed};

pub const ATTACKS: &[Attack] = &[
    Attack { name: "10,000 forwards", peers: 8, rounds: 1, budget: KNOWN, run: forwards },
    Attack { name: "cancel and re-add loops", peers: 8, rounds: 1, budget: KNOWN, run: cancels },
    Attack {
        name: "a terminal that answers an open with junk",
        peers: 8,
        rounds: 1,
        budget: KNOWN,
        run: junk,
    },
];

/// tcpip-forward, or its cancelling.
fn asks(name: &str, address: &str, port: u32) -> Vec<u8> {
    let mut message = Vec::new();
    let mut w = Writer::new(&mut message);
    w.u8(number::GLOBAL_REQUEST).string(name).bool(true).string(address).u32(port);
    message
}

const ANSWERS: [u8; 2] = [number::REQUEST_SUCCESS, number::REQUEST_FAILURE];

fn answered(hand: &mut Hand, what: &[u8], wanted: u8) -> Result<(), Wrong> {
    hand.say(what)?;
    let answer = hand.next(&ANSWERS)?[0];
    if answer == wanted { Ok(()) } else { Err(Wrong(format!("{answer} in place of {wanted}"))) }
}

/// A terminal that offers its service.
pub fn attached(peer: &Peer<'_>) -> Result<(Hand, String, u16), Wrong> {
    let (mut terminal, name, port) = peer.terminal()?;
    let forward = asks("tcpip-forward", "localhost", port.into());
    answered(&mut terminal, &forward, number::REQUEST_SUCCESS)?;
    Ok((terminal, name, port))
}

fn forwards(peer: &Peer<'_>) -> Verdict {
    let (mut terminal, _, _) = attached(peer)?;
    for port in 1..10_001 {
        let address = if port & 1 == 0 { "" } else { "FORGED\n\u{1b}[2J" };
        terminal.client.say(&asks("tcpip-forward", address, port));
    }
    let _ = terminal.flush();
    told_or_closed(&mut terminal, 11, "")
}

fn cancels(peer: &Peer<'_>) -> Verdict {
    let (mut terminal, _, port) = attached(peer)?;
    let cancel = asks("cancel-tcpip-forward", "localhost", port.into());
    let forward = asks("tcpip-forward", "localhost", port.into());
    // As many as it may ask for at once.
    for _ in 0..(256 / 3) {
        answered(&mut terminal, &cancel, number::REQUEST_SUCCESS)?;
        // A second time there is nothing to be cancelled.
        answered(&mut terminal, &cancel, number::REQUEST_FAILURE)?;
        answered(&mut terminal, &forward, number::REQUEST_SUCCESS)?;
    }
    for _ in 0..5_000 {
        // Until it is told to go.
        if terminal.say(&cancel).is_err() || terminal.next(&ANSWERS).is_err() {
            break;
        }
    }
    told_or_closed(&mut terminal, 11, "too fast")
}

/// Mallory has asked for the terminal's service; what the terminal was asked: the relay's number.
pub fn asked(peer: &Peer<'_>, terminal: &mut Hand, name: &str) -> Result<(Hand, u32), Wrong> {
    let mut staff = peer.staff()?;
    staff.say(&direct(0, 1 << 16, 1 << 15, name, WEB))?;
    let open = terminal.next(&[number::CHANNEL_OPEN])?;
    let mut r = Reader::new(&open[1..]);
    let malformed = |_| Wrong("malformed".to_owned());
    r.string().map_err(malformed)?;
    Ok((staff, r.u32().map_err(malformed)?))
}

/// What staff are told of an open that came to nothing: one clean sentence.
pub fn refusal(staff: &mut Hand) -> Result<String, Wrong> {
    let answer = staff.next(&[number::CHANNEL_OPEN_FAILURE, number::CHANNEL_OPEN_CONFIRMATION])?;
    if answer[0] != number::CHANNEL_OPEN_FAILURE {
        return Err(Wrong("the channel was opened".to_owned()));
    }
    let mut r = Reader::new(&answer[5..]);
    let malformed = |_| Wrong("malformed".to_owned());
    r.u32().map_err(malformed)?;
    let text = r.text().map_err(malformed)?.to_owned();
    if is_clean(&text) { Ok(text) } else { Err(Wrong(format!("{text:?} was said"))) }
}

fn junk(peer: &Peer<'_>) -> Verdict {
    let (mut terminal, name, _) = attached(peer)?;
    let (mut staff, channel) = asked(peer, &mut terminal, &name)?;
    let mut answer = Vec::new();
    let mut w = Writer::new(&mut answer);
    match peer.number % 4 {
        // Of a channel that nobody asked for.
        0 => w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(channel + 7).u32(0).u32(0).u32(0),
        // Shorter than its fields.
        1 => w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(channel).u32(0),
        // Data in place of an answer.
        2 => w.u8(number::CHANNEL_DATA).u32(channel).string("junk"),
        // A refusal in words that are to be a line of somebody's log.
        _ => w
            .u8(number::CHANNEL_OPEN_FAILURE)
            .u32(channel)
            .u32(99)
            .string("\u{1b}[2J\nFORGED \u{202e}".repeat(500))
            .string(""),
    };
    terminal.say(&answer)?;
    if peer.number % 4 == 3 {
        refusal(&mut staff)?;
        return Ok("staff are told in clean words that it refuses".to_owned());
    }
    let words = ["not asked for", "a message ends early", "there is no open channel"];
    let verdict = told(&mut terminal, 2, words[usize::from(peer.number % 4)])?;
    let said = refusal(&mut staff)?;
    if said.contains("has just lost its connection") {
        Ok(format!("{verdict}; staff: has just lost its connection"))
    } else {
        Err(Wrong(said))
    }
}
