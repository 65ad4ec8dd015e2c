//! Attacks that the relay ends by its own clock: peers before a login, after 20 s; a terminal that does
//! not answer an open, after 10 s. Each is measured while it lasts, and all go on beside one another.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use tidegate_ssh_client::hand::closed;
use tidegate_ssh_client::{Writer, number};

use super::terminals::{asked, attached, refusal};
use crate::arena::Peer;
use crate::run::{Attack, KNOWN, STRANGER, Verdict, Wrong};

pub const ATTACKS: &[Attack] = &[
    Attack { name: "slow bytes", peers: 32, rounds: 1, budget: STRANGER, run: slow_bytes },
    Attack { name: "half a banner", peers: 64, rounds: 1, budget: STRANGER, run: half_a_banner },
    Attack {
        name: "half-open: nothing is ever said",
        peers: 64,
        rounds: 1,
        budget: STRANGER,
        run: half_open,
    },
    Attack {
        name: "black hole in the middle of a key exchange",
        peers: 64,
        rounds: 1,
        budget: STRANGER,
        run: black_hole,
    },
    Attack {
        name: "a terminal that never answers an open",
        peers: 4,
        rounds: 1,
        budget: KNOWN,
        run: never,
    },
    Attack {
        name: "a terminal that answers an open too late",
        peers: 4,
        rounds: 1,
        budget: KNOWN,
        run: late,
    },
];

/// What a login may take.
const GRACE: Duration = Duration::from_secs(20);
/// By how much a busy machine may be late.
const LATE: Duration = Duration::from_secs(10);

/// Whether it ended as the time for a login was over, and not long before.
fn by_grace(begun: Instant) -> Verdict {
    let lasted = begun.elapsed();
    if lasted + Duration::from_secs(1) < GRACE {
        return Err(Wrong(format!("closed after {lasted:?}")));
    }
    Ok("closed after 20 s".to_owned())
}

fn ended(socket: &std::net::TcpStream, begun: Instant) -> Verdict {
    // A while at least, if the machine has stood still.
    if closed(socket, (GRACE + LATE).saturating_sub(begun.elapsed()).max(LATE)) {
        by_grace(begun)
    } else {
        Err(Wrong(format!("open after {:?}", begun.elapsed())))
    }
}

fn slow_bytes(peer: &Peer<'_>) -> Verdict {
    let begun = Instant::now();
    let mut socket = peer.connect()?;
    // A banner, and a packet of 30,000 bytes with its length, one byte after the other.
    let bytes = [&b"SSH-2.0-slow\r\n"[..], &29_996_u32.to_be_bytes(), &vec![0; 29_996]].concat();
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    // As many as come within twice the time.
    for byte in bytes.into_iter().take(400) {
        if socket.write_all(&[byte]).is_err() || matches!(socket.read(&mut [0; 4096]), Ok(0)) {
            return by_grace(begun);
        }
    }
    Err(Wrong(format!("open after {:?}", begun.elapsed())))
}

fn half_a_banner(peer: &Peer<'_>) -> Verdict {
    let begun = Instant::now();
    let mut socket = peer.connect()?;
    socket.write_all(b"SSH-2.0-hal")?;
    ended(&socket, begun)
}

fn half_open(peer: &Peer<'_>) -> Verdict {
    let begun = Instant::now();
    let socket = peer.connect()?;
    ended(&socket, begun)
}

fn black_hole(peer: &Peer<'_>) -> Verdict {
    let begun = Instant::now();
    let mut hand = peer.hand()?;
    hand.flush()?;
    // It never reads, never closes: what the relay does, its kernel alone knows.
    std::thread::sleep(GRACE);
    let hand = hand.socket;
    ended(&hand, begun)
}

fn never(peer: &Peer<'_>) -> Verdict {
    let (mut terminal, name, _) = attached(peer)?;
    let (mut staff, _) = asked(peer, &mut terminal, &name)?;
    let said = refusal(&mut staff)?;
    if said.contains("is connected but did not answer within 10s") {
        Ok("staff: is connected but did not answer within 10s".to_owned())
    } else {
        Err(Wrong(said))
    }
}

fn late(peer: &Peer<'_>) -> Verdict {
    // Terminals of their own.
    let peer = &Peer { number: peer.number + 8, ..*peer };
    let (mut terminal, name, _) = attached(peer)?;
    let (mut staff, channel) = asked(peer, &mut terminal, &name)?;
    let said = refusal(&mut staff)?;
    if !said.contains("did not answer within 10s") {
        return Err(Wrong(said));
    }
    let mut answer = Vec::new();
    let mut w = Writer::new(&mut answer);
    w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(channel).u32(0).u32(1 << 16).u32(1 << 15);
    terminal.say(&answer)?;
    terminal.next(&[number::CHANNEL_CLOSE])?;
    // It is of use again.
    let mut close = Vec::new();
    Writer::new(&mut close).u8(number::CHANNEL_CLOSE).u32(channel);
    terminal.say(&close)?;
    asked(peer, &mut terminal, &name)?;
    Ok("staff are told so after 10 s, what comes later is closed".to_owned())
}
