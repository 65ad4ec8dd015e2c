//! Staff who do not go when their session is cut.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tidegate_tests::SOON;
use tidegate_tests::procfs::sockets_on;
use tidegate_tests::wait::poll;

use super::channels::open;
use crate::arena::{FLOOD, Peer, long};
use crate::run::{Attack, KNOWN, Verdict, Wrong};

pub const ATTACKS: &[Attack] =
    &[Attack { name: "peers that ignore a cut", peers: 4, rounds: 1, budget: KNOWN, run: ignored }];

/// After a cut; the test's own commands and the machine's other work come on top in the short form.
const GONE: Duration = Duration::from_secs(1);

fn ignored(peer: &Peer<'_>) -> Verdict {
    let mut hand = peer.staff()?;
    let local = hand.socket.local_addr()?;
    // A stream that it does not read, so that a goodbye cannot be read either.
    open(&mut hand, 0, (u32::MAX, 1 << 15), FLOOD)?;
    let gate = &peer.arena.gate;
    // Each peer comes from a network of its own.
    let of_peer = |session: &serde_json::Value| {
        let is_it = session["source"].as_str() == Some(&local.ip().to_string());
        if is_it { session["name"].as_str().map(str::to_owned) } else { None }
    };
    let session = poll(SOON, || gate.sessions().iter().find_map(of_peer));
    let session = session.ok_or_else(|| Wrong("no such session".to_owned()))?;
    gate.control(&["cut", &session]).ok();
    let cut = Instant::now();
    let IpAddr::V4(ip) = local.ip() else { return Err(Wrong("no IPv4".to_owned())) };
    let open = || sockets_on(gate.port).iter().any(|it| it.remote == (ip, local.port()));
    let most = if long() { GONE } else { GONE * 5 };
    match poll(most, || (!open()).then_some(())) {
        Some(()) => Ok("its socket is gone within 1 s".to_owned()),
        None => Err(Wrong(format!("its socket is there {:?} after the cut", cut.elapsed()))),
    }
}
