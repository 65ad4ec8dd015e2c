//! Refusals before a login, counted by source prefix and reason: each pair becomes one line of the
//! trail a minute, however many peers come (invariants 7 and 8). Touches nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::accept::Prefix;
use crate::clock::Boot;
use crate::lock::lock;
use crate::metrics::Unproven;

/// Refusals of one kind within this time become one line.
const TOGETHER: Duration = Duration::from_mins(1);
/// Pairs that are counted apart; the sources of any more are not told apart.
const MOST: usize = 1024;

#[derive(Debug)]
struct Counted {
    first: Boot,
    count: u64,
}

/// What is to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// `None`: of all others.
    pub source: Option<Prefix>,
    pub why: Unproven,
    pub count: u64,
}

#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<(Option<Prefix>, Unproven), Counted>>);

impl Refusals {
    pub fn note(&self, source: Prefix, why: Unproven, now: Boot) {
        let mut table = lock(&self.0);
        let key = (Some(source), why);
        let full = table.len() >= MOST && !table.contains_key(&key);
        let key = if full { (None, why) } else { key };
        let counted = table.entry(key).or_insert(Counted { first: now, count: 0 });
        counted.count = counted.count.saturating_add(1);
    }

    /// Takes those whose minute is over, or all.
    pub fn due(&self, now: Boot, all: bool) -> Vec<Line> {
        let mut table = lock(&self.0);
        let over = |it: &Counted| all || now.since(it.first) >= TOGETHER;
        let due = table.extract_if(|_, counted| over(counted));
        let mut lines: Vec<_> =
            due.map(|((source, why), Counted { count, .. })| Line { source, why, count }).collect();
        lines.sort_by_key(|line| (line.source, line.why.word()));
        table.shrink_to_fit();
        lines
    }

    /// Pairs that are counted now.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn at(second: u64) -> Boot {
        Boot::from_start(Duration::from_secs(second))
    }

    fn source(n: u32) -> Prefix {
        Prefix::of(IpAddr::V4(Ipv4Addr::from_bits(n << 8)))
    }

    #[test]
    fn one_line_per_source_reason_and_minute() {
        let refusals = Refusals::default();
        for second in 0..5 {
            refusals.note(source(1), Unproven::UnknownKey, at(second));
            refusals.note(source(2), Unproven::UnknownKey, at(second));
        }
        refusals.note(source(1), Unproven::LoginTimeout, at(50));
        assert_eq!(refusals.due(at(59), false), []);
        let line = |n, why, count| Line { source: Some(source(n)), why, count };
        let key = Unproven::UnknownKey;
        assert_eq!(refusals.due(at(60), false), [line(1, key, 5), line(2, key, 5)]);
        assert_eq!(refusals.due(at(60), true), [line(1, Unproven::LoginTimeout, 1)]);
        assert!(refusals.is_empty());
    }

    #[test]
    fn sources_without_end_take_a_bounded_place_and_none_is_lost() {
        let refusals = Refusals::default();
        for n in 0..100_000 {
            refusals.note(source(n), Unproven::UnknownKey, at(0));
        }
        assert!(refusals.len() <= MOST + Unproven::ALL.len());
        assert!(lock(&refusals.0).capacity() <= 2 * MOST);
        let lines = refusals.due(at(60), false);
        assert_eq!(lines.iter().map(|line| line.count).sum::<u64>(), 100_000);
        assert_eq!(lines[0].source, None);
    }
}
