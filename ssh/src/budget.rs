//! The bound on the windows that all connections of a replica have given together, and what one
//! connection may have of it.
//!
//! A peer that was given a window may use it at any time, and nothing in SSH takes one back; so all that
//! was given is counted, whether it is used or not. Three things keep a crowd of idle peers from having
//! all of it:
//! - One connection has an eighth of what the others leave at most, so that what is left shrinks with
//!   each that takes its share and never ends.
//! - Beyond the whole lies a reserve of a quarter as much, from which channels begin with the least
//!   window once the whole is used up. Only with the reserve gone, too, is a channel refused.
//! - One connection has a quarter of what is left at most where it takes of the reserve, but a few of
//!   the least windows in any case.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One part in so many of what others leave is a connection's.
const SHARE: usize = 8;
/// One part in so many, where the reserve counts, too.
const LEAST_SHARE: usize = 4;
/// So many of the least windows a connection gets as long as there is one.
const LEAST_COUNT: usize = 4;

/// A number of bytes that channels share: what is taken is given back when the channel goes.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    taken: AtomicUsize,
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Budget {
    /// `total` in bytes, beside the reserve.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, taken: AtomicUsize::new(0) })
    }

    /// The whole and its reserve, in bytes: more is never taken.
    pub fn most(&self) -> usize {
        self.total.saturating_add(self.total / 4)
    }

    /// Takes `bytes` where no more than `bound` are taken then.
    fn take(&self, bytes: usize, bound: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= bound);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn give(&self, bytes: usize) {
        let less = |taken: usize| Some(taken.saturating_sub(bytes));
        // The closure always has a value.
        let _ = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// How many bytes are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether three quarters are taken: windows that have grown should shrink.
    fn is_tight(&self) -> bool {
        self.taken() > self.total - self.total / 4
    }
}

/// What one connection has of the budget. It is changed under the connection's lock alone.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    taken: AtomicUsize,
}

impl Share {
    pub fn new(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget: Arc::clone(budget), taken: AtomicUsize::new(0) })
    }

    /// Bytes that this connection has now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// What is not another connection's, of `bound` bytes.
    fn left_by_others(&self, bound: usize) -> usize {
        bound.saturating_sub(self.budget.taken().saturating_sub(self.taken()))
    }

    fn take(&self, bytes: usize, bound: usize) -> bool {
        let taken = self.budget.take(bytes, bound);
        if taken {
            self.taken.fetch_add(bytes, Ordering::AcqRel);
        }
        taken
    }

    /// Takes `wanted` bytes, or as many as this connection may still have; how many those are. Fewer
    /// than `least` are not taken.
    pub fn take_some(&self, least: u32, wanted: u32) -> u32 {
        let total = self.budget.total;
        let mine = self.left_by_others(total) / SHARE;
        let may = mine.saturating_sub(self.taken()).min(total.saturating_sub(self.budget.taken()));
        let bytes = wanted.min(u32::try_from(may).unwrap_or(u32::MAX));
        if bytes > 0 && bytes >= least && self.take(size(bytes), total) { bytes } else { 0 }
    }

    /// Takes the least window, of the reserve if need be.
    pub fn take_least(&self, least: u32) -> bool {
        let (least, most) = (size(least), self.budget.most());
        let mine = self.left_by_others(most) / LEAST_SHARE;
        let mine = mine.max(least.saturating_mul(LEAST_COUNT));
        self.taken().saturating_add(least) <= mine && self.take(least, most)
    }

    /// Gives back what was taken.
    pub fn give(&self, bytes: u32) {
        self.budget.give(size(bytes));
        let less = |taken: usize| Some(taken.saturating_sub(size(bytes)));
        let _ = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Whether windows that have grown should shrink.
    pub fn is_tight(&self) -> bool {
        self.budget.is_tight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_has_its_share_and_never_all() {
        let budget = Budget::new(8000);
        let greedy = Share::new(&budget);
        assert_eq!(greedy.take_some(1, 600), 600);
        assert_eq!(greedy.take_some(1, 600), 400, "an eighth of all");
        assert_eq!(greedy.take_some(1, 600), 0);
        let next = Share::new(&budget);
        assert_eq!(next.take_some(900, u32::MAX), 0, "fewer than asked for at least");
        assert_eq!(next.take_some(1, u32::MAX), 875, "an eighth of what the first one leaves");
        let mut crowd: Vec<_> = (0..40).map(|_| Share::new(&budget)).collect();
        for share in &crowd {
            assert!(share.take_some(1, u32::MAX) > 0);
        }
        assert!(budget.taken() < 8000 && greedy.is_tight());
        greedy.give(1000);
        assert_eq!(greedy.taken(), 0);
        for share in crowd.drain(..) {
            share.give(u32::try_from(share.taken()).unwrap());
        }
        next.give(875);
        assert_eq!(budget.taken(), 0);
        next.give(1);
        assert_eq!((budget.taken(), next.taken()), (0, 0));
    }

    #[test]
    fn the_reserve_is_for_the_least_windows_of_many() {
        let budget = Budget::new(8000);
        let crowd: Vec<_> = (0..80).map(|_| Share::new(&budget)).collect();
        // Two of the least window each use up the whole.
        for share in &crowd {
            assert!(share.take_least(50) && share.take_least(50));
        }
        assert_eq!(crowd[0].take_some(1, 50), 0);
        // One connection does not get the reserve to itself.
        let greedy = Share::new(&budget);
        let had = (0..100).take_while(|_| greedy.take_least(50)).count();
        assert_eq!(had, 10, "a quarter of the reserve");
        let others: Vec<_> = (0..30).map(|_| Share::new(&budget)).collect();
        assert!(others.iter().all(|share| share.take_least(50)));
        assert_eq!(budget.taken(), budget.most());
        assert!(!Share::new(&budget).take_least(50));
    }
}
