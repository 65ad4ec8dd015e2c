//! One attack after the other, each measured: what the relay holds before, at most and after, and how
//! the sessions beside it fare.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tidegate_tests::Gate;
use tidegate_tests::wait::poll;

use crate::arena::{Arena, Peer, TERMINALS, long};
use crate::beside::{Beside, p99};
use crate::lab::give_way;
use crate::measure::{Held, Row, kib};

/// What a peer has to say when something is not as it should be.
#[derive(Debug)]
pub struct Wrong(pub String);

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// How one round of a peer ended, in words that are the same for each that ended so.
pub type Verdict = Result<String, Wrong>;

/// What one connection may cost before a key is proven, in KiB: the buffers of its layers, 28 KiB of
/// replies, a packet of 35,000 bytes, and what the allocator adds.
pub const STRANGER: u64 = 128;
/// After a login: 64 KiB that are sealed and 128 KiB that the socket keeps back, replies of 256 KiB until
/// nothing more is read, and a channel's window.
pub const KNOWN: u64 = 1024;

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    /// In the short form; four times as many in the long one, where each needs no terminal of its own.
    pub peers: u16,
    /// Times that each peer attacks, at most, in the short form.
    pub rounds: u32,
    /// What one peer may cost, in KiB.
    pub budget: u64,
    pub run: fn(&Peer<'_>) -> Verdict,
}

/// KiB that a relay may hold beside what its peers cost, whatever it was: pages that the allocator has not
/// given back, and four spare buffers of 256 KiB.
const ALLOCATOR: u64 = 4 << 10;
/// KiB of buffers that are lent to connections that read, all together: 32 of 256 KiB.
const LENT: u64 = 8 << 10;
/// Times that an attack is measured, at most, where an echo beside it was slower than it may be, or where
/// memory was not back. Other work of the machine comes and goes, and what the allocator keeps at the
/// first time serves the second; what an attack does to an echo, and what it leaks, stays.
const TIMES: u32 = 3;
/// How long memory has to be as it was before.
const BACK: Duration = Duration::from_secs(5);
/// And descriptors and tasks: what a login user who left had sent is given 30 s to arrive, where its
/// terminal does not take it.
const GONE: Duration = Duration::from_secs(35);

impl Attack {
    fn size(&self) -> (u16, u32, Duration) {
        if long() {
            let peers = (self.peers * 4).min(if self.budget == KNOWN { TERMINALS } else { 250 });
            (peers, self.rounds.saturating_mul(10), Duration::from_secs(10))
        } else {
            (self.peers, self.rounds, Duration::from_secs(1))
        }
    }
}

/// The p99 of the echo with nobody hostile there.
fn idle(pid: i32, beside: &Beside) -> Duration {
    let until = Instant::now() + Duration::from_millis(if long() { 5000 } else { 500 });
    beside.echoes();
    watch(pid, || Instant::now() < until);
    p99(beside.echoes())
}

/// The same with as many threads as the machine has processors that never rest, as the peers' hardly do.
fn busy(pid: i32, beside: &Beside) -> Duration {
    let rest = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let rest = &rest;
        let spin = move || {
            while !rest.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        scope.spawn(move || {
            give_way();
            for _ in 0..std::thread::available_parallelism().map_or(2, NonZero::get) {
                scope.spawn(spin);
            }
        });
        let busy = idle(pid, beside);
        rest.store(true, Ordering::Relaxed);
        busy
    })
}

/// What peers have said so far.
#[derive(Default)]
struct Said {
    verdicts: Mutex<BTreeMap<String, u64>>,
    wrongs: Mutex<Vec<String>>,
}

impl Said {
    /// One peer's rounds.
    fn attack(&self, attack: &Attack, rounds: u32, mut peer: Peer<'_>) {
        for round in 0..rounds {
            if round > 0 && Instant::now() >= peer.until {
                break;
            }
            peer.round = round;
            match (attack.run)(&peer) {
                Ok(said) => *lock(&self.verdicts).entry(said).or_default() += 1,
                Err(Wrong(what)) => {
                    lock(&self.wrongs).push(format!("peer {}: {what}", peer.number));
                    break;
                }
            }
        }
    }
}

/// An attack that goes on.
pub struct Begun<'scope> {
    said: Arc<Said>,
    peers: Vec<ScopedJoinHandle<'scope, ()>>,
    before: Held,
    row: Row,
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// By how much a sleep is late where the machine has stood still: a virtual one that was suspended.
const STILL: Duration = Duration::from_secs(3);

/// The most that a process holds while `holds`, and by how much sleeps were late.
fn watch(pid: i32, mut holds: impl FnMut() -> bool) -> (u64, Vec<Duration>) {
    let (mut most, mut late) = (kib(pid), Vec::new());
    while holds() {
        most = most.max(kib(pid));
        let begun = Instant::now();
        std::thread::sleep(LOOK);
        late.push(begun.elapsed().saturating_sub(LOOK));
    }
    (most.max(kib(pid)), late)
}

/// Begins an attack and measures until it is over, or for as long as the table's rows are where it goes
/// on: then `outlasts`. `row`: a number of its own.
pub fn begin<'scope>(
    scope: &'scope Scope<'scope, '_>,
    arena: &'scope Arena,
    beside: &Beside,
    row: u8,
    attack: Attack,
    outlasts: bool,
) -> Begun<'scope> {
    let (pid, name) = (arena.pid(), attack.name);
    let (peers, rounds, lasts) = attack.size();
    let (idle, busy) = (idle(pid, beside), busy(pid, beside));
    let before = Held::by(pid, arena.gate.admin);
    let (moved, begun) = (beside.moved(), Instant::now());
    let until = begun + lasts;
    let said = Arc::new(Said::default());
    let heard = Arc::clone(&said);
    let attackers = scope.spawn(move || {
        give_way();
        let peers = (0..peers).map(|number| {
            let said = Arc::clone(&heard);
            let peer = Peer { arena, row, number, round: 0, until };
            scope.spawn(move || said.attack(&attack, rounds, peer))
        });
        peers.collect::<Vec<_>>()
    });
    let attackers = attackers.join().expect("attackers");
    let mut row = Row {
        attack: name,
        peers,
        rounds: 0,
        kib: [before.kib, 0, 0],
        idle,
        busy,
        echoes: 0,
        late: Duration::ZERO,
        beside: Duration::ZERO,
        pace: 0.0,
        stood_still: false,
        faults: Vec::new(),
        doubts: Vec::new(),
        verdicts: Vec::new(),
    };
    for time in 1..=TIMES {
        let (peak, late) = watch(pid, || {
            let all = || attackers.iter().all(ScopedJoinHandle::is_finished);
            if outlasts { Instant::now() < begun + lasts * time } else { !all() }
        });
        row.kib[1] = row.kib[1].max(peak);
        let echoes = beside.echoes();
        row.stood_still |= late.iter().any(|late| *late > STILL);
        (row.echoes, row.beside, row.late) = (echoes.len(), p99(echoes), p99(late));
        if !outlasts || row.is_calm(long()) {
            break;
        }
    }
    let took = begun.elapsed();
    let moved = beside.moved() - moved;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let pace = moved as f64 / took.as_secs_f64() / 1e6;
    row.pace = pace;
    println!(
        "{name}: {took:?}, {before:?}, peak {} KiB, echo {:?} of {}, idle {:?}, busy {:?}, \
         late {:?}",
        row.kib[1], row.beside, row.echoes, row.idle, row.busy, row.late
    );
    assert!(arena.gate.relay().is_running(), "{name}: the relay has ended");
    assert!(beside.lives(), "{name}: a session beside it has ended");
    let most = before.kib + u64::from(peers) * attack.budget + LENT + ALLOCATOR;
    if row.kib[1] > most {
        row.faults.push(format!("{} KiB at its peak, {most} may be", row.kib[1]));
    }
    if moved == 0 || row.echoes == 0 {
        row.faults.push(format!("{moved} bytes and {} echoes beside it", row.echoes));
    }
    Begun { said, peers: attackers, before, row }
}

impl Begun<'_> {
    /// What it has come to, once its peers have ended.
    pub fn end(self, gate: &Gate, pid: i32) -> Row {
        let Self { said, peers, before, mut row } = self;
        let panicked = peers.into_iter().filter_map(|peer| peer.join().err()).count();
        if panicked > 0 {
            row.faults.push(format!("{panicked} peers panicked"));
        }
        row.verdicts = std::mem::take(&mut *lock(&said.verdicts)).into_iter().collect();
        row.rounds = row.verdicts.iter().map(|(_, count)| count).sum();
        let wrongs = std::mem::take(&mut *lock(&said.wrongs));
        if !wrongs.is_empty() {
            let found = format!("{} peers: {wrongs:?}", wrongs.len());
            let into = if row.stood_still { &mut row.doubts } else { &mut row.faults };
            into.push(found);
        }
        if row.rounds == 0 {
            row.doubts.push("no peer came to an end".to_owned());
        }
        if !row.is_calm(long()) {
            let Row { idle, busy, beside, .. } = row;
            let took = format!("{beside:?} at p99, {idle:?} idle, {busy:?} on busy processors");
            row.doubts.push(format!("echoes took {took}"));
        }
        let allowed = before.kib * 105 / 100 + ALLOCATOR;
        let mut after = Held::by(pid, gate.admin);
        let back = poll(GONE, || {
            after = Held::by(pid, gate.admin);
            (after.descriptors <= before.descriptors && after.tasks <= before.tasks).then_some(())
        });
        if back.is_none() {
            row.faults.push(format!("before {before:?}, afterwards {after:?}"));
        }
        let back = poll(BACK, || {
            after = Held::by(pid, gate.admin);
            (after.kib <= allowed).then_some(())
        });
        if back.is_none() {
            row.doubts.push(format!("{} KiB before, {} afterwards", before.kib, after.kib));
        }
        row.kib[2] = after.kib;
        row
    }
}

/// Runs an attack to its end; again, where it may have been the machine that it went wrong with.
pub fn measured(arena: &Arena, beside: &Beside, row: u8, attack: Attack) -> Row {
    let once = || {
        std::thread::scope(|scope| {
            begin(scope, arena, beside, row, attack, false).end(&arena.gate, arena.pid())
        })
    };
    let mut last = once();
    for _ in 1..TIMES {
        if !last.faults.is_empty() || last.doubts.is_empty() {
            break;
        }
        last = once();
    }
    last
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
