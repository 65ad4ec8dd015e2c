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
/// Pairs that are counted apart; the sources of any more are not told apart. As many known keys are.
const MOST: usize = 1024;
/// Refusals of one known key that are told apart; of any more the line names its owner and the reason.
const OF_ONE_KEY: usize = 16;

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
pub struct AtTheDoor(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<KeyBlob, OfKey>,
    /// Of keys that are not told apart, by their code.
    others: HashMap<&'static str, Again>,
}

/// Refusals of one key: what one peer from many sources fills is its own.
#[derive(Debug, Default)]
struct OfKey {
    /// By source, transport and code.
    apart: HashMap<(Prefix, &'static str, &'static str), Again>,
    others: HashMap<&'static str, Again>,
}

impl OfKey {
    fn len(&self) -> usize {
        self.apart.len().saturating_add(self.others.len())
    }
}

impl AtTheDoor {
    /// One more. `true`: it is the first of its minute, to be written down at once. Any other is counted,
    /// and `line` follows when its minute is over, without its source where those of the key are too
    /// many; `others` where too many keys are told apart already.
    pub fn note(&self, refused: Refused, line: Event, others: Event, now: Boot) -> bool {
        let Refused { key, source, transport, code } = refused;
        let mut table = lock(&self.0);
        let new = |count, line| Again { counted: Counted { first: now, count }, line };
        let (seen, line) = if table.keys.len() < MOST || table.keys.contains_key(&key) {
            let of_key = table.keys.entry(key).or_default();
            let which = (source, transport, code);
            if let Some(seen) = of_key.apart.get_mut(&which) {
                seen.counted.count = seen.counted.count.saturating_add(1);
                return false;
            }
            if of_key.apart.len() < OF_ONE_KEY {
                of_key.apart.insert(which, new(0, line));
                return true;
            }
            (&mut of_key.others, Event { source_address: None, transport: None, ..line })
        } else {
            (&mut table.others, others)
        };
        let seen = seen.entry(code).or_insert_with(|| new(0, line));
        seen.counted.count = seen.counted.count.saturating_add(1);
        false
    }

    /// Takes the lines of those whose minute is over, or of all.
    pub fn due(&self, now: Boot, all: bool) -> Vec<Event> {
        let mut table = lock(&self.0);
        let over = |again: &Again| all || now.since(again.counted.first) >= TOGETHER;
        let mut due: Vec<_> = table.others.extract_if(|_, it| over(it)).map(|(_, it)| it).collect();
        for of_key in table.keys.values_mut() {
            due.extend(of_key.apart.extract_if(|_, it| over(it)).map(|(_, it)| it));
            due.extend(of_key.others.extract_if(|_, it| over(it)).map(|(_, it)| it));
        }
        table.keys.retain(|_, of_key| of_key.len() > 0);
        table.keys.shrink_to_fit();
        drop(table);
        let lines = due.into_iter().filter(|again| again.counted.count > 0);
        lines.map(|Again { counted, line }| Event { count: Some(counted.count), ..line }).collect()
    }

    /// Entries that are kept now.
    pub fn len(&self) -> usize {
        let table = lock(&self.0);
        table.keys.values().map(OfKey::len).sum::<usize>().saturating_add(table.others.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        knock_from(at_the_door, n, source(1), second)
    }

    fn knock_from(at_the_door: &AtTheDoor, n: u32, source: Prefix, second: u64) -> bool {
        let key = KeyBlob::new(n.to_be_bytes().to_vec());
        let refused = Refused { key, source, transport: "SSH", code: "UserSuspended" };
        let event = Event::new(What::DenyAggregate, Timestamp::UNIX_EPOCH);
        let source_address = Some(source.to_string());
        let line = Event { user: Some(n.to_string()), source_address, ..event.clone() };
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
        assert!(at_the_door.due(at(61), true).is_empty() && at_the_door.is_empty());
    }

    #[test]
    fn known_keys_without_end_take_a_bounded_place_and_none_is_lost() {
        let at_the_door = AtTheDoor::default();
        let written = (0..100_000).filter(|n| knock(&at_the_door, *n, 0)).count();
        assert!(written <= MOST && at_the_door.len() <= MOST + 1);
        let [line] = &at_the_door.due(at(60), false)[..] else { panic!("those beyond share one") };
        let counted = usize::try_from(line.count.unwrap()).unwrap();
        assert_eq!((line.user.as_deref(), written + counted), (None, 100_000));
    }

    #[test]
    fn one_key_from_sources_without_end_takes_no_place_of_others() {
        let at_the_door = AtTheDoor::default();
        let written = (0..100_000).filter(|n| knock_from(&at_the_door, 1, source(*n), 0)).count();
        assert_eq!((written, at_the_door.len()), (OF_ONE_KEY, OF_ONE_KEY + 1));
        assert!(knock(&at_the_door, 2, 0), "another key has its own line");
        let [line] = &at_the_door.due(at(60), false)[..] else { panic!("those beyond share one") };
        assert_eq!((line.user.as_deref(), line.source_address.as_deref()), (Some("1"), None));
        assert_eq!(line.count, Some(100_000 - OF_ONE_KEY as u64));
        assert!(at_the_door.is_empty());
    }
}
