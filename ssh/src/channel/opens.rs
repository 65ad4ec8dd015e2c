//! How often a peer may open a channel (RFC 4254 section 5.1 names no bound). Each open costs whoever
//! decides about it much more than it costs the peer.

use std::time::Duration;

use crate::config::OpenLimits;
use crate::message::{DisconnectCode, Fatal};

/// What a peer that opens too fast is told, with each refusal and at the end.
pub(crate) const TOO_FAST: &str =
    "channels are opened too fast on this connection; use one for longer, or wait a moment";

/// Counts the channels that one peer opens, of whichever type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opens {
    /// When all that were opened will have taken their time.
    paid: Duration,
    /// Refused since it was last within its rate.
    refused: u32,
}

impl Opens {
    /// One more: whether it may be opened (RFC 4254 section 5.1: a side may refuse). An error ends the
    /// connection.
    pub fn one_more(&mut self, limits: &OpenLimits, now: Duration) -> Result<bool, Fatal> {
        if self.paid <= now {
            *self = Self { paid: now, refused: 0 };
        }
        let paid = self.paid.saturating_add(limits.each);
        if paid.saturating_sub(now) <= limits.each.saturating_mul(limits.burst) {
            self.paid = paid;
            return Ok(true);
        }
        self.refused = self.refused.saturating_add(1);
        if self.refused > limits.refused {
            return Err(Fatal::new(DisconnectCode::ByApplication, TOO_FAST));
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OpenLimits =
        OpenLimits { burst: 5, each: Duration::from_millis(100), refused: 3 };

    fn allowed(opens: &mut Opens, now: u64, asked: usize) -> usize {
        let now = Duration::from_millis(now);
        (0..asked).filter(|_| opens.one_more(&LIMITS, now).unwrap()).count()
    }

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let mut opens = Opens::default();
        assert_eq!(allowed(&mut opens, 1000, 6), 5);
        assert_eq!(allowed(&mut opens, 1100, 2), 1);
        assert_eq!(allowed(&mut opens, 1250, 1), 1);
        // A rest saves no more than that up, and forgives.
        assert_eq!(allowed(&mut opens, 100_000, 8), 5);
    }

    #[test]
    fn whoever_goes_on_is_sent_away() {
        let mut opens = Opens::default();
        assert_eq!(allowed(&mut opens, 1000, 8), 5);
        assert!(opens.one_more(&LIMITS, Duration::from_secs(1)).is_err());
        // Also where it is let in with one now and then.
        let mut opens = Opens::default();
        assert_eq!(allowed(&mut opens, 1000, 7), 5);
        assert_eq!(allowed(&mut opens, 1100, 2), 1);
        assert!(opens.one_more(&LIMITS, Duration::from_millis(1101)).is_err());
    }
}
