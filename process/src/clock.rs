//! The only place that reads a clock (invariant 2).
//!
//! Two clocks decide when something ends. The wall clock is what people mean by "until 18:00"; it
//! may be stepped. CLOCK_BOOTTIME only ever runs forward, also through a suspend; it can't be
//! stepped. Wall time is read through `std`, boot time through `rustix`, so that a test under
//! libfaketime steps the first and leaves the second alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// An instant on CLOCK_BOOTTIME: the time since the machine was started, suspends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(Duration);

impl Boot {
    /// The instant `since_start` after the machine was started; for tests and for what was stored.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time from the machine's start to this instant.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The instant `length` later; the end of time where that is too much.
    pub const fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(length))
    }

    /// The time from `earlier` to this instant; zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    pub boot: Boot,
}

/// Reads both clocks.
pub fn now() -> Now {
    Now { wall: wall(), boot: boot() }
}

/// Reads the clock that cannot be stepped.
pub fn boot() -> Boot {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Boot(Duration::new(seconds, nanos))
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn wall() -> Timestamp {
    // Out of jiff's range only where the clock is set past the year 9999: then everything is over.
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::MAX)
}

/// When something ends: a wall instant, and the boot instant that was computed for it when it was
/// set. Whichever comes first ends it, so that neither a clock set back nor a suspend prolongs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    wall: Timestamp,
    boot: Boot,
}

impl Deadline {
    /// A deadline at `wall`, set at `now`. One in the past is reached at once.
    pub fn new(now: Now, wall: Timestamp) -> Self {
        let left = Duration::try_from(wall.duration_since(now.wall)).unwrap_or(Duration::ZERO);
        Self { wall, boot: now.boot.plus(left) }
    }

    /// The wall instant.
    pub fn wall(&self) -> Timestamp {
        self.wall
    }

    /// Whether either clock has come to it. The instant itself is over: `[opens, closes)`.
    pub fn reached(&self, now: Now) -> bool {
        now.wall >= self.wall || now.boot >= self.boot
    }

    /// How long until [`Deadline::reached`], if neither clock is stepped; zero once it is.
    pub fn remaining(&self, now: Now) -> Duration {
        let by_wall = Duration::try_from(self.wall.duration_since(now.wall));
        by_wall.unwrap_or(Duration::ZERO).min(self.boot.since(now.boot))
    }

    /// By how much the deadline is past: the larger of what the two clocks say, except that a wall
    /// clock which was stepped over it counts from the step, which only the boot clock can tell.
    pub fn overrun(&self, now: Now) -> Duration {
        if !self.reached(now) {
            return Duration::ZERO;
        }
        let by_boot = now.boot.since(self.boot);
        let by_wall = Duration::try_from(now.wall.duration_since(self.wall));
        if by_boot > Duration::ZERO { by_boot } else { by_wall.unwrap_or(Duration::ZERO) }
    }

    /// Moves it to `wall` if that is earlier; it never moves later, by neither clock.
    pub fn bring_forward(&mut self, now: Now, wall: Timestamp) {
        let earlier = Self::new(now, wall);
        self.wall = self.wall.min(earlier.wall);
        self.boot = self.boot.min(earlier.boot);
    }
}

/// `length` as jiff counts it; the largest there is where it is too long.
pub fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, boot: u64) -> Now {
        Now {
            wall: Timestamp::from_second(wall).unwrap(),
            boot: Boot::from_start(Duration::from_secs(boot)),
        }
    }

    fn second(wall: i64) -> Timestamp {
        Timestamp::from_second(wall).unwrap()
    }

    #[test]
    fn either_clock_ends_it() {
        let deadline = Deadline::new(at(1000, 50), second(1100));
        assert!(!deadline.reached(at(1099, 149)));
        assert!(deadline.reached(at(1100, 149)), "the wall clock alone");
        assert!(deadline.reached(at(400, 150)), "the wall clock was set back");
        assert!(deadline.reached(at(5000, 51)), "the wall clock was set forward");
    }

    #[test]
    fn it_only_moves_earlier_by_both_clocks() {
        let mut deadline = Deadline::new(at(1000, 50), second(1100));
        deadline.bring_forward(at(1010, 60), second(1200));
        assert_eq!(deadline, Deadline::new(at(1000, 50), second(1100)));
        deadline.bring_forward(at(1010, 60), second(1020));
        assert!(deadline.reached(at(0, 70)) && deadline.reached(at(1020, 0)));
        assert!(!deadline.reached(at(1019, 69)));
        // The wall clock was set back by an hour: a later-sounding boot instant changes nothing.
        deadline.bring_forward(at(-2590, 65), second(1015));
        assert!(deadline.reached(at(0, 70)) && deadline.reached(at(1015, 0)));
    }

    #[test]
    fn what_is_left_and_what_is_over() {
        let deadline = Deadline::new(at(1000, 50), second(1100));
        assert_eq!(
            deadline.remaining(at(1000, 50)),
            Duration::from_mins(1) + Duration::from_secs(40)
        );
        assert_eq!(deadline.remaining(at(1090, 50)), Duration::from_secs(10));
        assert_eq!(deadline.remaining(at(900, 149)), Duration::from_secs(1));
        assert_eq!(deadline.remaining(at(2000, 60)), Duration::ZERO);
        assert_eq!(deadline.overrun(at(1099, 149)), Duration::ZERO);
        assert_eq!(deadline.overrun(at(1102, 152)), Duration::from_secs(2));
        assert_eq!(deadline.overrun(at(0, 153)), Duration::from_secs(3));
        assert_eq!(deadline.overrun(at(1101, 149)), Duration::from_secs(1));
    }

    #[test]
    fn a_deadline_in_the_past_is_reached_at_once() {
        let now = at(1000, 50);
        assert!(Deadline::new(now, second(999)).reached(now));
        assert!(Deadline::new(now, second(1000)).reached(now));
        assert!(!Deadline::new(now, Timestamp::MAX).reached(now));
        let mut far = Deadline::new(now, Timestamp::MAX);
        far.bring_forward(now, second(0));
        assert!(far.reached(now));
    }

    #[test]
    fn the_clocks_run() {
        let first = now();
        let second = now();
        assert!(second.boot >= first.boot && first.boot.since_start() > Duration::ZERO);
        assert!(second.boot.since(first.boot.plus(Duration::from_hours(1))) == Duration::ZERO);
    }
}
