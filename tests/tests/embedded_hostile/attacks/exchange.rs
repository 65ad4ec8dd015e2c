//! Packets and key exchanges: lengths that none can have, KEXINIT and rekeys without end, messages that
//! somebody in the middle puts before NEWKEYS.

use std::time::Instant;

use tidegate_ssh_client::hand::Hand;
use tidegate_ssh_client::{Offer, Writer, number};

use crate::arena::Peer;
use crate::run::{Attack, KNOWN, STRANGER, Verdict, Wrong};
use crate::told::{told, told_or_closed};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "packet lengths 0, 1, odd, 35,004, 0xffffffff in clear",
        peers: 16,
        rounds: 30,
        budget: STRANGER,
        run: lengths_in_clear,
    },
    Attack {
        name: "the same under keys",
        peers: 16,
        rounds: 20,
        budget: STRANGER,
        run: lengths_under_keys,
    },
    Attack {
        name: "insertion before NEWKEYS (Terrapin)",
        peers: 16,
        rounds: 30,
        budget: STRANGER,
        run: insertion,
    },
    Attack { name: "flood of KEXINIT", peers: 16, rounds: 30, budget: STRANGER, run: kexinits },
    Attack {
        name: "rekeys without end before a login",
        peers: 8,
        rounds: 4,
        budget: STRANGER,
        run: rekeys_before,
    },
    Attack {
        name: "rekeys without end after a login",
        peers: 4,
        rounds: 1,
        budget: KNOWN,
        run: rekeys_after,
    },
];

const LENGTHS: [u32; 5] = [0, 1, 13, 35_004, 0xffff_ffff];

fn lengths_in_clear(peer: &Peer<'_>) -> Verdict {
    let mut hand = Hand::silent(peer.connect()?, Offer::default())?;
    hand.client.greet();
    let length = LENGTHS[(usize::from(peer.number) + peer.round as usize) % LENGTHS.len()];
    hand.raw(&[&length.to_be_bytes()[..], &[0xa5; 64]].concat())?;
    told(&mut hand, 2, "a packet cannot have")
}

/// AES-GCM, whose lengths are in clear, so that they can be anything.
fn gcm() -> Offer {
    let ciphers = vec!["aes256-gcm@openssh.com"];
    Offer { ciphers: [ciphers.clone(), ciphers], ..Offer::default() }
}

fn lengths_under_keys(peer: &Peer<'_>) -> Verdict {
    let mut hand = Hand::new(peer.connect()?, gcm())?.exchange()?;
    hand.client.send(&[number::IGNORE, 0, 0, 0, 0]);
    let mut packet = hand.client.take();
    let length = LENGTHS[(usize::from(peer.number) + peer.round as usize) % LENGTHS.len()];
    packet[..4].copy_from_slice(&length.to_be_bytes());
    hand.raw(&packet)?;
    told(&mut hand, 2, "a packet cannot have")
}

fn insertion(peer: &Peer<'_>) -> Verdict {
    let ignore = [number::IGNORE, 0, 0, 0, 0];
    if peer.round.is_multiple_of(2) {
        // In front of the client's KEXINIT, so that sequence numbers are off by one later.
        let mut hand = Hand::silent(peer.connect()?, Offer::default())?;
        hand.client.greet();
        hand.client.send(&ignore);
        hand.client.begin();
        hand.flush()?;
        return told(&mut hand, 2, "a message came before KEXINIT");
    }
    // Behind it.
    let mut hand = peer.hand()?;
    hand.client.send(&ignore);
    hand.flush()?;
    told(&mut hand, 2, "came within the first key exchange, which is strict")
}

fn kexinits(peer: &Peer<'_>) -> Verdict {
    let mut hand =
        if peer.round.is_multiple_of(2) { peer.hand()? } else { peer.hand()?.exchange()? };
    for _ in 0..100 {
        let kexinit = hand.client.kexinit();
        if hand.force(&kexinit).is_err() {
            break;
        }
    }
    told_or_closed(&mut hand, 2, "KEXINIT came before the key exchange under way was over")
}

/// New keys again and again, until somebody says enough.
fn rekeys(hand: &mut Hand, most: usize, words: &str) -> Verdict {
    let until = Instant::now() + std::time::Duration::from_secs(20);
    while hand.client.exchanges <= most && Instant::now() < until {
        hand.client.begin();
        let before = hand.client.exchanges;
        while hand.client.exchanges == before {
            if hand.flush().is_err() || hand.turn(std::time::Duration::from_secs(10)).is_err() {
                return told(hand, 11, words);
            }
            if hand.client.got.iter().any(|it| it.first() == Some(&number::DISCONNECT)) {
                return told(hand, 11, words);
            }
        }
        hand.flush()?;
    }
    Err(Wrong(format!("{} key exchanges were taken", hand.client.exchanges)))
}

fn rekeys_before(peer: &Peer<'_>) -> Verdict {
    // One to begin with, and eight more.
    rekeys(&mut peer.stranger()?, 10, "new keys were asked for too often before a login")
}

fn rekeys_after(peer: &Peer<'_>) -> Verdict {
    // 64 at once, and one more each second and for 2 KiB that pass.
    let mut hand = peer.staff()?;
    let mut keepalive = Vec::new();
    Writer::new(&mut keepalive).u8(number::GLOBAL_REQUEST).string("keepalive").bool(false);
    hand.say(&keepalive)?;
    rekeys(&mut hand, 400, "new keys were asked for too often for what was sent")
}
