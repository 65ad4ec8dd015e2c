//! Hostile peers (invariant 8): each attack beside a session of 10 MB/s that loses no byte and an echo
//! that hardly notices, with memory, descriptors, tasks and threads back where they were. What is
//! asserted and how it is run says docs/hostile-peers.md.

mod arena;
mod attacks;
mod beside;
mod feed;
mod forged;
mod lab;
mod measure;
mod names;
mod run;
mod told;

use arena::Arena;
use beside::Beside;
use measure::{Held, Row, table, write};
use run::{begin, measured};
use std::time::Duration;
use tidegate_tests::{Gate, wait_for};

/// Threads for the disk go after they had nothing to do for so long, and a little more.
const THREADS: Duration = Duration::from_secs(20);

/// KiB that the allocator may keep after all of them: the most that was held at once and freed in pieces.
const KEPT: u64 = 32 << 10;

/// All is as it was when nobody hostile had come: memory but for what the allocator keeps.
fn is_back(gate: &Gate, pid: i32, before: Held) -> Held {
    let allowed = before.kib * 105 / 100 + KEPT;
    let now = || Held::by(pid, gate.admin);
    let back = tidegate_tests::wait::poll(THREADS, || {
        let now = now();
        let is_back = now.kib <= allowed
            && now.descriptors <= before.descriptors
            && now.tasks <= before.tasks
            && now.threads <= before.threads;
        is_back.then_some(now)
    });
    back.unwrap_or_else(|| panic!("before {before:?}, afterwards {:?}", now()))
}

/// Those that are named by `TIDEGATE_HOSTILE_ONLY`, a part of their name; or all.
fn wanted(name: &str) -> bool {
    std::env::var("TIDEGATE_HOSTILE_ONLY").map_or(true, |only| name.contains(&only))
}

#[test]
fn hostile_peers_disturb_nobody_and_leave_nothing() {
    let mut rows = Vec::new();
    // Those that last go on at a relay of their own, beside which the sessions have ended.
    let (lasting, beside) = Arena::open();
    let before = warmed(&lasting, &beside);
    let other = std::thread::scope(|scope| {
        let arena = &lasting;
        let begun: Vec<_> = (100_u8..)
            .zip(attacks::waiting::ATTACKS)
            .filter(|(_, attack)| wanted(attack.name))
            .map(|(row, attack)| begin(scope, arena, &beside, row, *attack, true))
            .collect();
        println!("{} bytes were moved beside those that go on", beside.finish());
        let other = others(&mut rows);
        rows.extend(begun.into_iter().map(|begun| begun.end(&arena.gate, arena.pid())));
        other
    });
    println!("\n{}", table(&rows));
    write(&rows);
    // One that goes wrong hides no other.
    let wrong = rows.iter().map(|row| (row.attack, [&row.faults[..], &row.doubts].concat()));
    let wrong: Vec<_> = wrong.filter(|(_, said)| !said.is_empty()).collect();
    assert!(wrong.is_empty(), "these went wrong: {wrong:#?}");
    for (arena, before) in [(lasting, before), other] {
        ended(arena, before);
    }
}

/// The attacks that end by themselves. Their relay, and what it held before.
fn others(rows: &mut Vec<Row>) -> (Arena, Held) {
    let (arena, beside) = Arena::open();
    let before = warmed(&arena, &beside);
    for (row, attack) in (0_u8..).zip(attacks::all()) {
        if wanted(attack.name) {
            rows.push(measured(&arena, &beside, row, attack));
        }
    }
    println!("{} bytes were moved beside the others", beside.finish());
    (arena, before)
}

/// The relay is as it was, and nothing that it wrote is forged.
fn ended(mut arena: Arena, before: Held) {
    // The sessions beside have gone, and their sockets with them.
    let before = Held { descriptors: before.descriptors - 2, ..before };
    let after = is_back(&arena.gate, arena.pid(), before);
    println!("before all {before:?}, afterwards {after:?}");
    forged::none(&mut arena.gate);
}

/// What the relay holds once its spare buffers and its threads are there.
fn warmed(arena: &Arena, beside: &Beside) -> Held {
    let (pid, admin) = (arena.pid(), arena.gate.admin);
    wait_for("echoes", tidegate_tests::SOON, || {
        std::thread::sleep(Duration::from_millis(500));
        (beside.moved() > 5_000_000).then_some(())
    });
    Held::by(pid, admin)
}
