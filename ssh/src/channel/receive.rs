//! The window that we give the peer on one channel (RFC 4254 section 5.2), by what was consumed.
//!
//! A byte of the window is in one of three places: `left` with the peer, `held` here until the other
//! leg has taken it, or `owed`, taken and not given again yet. Their sum is `size`, which is taken
//! from the connection's [`Share`] of the replica's budget; so memory is bounded by what is given, and a
//! channel whose reader is slow stalls nobody but itself.
//!
//! The size begins small, since most channels are terminals' shells that stand idle, and doubles with
//! measured need:
//! - Half of a window that was used up within [`QUICK`] doubles it up to [`Windows::usual`], so that
//!   whatever moves much is there before it has moved twice as much.
//! - Beyond that the path has to want it. A peer that has used up its window stands still until our
//!   WINDOW_ADJUST reaches it. What is watched is the first byte that only such a message allowed. If it
//!   came after a gap that is long beside the pace before it, the peer stood still; and if that was
//!   longer than our own side had let it wait for the message, then the path is the limit, not the
//!   reader. A sender that was not scheduled for a while looks the same; but only where none of these
//!   messages ever brought data sooner than the window passes at [`ENOUGH`], the path is that long.
//!   On a short one a larger window does harm: OpenSSH's ssh buffers as much as its window allows, and
//!   copies all of that for each packet.
//!
//! What has grown and is not needed is not given again: of a window of which less than half was used in
//! [`IDLE`], what was used goes back to the share until the size is that of the beginning. What the peer
//! has and does not use can't be called back (RFC 4254 knows no such message), and stays counted.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Share;
use crate::config::Windows;

/// Where a peer may send less than this many bytes, the largest packet that we take, it may stand
/// still.
const STOPPED: u32 = 32 * 1024;
/// Bytes a second beyond which no window has to grow: more than a core seals. What counts as a gap is
/// the time in which the window would pass at this rate, 0.26 ms at 256 KiB.
const ENOUGH: u64 = 1_000_000_000;

/// Half of a window in this time is much: 320 KB/s of the window that channels begin with.
const QUICK: Duration = Duration::from_millis(100);
/// A window of which half lasts longer than this is larger than it need be: no path takes so long.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// Of a channel that is held to a rate, the window that it has, the one that a long path may give it,
/// and what is given at once, in milliseconds at that rate. The first is what comes at once after a
/// rest; a path of 400 ms is as long as a satellite's, and needs the second to fill.
const PACED: u64 = 100;
const PACED_FAR: u64 = 500;
const PACED_STEP: u64 = 25;
/// However low the rate is: a window that holds a few packets, and steps that are worth a message.
const PACED_LEAST: u32 = 16 << 10;
const PACED_LEAST_STEP: u32 = 4 << 10;

/// The peer sent more than its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beyond;

/// A WINDOW_ADJUST on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watch {
    /// When it left.
    at: Duration,
    /// How long the peer may have stood still before that.
    waited: Duration,
    /// What the peer may still send without it.
    before: u32,
    /// What came in since.
    bytes: u32,
}

#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    size: u32,
    left: u32,
    held: u32,
    owed: u32,
    /// When data came last.
    last: Duration,
    watch: Option<Watch>,
    /// The least time from a WINDOW_ADJUST to the first data that it allowed: the path's round trip
    /// takes no longer.
    trip: Duration,
    /// When window was given again last, or was let go; `None` before.
    given: Option<Duration>,
    first: u32,
    usual: u32,
    most: u32,
    /// Bytes a second that the channel is held to.
    rate: Option<u64>,
    /// Given once so much is owed, or half of the window.
    step: u32,
    /// What the window has beyond what it may have since it was held to a rate: it goes as it is used.
    excess: u32,
    share: Arc<Share>,
}

impl ReceiveWindow {
    /// A window of the size that channels begin with, or of what the connection may still have, but
    /// `windows.least` at least; none where not even so much is left.
    pub fn new(windows: Windows, share: &Arc<Share>) -> Option<Self> {
        let Windows { least, first, usual, most } = windows;
        let mut size = share.take_some(least, first.max(least));
        if size == 0 {
            size = share.take_least(least).then_some(least)?;
        }
        Some(Self {
            size,
            left: size,
            held: 0,
            owed: 0,
            last: Duration::ZERO,
            watch: None,
            trip: Duration::MAX,
            given: None,
            first: size,
            usual,
            most,
            rate: None,
            step: u32::MAX,
            excess: 0,
            share: Arc::clone(share),
        })
    }

    /// The channel is to carry `rate` bytes a second at most, which is up to whoever says what was
    /// consumed, and when: the window is made fit for it, so that neither a long rest nor one large
    /// WINDOW_ADJUST lets much come at once.
    pub fn pace(&mut self, rate: u64) {
        let of = |ms| at_rate(rate, Duration::from_millis(ms));
        self.rate = Some(rate);
        let usual = of(PACED).max(PACED_LEAST);
        self.first = self.first.min(usual);
        self.usual = self.usual.min(usual);
        self.most = self.most.min(of(PACED_FAR).max(PACED_LEAST));
        self.step = of(PACED_STEP).max(PACED_LEAST_STEP);
        self.excess = self.size.saturating_sub(self.first);
    }

    /// What the peer may send now.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// What waits to be consumed.
    pub fn held(&self) -> u32 {
        self.held
    }

    #[cfg(test)]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Counts what came in (RFC 4254 section 5.2).
    pub fn received(&mut self, bytes: u32, now: Duration) -> Result<(), Beyond> {
        self.left = self.left.checked_sub(bytes).ok_or(Beyond)?;
        if self.size == 0 {
            return Ok(());
        }
        self.held = self.held.saturating_add(bytes);
        if let Some(watch) = &mut self.watch {
            match watch.before.checked_sub(bytes) {
                Some(before) => {
                    watch.before = before;
                    watch.bytes = watch.bytes.saturating_add(bytes);
                }
                None => self.arrived(bytes, now),
            }
        }
        self.last = now;
        Ok(())
    }

    /// The first data that the watched WINDOW_ADJUST allowed is here.
    fn arrived(&mut self, bytes: u32, now: Duration) {
        let Some(watch) = self.watch.take() else { return };
        self.trip = self.trip.min(now.saturating_sub(watch.at));
        if let Some(rate) = self.rate {
            // There are no gaps where little is given at a time. What came on time took the path's
            // round trip, or less than a slow sender takes.
            let trip = now.saturating_sub(watch.at);
            if trip <= Duration::from_millis(PACED_FAR) {
                let steps = Duration::from_millis(2 * PACED_STEP);
                let wanted = at_rate(rate, trip.saturating_add(steps)).min(self.most);
                self.grow_by(wanted.saturating_sub(self.size));
            }
            return;
        }
        let gap = now.saturating_sub(self.last.max(watch.at));
        let before = self.last.saturating_sub(watch.at);
        let usual = before.saturating_mul(bytes).checked_div(watch.bytes).unwrap_or_default();
        let nanos = u64::from(self.size).saturating_mul(1_000_000_000) / ENOUGH;
        let full = Duration::from_nanos(nanos);
        let worth = full.saturating_add(usual.saturating_mul(2));
        if gap >= worth && gap >= watch.waited && self.trip >= full {
            self.grow(self.most);
        }
    }

    /// Counts what the other leg took of it; more than is held counts as all that is held.
    pub fn consumed(&mut self, bytes: u32) {
        let bytes = bytes.min(self.held);
        self.held = self.held.saturating_sub(bytes);
        self.owed = self.owed.saturating_add(bytes);
        let less = self.excess.min(self.owed);
        self.excess = self.excess.saturating_sub(less);
        self.give_back(less);
    }

    /// What a WINDOW_ADJUST (RFC 4254 section 5.2) is to give now, if one is due: half of the window at
    /// least, or a step of a channel that is held to a rate.
    pub fn due(&mut self, now: Duration) -> Option<u32> {
        // Before it is set for the first time: then nothing was given yet, and nothing is quick.
        let given = self.given;
        self.rest(now);
        if self.owed < (self.size / 2).min(self.step) || self.owed == 0 {
            return None;
        }
        self.shrink();
        if given.is_some_and(|given| now.saturating_sub(given) < QUICK) {
            // What is being watched was of the smaller window.
            if self.grow(self.usual) {
                self.watch = None;
            }
        }
        self.given = Some(now);
        let given = std::mem::take(&mut self.owed);
        if given == 0 {
            return None;
        }
        if self.watch.is_none() {
            let stopped = self.left < STOPPED;
            let waited = if stopped { now.saturating_sub(self.last) } else { Duration::ZERO };
            self.watch = Some(Watch { at: now, waited, before: self.left, bytes: 0 });
        }
        self.left = self.left.saturating_add(given);
        Some(given)
    }

    /// The channel is gone, but not what came in on it: keeps from the budget what is still held.
    pub fn leave(&mut self) {
        let gone = self.size.saturating_sub(self.held);
        self.share.give(gone);
        self.size = self.held;
        self.left = 0;
        self.owed = 0;
    }

    /// Nobody wants what came in or comes in: gives all to the budget back. What the peer may still
    /// send is counted on.
    pub fn retire(&mut self) {
        self.held = 0;
        self.owed = 0;
        self.share.give(std::mem::take(&mut self.size));
    }

    /// Doubles the size, up to `most`, as far as the connection's share goes; whether it has grown.
    fn grow(&mut self, most: u32) -> bool {
        self.grow_by(self.size.min(most.saturating_sub(self.size)))
    }

    /// Takes `more` from the share, as far as it goes; whether it has grown.
    fn grow_by(&mut self, more: u32) -> bool {
        if more == 0 || self.share.is_tight() {
            return false;
        }
        let more = self.share.take_some(1, more);
        self.size = self.size.saturating_add(more);
        self.owed = self.owed.saturating_add(more);
        more > 0
    }

    /// Gives back of what has grown as much as was used, if it lasted long. To be called now and then
    /// where nothing is sent.
    pub fn rest(&mut self, now: Duration) {
        let given = *self.given.get_or_insert(now);
        if self.size <= self.first || now.saturating_sub(given) < IDLE {
            return;
        }
        self.give_back(self.size.saturating_sub(self.first));
        self.given = Some(now);
    }

    /// Gives back half of what the window has grown, where others need it.
    fn shrink(&mut self) {
        if self.share.is_tight() {
            self.give_back(self.size.saturating_sub(self.first) / 2);
        }
    }

    /// Gives back up to `bytes` of what is not with the peer.
    fn give_back(&mut self, bytes: u32) {
        let less = bytes.min(self.owed);
        self.size = self.size.saturating_sub(less);
        self.owed = self.owed.saturating_sub(less);
        self.share.give(less);
    }

    /// `left + held + owed == size`, for tests.
    #[cfg(test)]
    pub fn is_sound(&self) -> bool {
        let sum = u64::from(self.left) + u64::from(self.held) + u64::from(self.owed);
        let size = self.size.saturating_sub(self.excess);
        sum == u64::from(self.size) && size <= self.most.max(self.first)
    }
}

/// Bytes that pass in `time` at `rate` bytes a second.
fn at_rate(rate: u64, time: Duration) -> u32 {
    let bytes = u128::from(rate).saturating_mul(time.as_nanos()) / 1_000_000_000;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        self.share.give(self.size);
    }
}

#[cfg(test)]
mod tests;
