//! What one connection was refused: a refusal that comes again within a minute is counted and follows
//! as one line of the trail, and a connection that is refused too often is closed (invariants 7 and 8).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Boot, Now};

/// Repeats of one refusal within this time become one line with a count.
const REPEATS: Duration = Duration::from_mins(1);
/// A connection that was refused this often is closed.
pub const DENIES: u32 = 20;
/// Distinct refusals remembered per connection; as many as it can have.
const DISTINCT: usize = DENIES as usize;

/// The refusals of one connection.
#[derive(Debug, Default)]
pub struct Denies(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    total: u32,
    seen: HashMap<(String, &'static str), Repeated>,
}

/// One refusal and how often it came again.
#[derive(Clone, Debug)]
struct Repeated {
    sentence: String,
    first: Boot,
    again: u32,
}

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Write it down.
    New,
    /// It is counted; the line will follow.
    Again,
}

/// Repeats of a refusal whose minute is over, or whose connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeats {
    pub target: String,
    pub code: &'static str,
    pub sentence: String,
    pub count: u32,
}

impl Denies {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal towards [`DENIES`]. One that is nobody's fault, such as a terminal that is not
    /// connected, is noted only: who waits for it must not lose other sessions.
    pub fn count(&self) {
        let mut denies = self.lock();
        denies.total = denies.total.saturating_add(1);
    }

    /// Notes a refusal.
    pub fn note(&self, target: &str, code: &'static str, sentence: &str, now: Now) -> Noted {
        let mut denies = self.lock();
        let key = (target.to_owned(), code);
        // One that was counted is counted on until its line has been written.
        if let Some(seen) = denies.seen.get_mut(&key)
            && (seen.again > 0 || now.boot.since(seen.first) < REPEATS)
        {
            seen.again = seen.again.saturating_add(1);
            return Noted::Again;
        }
        if denies.seen.len() < DISTINCT {
            let sentence = sentence.to_owned();
            denies.seen.insert(key, Repeated { sentence, first: now.boot, again: 0 });
        }
        Noted::New
    }

    pub fn too_many(&self) -> bool {
        self.lock().total >= DENIES
    }

    /// Takes the repeats whose minute is over; all of them if the connection has `ended`.
    pub fn due(&self, now: Now, ended: bool) -> Vec<Repeats> {
        let mut denies = self.lock();
        let over = |seen: &Repeated| ended || now.boot.since(seen.first) >= REPEATS;
        let due = denies.seen.iter().filter(|(_, seen)| over(seen) && seen.again > 0);
        let repeats = due
            .map(|((target, code), seen)| Repeats {
                target: target.clone(),
                code,
                sentence: seen.sentence.clone(),
                count: seen.again,
            })
            .collect();
        denies.seen.retain(|_, seen| !over(seen));
        repeats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(second: u64) -> Now {
        let boot = Boot::from_start(Duration::from_secs(second));
        Now { wall: Timestamp::UNIX_EPOCH, boot }
    }

    #[test]
    fn repeats_within_a_minute_are_counted_and_none_is_lost() {
        let denies = Denies::default();
        let note = |second| denies.note("kiosk-17:22", "NotOpen", "closed", at(second));
        assert_eq!([note(0), note(1)], [Noted::New, Noted::Again]);
        assert_eq!(denies.note("kiosk-18:22", "NotOpen", "closed", at(2)), Noted::New);
        assert_eq!(denies.due(at(59), false), []);
        assert_eq!(note(61), Noted::Again, "the line of the first minute is still to come");
        let [due] = &denies.due(at(62), false)[..] else { panic!("one is due") };
        assert_eq!((due.target.as_str(), due.count), ("kiosk-17:22", 2));
        assert_eq!(note(63), Noted::New);
        assert_eq!(note(64), Noted::Again);
        assert_eq!(denies.due(at(65), true).len(), 1, "the connection has ended");
        assert_eq!(denies.due(at(66), true), []);
    }

    #[test]
    fn twenty_are_too_many_and_no_more_are_remembered() {
        let denies = Denies::default();
        for number in 0..DENIES {
            assert!(!denies.too_many());
            denies.count();
            denies.note(&format!("{number}"), "NotOpen", "closed", at(0));
        }
        assert!(denies.too_many());
        denies.note("one more", "NotOpen", "closed", at(0));
        assert_eq!(denies.lock().seen.len(), DISTINCT);
    }
}
