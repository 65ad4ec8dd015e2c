//! The window that we give the peer on one channel (RFC 4254 section 5.2), by what was consumed.
//!
//! A byte of the window is in one of three places: `left` with the peer, `held` here until the other
//! leg has taken it, or `owed`, taken and not given again yet. Their sum is `size`, which is taken
//! from the replica's [`Budget`]; so memory is bounded by what is given, and a channel whose reader
//! is slow stalls nobody but itself.
//!
//! The size grows with measured need: a peer that has used up its window stands still until our
//! WINDOW_ADJUST reaches it. What is watched is the first byte that only such a message allowed. If
//! it came after a gap that is long beside the pace before it, the peer stood still; and if that was
//! longer than our own side had let it wait for the message, then the path is the limit, not the
//! reader, and the size is doubled.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Budget;
use crate::config::Windows;

/// Where a peer may send less than this many bytes, the largest packet that we take, it may stand
/// still.
const STOPPED: u32 = 32 * 1024;
/// Bytes a second beyond which no window has to grow: more than a core seals. What counts as a gap is
/// the time in which the window would pass at this rate, 0.26 ms at 256 KiB.
const ENOUGH: u64 = 1_000_000_000;

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
            last: Duration::ZERO,
            watch: None,
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
        let gap = now.saturating_sub(self.last.max(watch.at));
        let before = self.last.saturating_sub(watch.at);
        let usual = before.saturating_mul(bytes).checked_div(watch.bytes).unwrap_or_default();
        let nanos = u64::from(self.size).saturating_mul(1_000_000_000) / ENOUGH;
        let worth = Duration::from_nanos(nanos).saturating_add(usual.saturating_mul(2));
        if gap >= worth && gap >= watch.waited {
            self.grow();
        }
    }

    /// Counts what the other leg took of it; more than is held counts as all that is held.
    pub fn consumed(&mut self, bytes: u32) {
        let bytes = bytes.min(self.held);
        self.held = self.held.saturating_sub(bytes);
        self.owed = self.owed.saturating_add(bytes);
    }

    /// What a WINDOW_ADJUST (RFC 4254 section 5.2) is to give now, if one is due: half of the window at
    /// least.
    pub fn due(&mut self, now: Duration) -> Option<u32> {
        if self.owed < self.size / 2 || self.owed == 0 {
            return None;
        }
        self.shrink();
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

    /// A sender and a reader with a path between: the sender knows of a WINDOW_ADJUST `journey` after
    /// it was due, and sends a packet each `packet` as long as its window allows; the reader takes
    /// `reading` for each of them.
    fn run(
        window: &mut ReceiveWindow,
        (journey, packet, reading): (Duration, Duration, Duration),
        packets: usize,
    ) {
        let mut now = ms(1000);
        let mut may = u64::from(window.left());
        let mut adjusts = std::collections::VecDeque::new();
        let mut read = std::collections::VecDeque::new();
        let (mut sent, mut next, mut busy) = (0, now, now);
        while sent < packets {
            let arrives = adjusts.front().map(|(at, _)| *at);
            let done = read.front().copied();
            let sends = (may >= u64::from(STOPPED)).then_some(next);
            now = [arrives, done, sends].into_iter().flatten().min().unwrap().max(now);
            if arrives.is_some_and(|at| at <= now) {
                may += u64::from(adjusts.pop_front().unwrap().1);
            } else if done.is_some_and(|at| at <= now) {
                read.pop_front();
                window.consumed(STOPPED);
            } else {
                may -= u64::from(STOPPED);
                sent += 1;
                next = now + packet;
                window.received(STOPPED, now).unwrap();
                busy = busy.max(now) + reading;
                read.push_back(busy);
            }
            if let Some(given) = window.due(now) {
                adjusts.push_back((now + journey, given));
            }
            assert!(window.is_sound());
        }
    }

    #[test]
    fn a_long_path_grows_the_window_and_a_slow_reader_does_not() {
        let budget = Budget::new(64 << 20);
        let us = Duration::from_micros;
        let grown = |path, packets| {
            let mut window = ReceiveWindow::new(windows(), &budget).unwrap();
            run(&mut window, path, packets);
            window.size() / KB
        };
        // Journey, packet, reading. 100 MB/s at 200 ms would take 20 MB.
        assert_eq!(grown((ms(200), us(330), us(10)), 3000), 2048);
        // 10 MB/s at 50 ms take 500 KB, and half of the window is on its way back at any time.
        assert_eq!(grown((ms(50), us(3300), us(10)), 3000), 1024);
        // A slow reader, near or far.
        assert_eq!(grown((us(300), us(330), ms(30)), 3000), 256);
        assert_eq!(grown((ms(20), us(330), ms(30)), 3000), 256);
        // Near and fast: 1 GB/s at 2 ms take 2 MB, at 0.2 ms less than there is.
        assert_eq!(grown((ms(2), us(30), us(10)), 3000), 2048);
        assert_eq!(grown((us(200), us(30), us(10)), 3000), 256);
        // Near, or slow to send.
        assert_eq!(grown((us(300), us(330), us(10)), 3000), 256);
        assert_eq!(grown((ms(200), ms(100), us(10)), 3000), 256);
        assert_eq!(grown((ms(50), ms(30), us(10)), 3000), 256);
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
        run(&mut far, (ms(200), ms(1), ms(0)), 1000);
        let grown = far.size();
        assert!(grown > 256 * KB && grown <= 2048 * KB);
        let mut others = Vec::new();
        while let Some(window) = ReceiveWindow::new(windows(), &budget) {
            others.push(window);
        }
        assert!(others.len() > 4 && others.iter().any(|it| it.size() == 32 * KB));
        assert!(budget.taken() <= (3 << 20) + (100 << 10));
        run(&mut far, (ms(200), ms(1), ms(0)), 1000);
        assert!(far.size() < grown && far.is_sound());
        drop((far, others));
        assert_eq!(budget.taken(), 0);
    }
}
