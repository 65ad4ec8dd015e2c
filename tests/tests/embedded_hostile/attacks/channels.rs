//! Channels of a login user: windows, orders and ends that none may have, and as many as there can be.

use std::time::{Duration, Instant};

use tidegate_ssh_client::hand::Hand;
use tidegate_ssh_client::{Reader, Writer, number};

use crate::arena::{FLOOD, Peer, WEB};
use crate::run::{Attack, KNOWN, Verdict, Wrong};
use crate::told::{told, told_or_closed};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "windows and packets of 0 and 4 GiB",
        peers: 8,
        rounds: 20,
        budget: KNOWN,
        run: windows,
    },
    Attack { name: "data beyond the window", peers: 8, rounds: 20, budget: KNOWN, run: beyond },
    Attack {
        name: "unknown, closed and doubly closed channels",
        peers: 8,
        rounds: 20,
        budget: KNOWN,
        run: unknown,
    },
    Attack { name: "EOF, then data", peers: 8, rounds: 20, budget: KNOWN, run: after_eof },
    Attack { name: "10,000 opens", peers: 4, rounds: 1, budget: KNOWN, run: opens },
    Attack {
        name: "readers that never read",
        peers: 8,
        rounds: 1,
        budget: KNOWN,
        run: never_reads,
    },
];

/// CHANNEL_OPEN of direct-tcpip.
pub fn direct(channel: u32, window: u32, packet: u32, host: &str, port: u32) -> Vec<u8> {
    let mut message = Vec::new();
    let mut w = Writer::new(&mut message);
    w.u8(number::CHANNEL_OPEN).string("direct-tcpip").u32(channel).u32(window).u32(packet);
    w.string(host).u32(port).string("127.0.0.1").u32(1);
    message
}

/// A channel to a service of kiosk-17: the relay's number of it.
pub fn open(hand: &mut Hand, channel: u32, gives: (u32, u32), port: u32) -> Result<u32, Wrong> {
    hand.say(&direct(channel, gives.0, gives.1, "kiosk-17", port))?;
    let answer = hand.next(&[number::CHANNEL_OPEN_CONFIRMATION, number::CHANNEL_OPEN_FAILURE])?;
    if answer[0] == number::CHANNEL_OPEN_FAILURE {
        return Err(Wrong(String::from_utf8_lossy(&answer).into_owned()));
    }
    let mut r = Reader::new(&answer[5..]);
    r.u32().map_err(|_| Wrong("malformed".to_owned()))
}

fn about(kind: u8, channel: u32) -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message).u8(kind).u32(channel);
    message
}

fn data(channel: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message).u8(number::CHANNEL_DATA).u32(channel).string(bytes);
    message
}

fn adjust(channel: u32, by: u32) -> Vec<u8> {
    let mut message = Vec::new();
    Writer::new(&mut message).u8(number::CHANNEL_WINDOW_ADJUST).u32(channel).u32(by);
    message
}

fn windows(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    // Nothing may come to either of these.
    let no_window = open(&mut hand, 0, (0, 1 << 15), WEB)?;
    let no_packet = open(&mut hand, 1, (u32::MAX, 0), WEB)?;
    hand.say(&data(no_window, b"ping"))?;
    hand.say(&data(no_packet, b"ping"))?;
    // And everything to this.
    let all = open(&mut hand, 2, (u32::MAX, u32::MAX), WEB)?;
    hand.say(&data(all, b"ping"))?;
    let echo = hand.next(&[number::CHANNEL_DATA])?;
    if echo != data(2, b"ping") {
        return Err(Wrong(format!("{echo:?} came")));
    }
    hand.say(&adjust(no_window, u32::MAX))?;
    let echo = hand.next(&[number::CHANNEL_DATA])?;
    if echo != data(0, b"ping") {
        return Err(Wrong(format!("{echo:?} came")));
    }
    // Four are used up.
    hand.say(&adjust(no_window, 5))?;
    told(&mut hand, 2, "was made too large")
}

fn beyond(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    if peer.round % 2 == 1 {
        let channel = open(&mut hand, 0, (0, 1 << 15), WEB)?;
        hand.force(&data(channel, &vec![0; 33 << 10]))?;
        return told(&mut hand, 2, "got a packet beyond");
    }
    // The service has nowhere to go with what it echoes, so that the window is soon used up.
    let channel = open(&mut hand, 0, (0, 1 << 15), WEB)?;
    let piece = data(channel, &vec![0; 32 << 10]);
    let mut sent = 0;
    while sent < 64 << 20 && hand.say(&piece).is_ok() {
        sent += 32 << 10;
    }
    told_or_closed(&mut hand, 2, "got data beyond its window")
}

fn unknown(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    match peer.round % 4 {
        0 => hand.say(&data(4711, b"x"))?,
        1 => {
            // A window for nobody does nothing, as it may have crossed a CLOSE.
            hand.client.say(&adjust(u32::MAX, u32::MAX));
            hand.say(&about(number::CHANNEL_EOF, u32::MAX))?;
        }
        2 => {
            let channel = open(&mut hand, 0, (1 << 16, 1 << 15), WEB)?;
            hand.say(&about(number::CHANNEL_CLOSE, channel))?;
            hand.next(&[number::CHANNEL_CLOSE])?;
            hand.say(&data(channel, b"x"))?;
        }
        _ => {
            let channel = open(&mut hand, 0, (1 << 16, 1 << 15), WEB)?;
            hand.say(&about(number::CHANNEL_CLOSE, channel))?;
            hand.say(&about(number::CHANNEL_CLOSE, channel))?;
        }
    }
    told(&mut hand, 2, "there is no open channel")
}

fn after_eof(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    // The echo has no window, so that it does not end by itself.
    let channel = open(&mut hand, 0, (0, 1 << 15), WEB)?;
    hand.client.say(&data(channel, b"x"));
    hand.client.say(&about(number::CHANNEL_EOF, channel));
    hand.client.say(&data(channel, b"x"));
    hand.flush()?;
    told(&mut hand, 2, "got data after its EOF")
}

fn opens(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    for number in 0..10_000 {
        hand.client.say(&direct(number, 1 << 16, 1 << 15, "kiosk-17", WEB));
    }
    // What it does not read any more is lost.
    let _ = hand.flush();
    told_or_closed(&mut hand, 11, "channels are opened too fast")
}

fn never_reads(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    open(&mut hand, 0, (u32::MAX, 1 << 15), FLOOD)?;
    std::thread::sleep(peer.until.saturating_duration_since(Instant::now()));
    // What had come to lie in the kernel of this machine is there, and the relay has not parted.
    hand.turn(Duration::from_secs(1))?;
    Ok("held back, and nothing of it kept".to_owned())
}
