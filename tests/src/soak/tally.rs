//! What happened, counted by whoever saw it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::listener::lock;

use super::windows::Why;

/// Sentences that are kept of what went wrong; the others are counted.
const KEPT: usize = 20;

/// Two clients learn of one end within this time.
const NEAR: Duration = Duration::from_secs(2);

/// A session that the relay ended.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// When its end was read.
    pub at: Instant,
    /// Milliseconds after its deadline, or after the edit that ended it; below 0 if before.
    pub late: f64,
    pub why: Why,
}

/// Counts by name, and byte counts.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub counts: BTreeMap<&'static str, u64>,
    /// What must not happen, and how often it did.
    pub wrong: BTreeMap<String, u64>,
    pub more_wrong: u64,
}

#[derive(Default)]
pub struct Tally {
    totals: Mutex<Totals>,
    cuts: Mutex<Vec<Cut>>,
    /// Terminals by their numbers, and when the relay last reset each.
    resets: Mutex<BTreeMap<usize, Instant>>,
}

impl Tally {
    pub fn reset(&self, terminal: usize) {
        self.count("terminals reset as the relay stood still over a deadline");
        lock(&self.resets).insert(terminal, Instant::now());
    }

    /// Whether a terminal was reset at about that time.
    pub fn was_reset(&self, terminal: usize, at: Instant) -> bool {
        let reset = lock(&self.resets).get(&terminal).copied();
        reset.is_some_and(|it| it.max(at) - it.min(at) <= NEAR)
    }

    pub fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn add(&self, what: &'static str, count: u64) {
        *lock(&self.totals).counts.entry(what).or_default() += count;
    }

    /// Something that must not happen, as a sentence.
    pub fn wrong(&self, sentence: String) {
        let mut totals = lock(&self.totals);
        if let Some(count) = totals.wrong.get_mut(&sentence) {
            *count += 1;
        } else if totals.wrong.len() < KEPT {
            eprintln!("soak: {sentence}");
            totals.wrong.insert(sentence, 1);
        } else {
            totals.more_wrong += 1;
        }
    }

    pub fn cut(&self, cut: Cut) {
        lock(&self.cuts).push(cut);
    }

    pub fn totals(&self) -> Totals {
        lock(&self.totals).clone()
    }

    pub fn cuts(&self) -> Vec<Cut> {
        lock(&self.cuts).clone()
    }

    /// The latest of the cuts since the `seen` first ones, in milliseconds, and how many there are now.
    pub fn latest_cut(&self, seen: usize) -> (Option<f64>, usize) {
        let cuts = lock(&self.cuts);
        (cuts.iter().skip(seen).map(|cut| cut.late).reduce(f64::max), cuts.len())
    }
}
