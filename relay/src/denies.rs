//! What one connection was refused: a refusal that comes again within a minute is counted and follows
//! as one line of the trail, and a connection that is refused too often is closed (invariants 7 and 8).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Boot, Now};
use crate::sentences;

/// Repeats of one refusal within this time become one line with a count.
const REPEATS: Duration = Duration::from_mins(1);
/// A connection that was refused this often is closed.
pub const DENIES: u32 = 20;
/// Distinct refusals told apart per connection. Any more are counted by their code alone.
const DISTINCT: usize = 20;

/// The refusals of one connection.
#[derive(Debug, Default)]
pub struct Denies(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    total: u32,
    seen: HashMap<(String, &'static str), Repeated>,
    /// By their code.
    others: HashMap<&'static str, Repeated>,
}

/// One refusal and how often it came again.
#[derive(Clone, Debug)]
struct Repeated {
    target: String,
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
    /// As it was asked for first; empty for those that are not told apart.
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

    /// Notes a refusal. `what` is the thing that was refused, by whichever `target` it was asked for.
    pub fn note(
        &self,
        what: &str,
        target: &str,
        code: &'static str,
        sentence: &str,
        now: Now,
    ) -> Noted {
        let mut denies = self.lock();
        let key = (what.to_owned(), code);
        // One that was counted is counted on until its line has been written.
        if let Some(seen) = denies.seen.get_mut(&key)
            && (seen.again > 0 || now.boot.since(seen.first) < REPEATS)
        {
            seen.again = seen.again.saturating_add(1);
            return Noted::Again;
        }
        let of = |target: &str, sentence: &str| Repeated {
            target: target.to_owned(),
            sentence: sentence.to_owned(),
            first: now.boot,
            again: 0,
        };
        if denies.seen.len() < DISTINCT || denies.seen.contains_key(&key) {
            denies.seen.insert(key, of(target, sentence));
            return Noted::New;
        }
        let others = || of("", sentences::MANY_REFUSALS);
        let seen = denies.others.entry(code).or_insert_with(others);
        seen.again = seen.again.saturating_add(1);
        Noted::Again
    }

    pub fn too_many(&self) -> bool {
        self.lock().total >= DENIES
    }

    /// Takes the repeats whose minute is over; all of them if the connection has `ended`.
    pub fn due(&self, now: Now, ended: bool) -> Vec<Repeats> {
        let mut denies = self.lock();
        let over = |seen: &Repeated| ended || now.boot.since(seen.first) >= REPEATS;
        let Counted { seen, others, .. } = &mut *denies;
        let seen = seen.extract_if(|_, seen| over(seen)).map(|((_, code), seen)| (code, seen));
        let others = others.extract_if(|_, seen| over(seen));
        seen.chain(others)
            .filter(|(_, seen)| seen.again > 0)
            .map(|(code, Repeated { target, sentence, again, .. })| Repeats {
                target,
                code,
                sentence,
                count: again,
            })
            .collect()
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

    fn note(denies: &Denies, target: &str, second: u64) -> Noted {
        denies.note(target, target, "NotOpen", "closed", at(second))
    }

    #[test]
    fn repeats_within_a_minute_are_counted_and_none_is_lost() {
        let denies = Denies::default();
        let again = |second| note(&denies, "kiosk-17:22", second);
        assert_eq!([again(0), again(1)], [Noted::New, Noted::Again]);
        assert_eq!(note(&denies, "kiosk-18:22", 2), Noted::New);
        assert_eq!(denies.due(at(59), false), []);
        assert_eq!(again(61), Noted::Again, "the line of the first minute is still to come");
        let [due] = &denies.due(at(62), false)[..] else { panic!("one is due") };
        assert_eq!((due.target.as_str(), due.count), ("kiosk-17:22", 2));
        assert_eq!(again(63), Noted::New);
        assert_eq!(again(64), Noted::Again);
        assert_eq!(denies.due(at(65), true).len(), 1, "the connection has ended");
        assert_eq!(denies.due(at(66), true), []);
    }

    #[test]
    fn twenty_are_too_many() {
        let denies = Denies::default();
        for _ in 0..DENIES {
            assert!(!denies.too_many());
            denies.count();
        }
        assert!(denies.too_many());
    }

    #[test]
    fn those_beyond_what_is_told_apart_are_counted_by_their_code() {
        let denies = Denies::default();
        let written = (0..1000).filter(|n| note(&denies, &n.to_string(), 0) == Noted::New);
        assert_eq!(written.count(), DISTINCT);
        let full = denies.note("kiosk-17", "kiosk-17", "WindowFull", "full", at(1));
        assert_eq!(full, Noted::Again);
        assert_eq!(denies.lock().seen.len(), DISTINCT);
        assert_eq!(denies.lock().others.len(), 2);
        let mut due = denies.due(at(61), false);
        due.sort_by_key(|repeats| repeats.count);
        let due: Vec<_> = due.iter().map(|it| (&*it.target, it.code, it.count)).collect();
        assert_eq!(due, [("", "WindowFull", 1), ("", "NotOpen", 980)]);
        assert_eq!(note(&denies, "1000", 62), Noted::New, "a new minute");
    }

    #[test]
    fn what_is_asked_for_in_other_words_is_the_same() {
        let denies = Denies::default();
        let note = |target| denies.note("kiosk-17:22", target, "NotConnected", "offline", at(0));
        assert_eq!([note("KIOSK-17:22"), note("kiosk-17.test:22")], [Noted::New, Noted::Again]);
        let [due] = &denies.due(at(1), true)[..] else { panic!("one is due") };
        assert_eq!((due.target.as_str(), due.count), ("KIOSK-17:22", 1));
    }
}
