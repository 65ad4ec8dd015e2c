//! How often a peer may begin a key exchange. RFC 4253 section 9 lets either side do so at any time,
//! yet each one costs us a signature and a share, and the peer next to nothing.

use std::time::Duration;

use crate::config::ExchangeLimits;
use crate::message::{DisconnectCode, Fatal};

/// Counts the exchanges that the peer has begun; the first of a connection, which both begin, is none
/// of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Exchanges that it may begin now.
    left: u32,
    /// When one was last added for the time that went by; `None` before the login.
    filled: Option<Duration>,
    /// Bytes that count towards the next one.
    bytes: u64,
}

impl Pace {
    pub fn new(limits: &ExchangeLimits) -> Self {
        Self { left: limits.before_login, filled: None, bytes: 0 }
    }

    /// A key was proven: from now on it is the rate that counts.
    pub fn logged_in(&mut self, limits: &ExchangeLimits, now: Duration) {
        *self = Self { left: limits.burst, filled: Some(now), bytes: 0 };
    }

    /// The peer has sent, or was sent, data and the like.
    pub fn moved(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The peer begins one more (RFC 4253 section 9).
    pub fn begin(&mut self, limits: &ExchangeLimits, now: Duration) -> Result<(), Fatal> {
        if let Some(filled) = &mut self.filled {
            let by_time = earned(now.saturating_sub(*filled).as_nanos(), limits.time.as_nanos());
            let by_bytes = earned(self.bytes.into(), limits.bytes.into());
            *filled = filled.saturating_add(limits.time.saturating_mul(by_time));
            self.bytes = self.bytes.checked_rem(limits.bytes).unwrap_or_default();
            let more = by_time.saturating_add(by_bytes);
            self.left = self.left.saturating_add(more).min(limits.burst);
        }
        let Some(left) = self.left.checked_sub(1) else {
            let text = if self.filled.is_some() {
                "new keys were asked for too often for what was sent; raise RekeyLimit in the client"
            } else {
                "new keys were asked for too often before a login; raise RekeyLimit in the client"
            };
            return Err(Fatal::new(DisconnectCode::ByApplication, text));
        };
        self.left = left;
        Ok(())
    }
}

/// How many of `each` are in `all`.
fn earned(all: u128, each: u128) -> u32 {
    all.checked_div(each).map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ExchangeLimits =
        ExchangeLimits { before_login: 3, burst: 5, bytes: 1000, time: Duration::from_secs(1) };

    /// How many may begin at this time, one after the other.
    fn burst(pace: &mut Pace, now: Duration) -> usize {
        (0..100).take_while(|_| pace.begin(&LIMITS, now).is_ok()).count()
    }

    #[test]
    fn neither_time_nor_bytes_give_more_before_a_login() {
        let mut pace = Pace::new(&LIMITS);
        pace.moved(1 << 40);
        assert_eq!(burst(&mut pace, Duration::from_hours(1)), 3);
    }

    #[test]
    fn time_and_bytes_give_more_after_it_and_no_more_than_a_burst() {
        let at = Duration::from_millis;
        let mut pace = Pace::new(&LIMITS);
        pace.logged_in(&LIMITS, at(10_000));
        assert_eq!(burst(&mut pace, at(10_000)), 5);
        assert_eq!(burst(&mut pace, at(10_999)), 0);
        assert_eq!(burst(&mut pace, at(12_500)), 2);
        // What was left of the time still counts.
        assert_eq!(burst(&mut pace, at(13_000)), 1);
        pace.moved(999);
        assert_eq!(burst(&mut pace, at(13_000)), 0);
        pace.moved(2001);
        assert_eq!(burst(&mut pace, at(13_000)), 3);
        pace.moved(1 << 40);
        assert_eq!(burst(&mut pace, Duration::from_hours(1)), 5);
    }
}
