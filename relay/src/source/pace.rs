//! When to look at a directory next. Pure: it is told the time and what happened.

use std::time::Duration;

use crate::clock::{Boot, Now, signed};

/// A look follows the last change by this much…
pub const QUIET: Duration = Duration::from_millis(100);
/// …and the first one by this much at most.
pub const LATEST: Duration = Duration::from_millis(400);
/// What is in doubt is looked at a second time after this.
pub const SECOND_LOOK: Duration = Duration::from_millis(100);
/// Without any change, a look this often…
pub const REGULAR: Duration = Duration::from_mins(1);
/// …and so often within the age up to which the policy admits, so that a quiet directory stays in
/// force: a look that comes late is still in time.
const LOOKS_PER_AGE: u32 = 3;
/// How often to look where changes are not announced.
pub const UNWATCHED: Duration = Duration::from_millis(500);
/// How often the clocks are read, to notice that one was stepped or that the machine slept.
pub const TICK: Duration = Duration::from_millis(250);
/// The difference between the clocks' advances that counts as a step.
const STEP: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Pace {
    /// Boot times of the first and the last change that no look has seen yet.
    changes: Option<(Boot, Boot)>,
    second: Option<Boot>,
    asked: bool,
    looked: Boot,
    /// The reading of the clocks before this one.
    read: Now,
    /// Whether changes are announced.
    pub watched: bool,
    /// How often to look without any change.
    regular: Duration,
}

impl Pace {
    /// After a first look at `now`.
    pub fn new(now: Now) -> Self {
        Self {
            changes: None,
            second: None,
            asked: false,
            looked: now.boot,
            read: now,
            watched: true,
            regular: REGULAR,
        }
    }

    /// The policy admits up to this age.
    pub fn admits_up_to(&mut self, age: Duration) {
        self.regular = REGULAR.min(age / LOOKS_PER_AGE);
    }

    /// Something changed.
    pub fn change(&mut self, now: Now) {
        let first = self.changes.map_or(now.boot, |(first, _)| first);
        self.changes = Some((first, now.boot));
    }

    /// Somebody asks for a look.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// A look began at `now`; `again`: what it found is to be seen twice.
    pub fn looked(&mut self, now: Now, again: bool) {
        self.changes = None;
        self.asked = false;
        self.looked = now.boot;
        self.second = again.then(|| now.boot.plus(SECOND_LOOK));
    }

    /// Whether to look now, and if so, whether nothing has changed for a while.
    pub fn due(&mut self, now: Now) -> Option<bool> {
        let stepped = self.stepped(now);
        self.read = now;
        let every = if self.watched { self.regular } else { UNWATCHED };
        let due = self.asked || stepped || now.boot >= self.next(every);
        let quiet = self.changes.is_none_or(|(_, last)| now.boot.since(last) >= QUIET);
        due.then_some(quiet && self.watched)
    }

    /// How long to wait before asking again.
    pub fn wait(&self, now: Now) -> Duration {
        let every = if self.watched { self.regular } else { UNWATCHED };
        self.next(every).since(now.boot).min(TICK)
    }

    fn next(&self, every: Duration) -> Boot {
        let changes = self.changes.map(|(first, last)| last.plus(QUIET).min(first.plus(LATEST)));
        let regular = self.looked.plus(every);
        [changes, self.second].into_iter().flatten().fold(regular, Boot::min)
    }

    fn stepped(&self, now: Now) -> bool {
        let wall = now.wall.duration_since(self.read.wall);
        let boot = signed(now.boot.since(self.read.boot));
        wall.saturating_sub(boot).unsigned_abs() > STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Now {
        let boot = Boot::from_start(Duration::from_millis(milliseconds));
        let wall = jiff::Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap()).unwrap();
        Now { wall, boot }
    }

    #[test]
    fn a_look_follows_the_last_change_and_is_never_put_off_for_long() {
        let mut pace = Pace::new(at(0));
        pace.change(at(1_000));
        assert_eq!(pace.due(at(1_099)), None);
        assert_eq!(pace.wait(at(1_040)), Duration::from_millis(60));
        assert_eq!(pace.due(at(1_100)), Some(true));
        for ms in (1_000..1_400).step_by(50) {
            pace.change(at(ms));
            assert_eq!(pace.due(at(ms)), None, "at {ms}");
        }
        assert_eq!(pace.due(at(1_400)), Some(false), "things still move");
        pace.looked(at(1_400), true);
        assert_eq!(pace.due(at(1_499)), None);
        assert_eq!(pace.due(at(1_500)), Some(true));
    }

    #[test]
    fn a_quiet_directory_is_looked_at_every_minute_and_on_demand() {
        let mut pace = Pace::new(at(0));
        let mut looks = 0;
        for ms in (0..=120_000).step_by(250) {
            if pace.due(at(ms)).is_some() {
                pace.looked(at(ms), false);
                looks += 1;
            }
        }
        assert_eq!(looks, 2);
        pace.ask();
        assert_eq!(pace.due(at(120_100)), Some(true));
    }

    #[test]
    fn a_stepped_clock_and_a_machine_that_slept_are_noticed() {
        let mut pace = Pace::new(at(0));
        let hour = jiff::SignedDuration::from_hours(1);
        for wall in [at(250).wall + hour, at(250).wall - hour] {
            pace.looked(at(0), false);
            pace.read = at(0);
            assert_eq!(pace.due(Now { wall, ..at(250) }), Some(true));
        }
        pace.looked(at(0), false);
        pace.read = at(0);
        assert_eq!(pace.due(at(3_600_000)), Some(true), "asleep for an hour");
    }

    #[test]
    fn without_announcements_nothing_counts_as_quiet() {
        let mut pace = Pace::new(at(0));
        pace.watched = false;
        assert_eq!(pace.due(at(499)), None);
        assert_eq!(pace.due(at(500)), Some(false));
    }
}
