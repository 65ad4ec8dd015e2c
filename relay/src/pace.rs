//! How many bytes a second a session may carry, each way by itself: `bandwidthPerSession` of the Relay.
//!
//! Nothing that has come is held back and nobody sleeps: a sender gets the window for what it sent
//! later, so that TCP and SSH slow it down and no other. What it may send at once is its window, which
//! the SSH core keeps small for such a channel. Touches nothing.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Boot;
use crate::lock::lock;
use crate::ssh::Direction;

/// What may be behind at once: timers tick in milliseconds, and keys that are typed need no timer.
const SLACK: Duration = Duration::from_millis(10);

/// So far may a session be ahead of its rate where one more channel begins: as much as a channel that is
/// held to it has for a window.
const AHEAD: Duration = Duration::from_millis(100);

/// The pace of one session. All of its channels share it, in the order in which their bytes come.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second, each way.
    rate: u64,
    /// When what has passed will have taken its time.
    there: Mutex<Boot>,
    back: Mutex<Boot>,
}

impl Pace {
    pub fn new(rate: u64, now: Boot) -> Self {
        Self { rate: rate.max(1), there: Mutex::new(now), back: Mutex::new(now) }
    }

    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// `bytes` have passed: when their sender may send as many anew; `None`: at once.
    pub fn passed(&self, direction: Direction, bytes: u64, now: Boot) -> Option<Boot> {
        let nanos = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(self.rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free = lock(match direction {
            Direction::There => &self.there,
            Direction::Back => &self.back,
        });
        let slack = Boot::from_start(now.since_start().saturating_sub(SLACK));
        *free = (*free).max(slack).plus(takes);
        (*free > now).then_some(*free)
    }

    /// When one more channel may begin, whose first window is given without asking; `None`: at once.
    /// What has passed until now has taken its time then, but for [`AHEAD`], so that channels one after
    /// the other carry no more than one.
    pub fn begins_at(&self, now: Boot) -> Option<Boot> {
        let free = (*lock(&self.there)).max(*lock(&self.back));
        let at = Boot::from_start(free.since_start().saturating_sub(AHEAD));
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Boot {
        Boot::from_start(Duration::from_secs(10).saturating_add(Duration::from_millis(millis)))
    }

    #[test]
    fn bytes_take_their_time_each_way_and_rest_saves_none_up() {
        let pace = Pace::new(1000, at(0));
        let there = |bytes, now| pace.passed(Direction::There, bytes, at(now));
        assert_eq!(there(100, 0), Some(at(100)));
        assert_eq!(there(100, 50), Some(at(200)), "behind what came before");
        assert_eq!(pace.passed(Direction::Back, 50, at(50)), Some(at(90)), "the other way");
        // After an hour all that was saved up is the slack.
        assert_eq!(there(10, 3_600_000), None);
        assert_eq!(there(10, 3_600_000), Some(at(3_600_010)));
        assert_eq!(there(5, 3_600_020), None);
    }

    #[test]
    fn one_more_channel_begins_once_what_has_passed_has_taken_its_time() {
        let pace = Pace::new(1000, at(0));
        assert_eq!(pace.begins_at(at(0)), None);
        pace.passed(Direction::There, 90, at(0));
        assert_eq!(pace.begins_at(at(0)), None, "as far ahead as a window");
        pace.passed(Direction::Back, 700, at(0));
        assert_eq!(pace.begins_at(at(0)), Some(at(600)), "by the way that is behind more");
        assert_eq!(pace.begins_at(at(600)), None);
    }

    #[test]
    fn no_rate_and_no_count_overflow() {
        let pace = Pace::new(0, at(0));
        assert!(pace.passed(Direction::There, u64::MAX, at(0)).is_some());
        assert!(pace.passed(Direction::There, u64::MAX, at(0)).is_some());
        assert_eq!(Pace::new(u64::MAX, at(0)).passed(Direction::Back, 1 << 30, at(1)), None);
    }
}
