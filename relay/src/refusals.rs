//! Refusals before a login, counted by source prefix and reason: each pair becomes one line of the
//! trail a minute, however many peers come (invariants 7 and 8). Of known keys that may not enter the
//! first is written down at once, and the others likewise. Touches nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tidegate_policy::model::KeyBlob;

use crate::accept::Prefix;
use crate::audit::Event;
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

/// A known key that may not enter, from one source, by one transport and for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    pub key: KeyBlob,
    pub source: Prefix,
    pub transport: &'static str,
    pub code: &'static str,
}

#[derive(Debug)]
struct Again {
    counted: Counted,
    /// What the line says; of those that are not told apart, nothing about anybody.
    line: Event,
}

/// Refusals of known keys.
#[derive(Debug, Default)]
pub struct AtTheDoor(Mutex<HashMap<Result<Refused, &'static str>, Again>>);

impl AtTheDoor {
    /// One more. `true`: it is the first of its minute, to be written down at once. Any other is counted,
    /// and `line` follows when its minute is over; `others` where too many are told apart already.
    pub fn note(&self, refused: Refused, line: Event, others: Event, now: Boot) -> bool {
        let mut table = lock(&self.0);
        let key = Ok(refused);
        if let Some(seen) = table.get_mut(&key) {
            seen.counted.count = seen.counted.count.saturating_add(1);
            return false;
        }
        let counted = |count| Counted { first: now, count };
        if table.len() < MOST {
            table.insert(key, Again { counted: counted(0), line });
            return true;
        }
        let Ok(Refused { code, .. }) = key else { return false };
        let new = || Again { counted: counted(0), line: others };
        let seen = table.entry(Err(code)).or_insert_with(new);
        seen.counted.count = seen.counted.count.saturating_add(1);
        false
    }

    /// Takes the lines of those whose minute is over, or of all.
    pub fn due(&self, now: Boot, all: bool) -> Vec<Event> {
        let mut table = lock(&self.0);
        let over = |it: &Counted| all || now.since(it.first) >= TOGETHER;
        let due = table.extract_if(|_, again| over(&again.counted));
        let lines = due.filter(|(_, again)| again.counted.count > 0);
        let lines = lines
            .map(|(_, Again { counted, line })| Event { count: Some(counted.count), ..line })
            .collect();
        table.shrink_to_fit();
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use jiff::Timestamp;

    use crate::audit::What;

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

    fn knock(at_the_door: &AtTheDoor, n: u32, second: u64) -> bool {
        let key = KeyBlob::new(n.to_be_bytes().to_vec());
        let refused = Refused { key, source: source(1), transport: "SSH", code: "UserSuspended" };
        let event = Event::new(What::DenyAggregate, Timestamp::UNIX_EPOCH);
        let line = Event { user: Some(n.to_string()), ..event.clone() };
        at_the_door.note(refused, line, event, at(second))
    }

    #[test]
    fn a_known_key_is_written_down_once_a_minute_and_counted() {
        let at_the_door = AtTheDoor::default();
        assert!(knock(&at_the_door, 1, 0) && knock(&at_the_door, 2, 0));
        for second in 0..50 {
            assert!(!knock(&at_the_door, 1, second));
        }
        assert_eq!(at_the_door.due(at(59), false), []);
        let [line] = &at_the_door.due(at(60), false)[..] else { panic!("one had more than one") };
        assert_eq!((line.user.as_deref(), line.count), (Some("1"), Some(50)));
        assert!(knock(&at_the_door, 1, 61), "a new minute");
        assert!(at_the_door.due(at(61), true).is_empty() && lock(&at_the_door.0).is_empty());
    }

    #[test]
    fn known_keys_without_end_take_a_bounded_place_and_none_is_lost() {
        let at_the_door = AtTheDoor::default();
        let written = (0..100_000).filter(|n| knock(&at_the_door, *n, 0)).count();
        assert!(written <= MOST && lock(&at_the_door.0).len() <= MOST + 1);
        let [line] = &at_the_door.due(at(60), false)[..] else { panic!("those beyond share one") };
        let counted = usize::try_from(line.count.unwrap()).unwrap();
        assert_eq!((line.user.as_deref(), written + counted), (None, 100_000));
    }
}
