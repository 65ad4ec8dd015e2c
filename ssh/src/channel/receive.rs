//! The window that we give the peer on one channel (RFC 4254 section 5.2), by what was consumed.
//!
//! A byte of the window is in one of three places: `left` with the peer, `held` here until the other
//! leg has taken it, or `owed`, taken and not given again yet. Their sum is `size`, which is taken
//! from the replica's [`Budget`]; so memory is bounded by what is given, and a channel whose reader
//! is slow stalls nobody but itself.
//!
//! The size grows with measured need. A peer that has used up its window stands still until our
//! WINDOW_ADJUST reaches it. Where that journey took longer than our own side took to free half of
//! the window, the path is the limit and the size is doubled; where it did not, the reader is.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Budget;
use crate::config::Windows;

/// A peer stands still where it may send less than one packet of this many bytes, the largest that
/// we take.
const STOPPED: u32 = 32 * 1024;
/// A journey shorter than this is not worth memory: at the smallest window it still means 128 MB/s.
const JOURNEY: Duration = Duration::from_millis(2);

/// The peer sent more than its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beyond;

/// Where the measurement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Moving,
    /// The window was used up at this time.
    UsedUp(Duration),
    /// It was, our side took `freeing` until a WINDOW_ADJUST, and that left at `at`.
    Given {
        at: Duration,
        freeing: Duration,
    },
}

#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    size: u32,
    left: u32,
    held: u32,
    owed: u32,
    pace: Pace,
    first: u32,
    most: u32,
    budget: Arc<Budget>,
}

impl ReceiveWindow {
    /// A window of the size that channels begin with, or of what the budget has left, if that is at
    /// least `windows.least`; else none.
    pub fn new(windows: Windows, budget: &Arc<Budget>) -> Option<Self> {
        let mut size = windows.first.max(windows.least);
        while !budget.take(size) {
            if size <= windows.least {
                return None;
            }
            size = (size / 2).max(windows.least);
        }
        Some(Self {
            size,
            left: size,
            held: 0,
            owed: 0,
            pace: Pace::Moving,
            first: size,
            most: windows.most,
            budget: Arc::clone(budget),
        })
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

    /// Counts what came in.
    pub fn received(&mut self, bytes: u32, now: Duration) -> Result<(), Beyond> {
        self.left = self.left.checked_sub(bytes).ok_or(Beyond)?;
        if self.size == 0 {
            return Ok(());
        }
        self.held = self.held.saturating_add(bytes);
        if let Pace::Given { at, freeing } = self.pace {
            let journey = now.saturating_sub(at);
            if journey >= JOURNEY && journey >= freeing {
                self.grow();
            }
            self.pace = Pace::Moving;
        }
        if self.left < STOPPED && self.pace == Pace::Moving {
            self.pace = Pace::UsedUp(now);
        }
        Ok(())
    }

    /// Counts what the other leg took of it; more than is held counts as all that is held.
    pub fn consumed(&mut self, bytes: u32) {
        let bytes = bytes.min(self.held);
        self.held = self.held.saturating_sub(bytes);
        self.owed = self.owed.saturating_add(bytes);
    }

    /// What a WINDOW_ADJUST is to give now, if one is due: half of the window at least.
    pub fn due(&mut self, now: Duration) -> Option<u32> {
        if self.owed < self.size / 2 || self.owed == 0 {
            return None;
        }
        self.shrink();
        let given = std::mem::take(&mut self.owed);
        if given == 0 {
            return None;
        }
        self.left = self.left.saturating_add(given);
        if let Pace::UsedUp(since) = self.pace {
            self.pace = Pace::Given { at: now, freeing: now.saturating_sub(since) };
        }
        Some(given)
    }

    /// The channel is gone, but not what came in on it: keeps from the budget what is still held.
    pub fn leave(&mut self) {
        let gone = self.size.saturating_sub(self.held);
        self.budget.give(gone);
        self.size = self.held;
        self.left = 0;
        self.owed = 0;
    }

    /// Nobody wants what came in or comes in: gives all to the budget back. What the peer may still
    /// send is counted on.
    pub fn retire(&mut self) {
        self.held = 0;
        self.owed = 0;
        self.budget.give(std::mem::take(&mut self.size));
    }

    fn grow(&mut self) {
        let more = self.size.min(self.most.saturating_sub(self.size));
        if more > 0 && !self.budget.is_tight() && self.budget.take(more) {
            self.size = self.size.saturating_add(more);
            self.owed = self.owed.saturating_add(more);
        }
    }

    /// Gives back half of what the window has grown, where others need it.
    fn shrink(&mut self) {
        if !self.budget.is_tight() {
            return;
        }
        let less = (self.size.saturating_sub(self.first) / 2).min(self.owed);
        self.size = self.size.saturating_sub(less);
        self.owed = self.owed.saturating_sub(less);
        self.budget.give(less);
    }

    /// `left + held + owed == size`, for tests.
    #[cfg(test)]
    pub fn is_sound(&self) -> bool {
        let sum = u64::from(self.left) + u64::from(self.held) + u64::from(self.owed);
        sum == u64::from(self.size) && self.size <= self.most.max(self.first)
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        self.budget.give(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u32 = 1024;

    fn windows() -> Windows {
        Windows { least: 32 * KB, first: 256 * KB, most: 2048 * KB }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Sends and consumes window after window over a path that takes `journey`, the reader `reading`.
    fn run(window: &mut ReceiveWindow, journey: Duration, reading: Duration, rounds: usize) {
        let mut now = ms(1);
        for _ in 0..rounds {
            while window.left() > 0 {
                window.received(window.left().min(STOPPED), now).unwrap();
                window.due(now).map(drop).unwrap_or_default();
            }
            now += reading;
            while window.held() > 0 {
                window.consumed(STOPPED);
                window.due(now);
                assert!(window.is_sound());
            }
            now += journey;
        }
    }

    #[test]
    fn a_long_path_grows_the_window_and_a_slow_reader_does_not() {
        let budget = Budget::new(64 << 20);
        let mut far = ReceiveWindow::new(windows(), &budget).unwrap();
        run(&mut far, ms(200), ms(0), 8);
        assert_eq!(far.size(), 2048 * KB);
        let mut slow = ReceiveWindow::new(windows(), &budget).unwrap();
        run(&mut slow, ms(20), ms(200), 20);
        assert_eq!(slow.size(), 256 * KB);
        let mut near = ReceiveWindow::new(windows(), &budget).unwrap();
        run(&mut near, Duration::from_micros(300), ms(0), 20);
        assert_eq!(near.size(), 256 * KB);
        drop((far, slow, near));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn more_than_the_window_is_told() {
        let budget = Budget::new(1 << 20);
        let mut window = ReceiveWindow::new(windows(), &budget).unwrap();
        assert_eq!(window.received(256 * KB + 1, ms(0)), Err(Beyond));
        window.received(256 * KB, ms(0)).unwrap();
        assert_eq!(window.received(1, ms(0)), Err(Beyond));
        assert_eq!(window.due(ms(0)), None, "nothing was consumed");
        window.consumed(128 * KB - 1);
        assert_eq!(window.due(ms(0)), None);
        window.consumed(u32::MAX);
        assert_eq!(window.due(ms(0)), Some(256 * KB));
    }

    #[test]
    fn a_tight_budget_gives_small_windows_then_none_and_grown_ones_shrink() {
        let budget = Budget::new((3 << 20) + (100 << 10));
        let mut far = ReceiveWindow::new(windows(), &budget).unwrap();
        run(&mut far, ms(200), ms(0), 8);
        let grown = far.size();
        assert!(grown > 256 * KB && grown <= 2048 * KB);
        let mut others = Vec::new();
        while let Some(window) = ReceiveWindow::new(windows(), &budget) {
            others.push(window);
        }
        assert!(others.len() > 4 && others.iter().any(|it| it.size() == 32 * KB));
        assert!(budget.taken() <= (3 << 20) + (100 << 10));
        run(&mut far, ms(200), ms(0), 8);
        assert!(far.size() < grown && far.is_sound());
        drop((far, others));
        assert_eq!(budget.taken(), 0);
    }
}
