//! The bound on the windows that all connections of a replica have given together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that channels share: what is taken is given back when the channel goes.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    taken: AtomicUsize,
}

impl Budget {
    /// `total` in bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, taken: AtomicUsize::new(0) })
    }

    /// Takes `bytes`; `false` and nothing taken where they are not there.
    pub fn take(&self, bytes: u32) -> bool {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.total);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Gives back what was taken.
    pub fn give(&self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let less = |taken: usize| Some(taken.saturating_sub(bytes));
        // The closure always has a value.
        let _ = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// How many bytes are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether three quarters are taken: windows that have grown should shrink.
    pub fn is_tight(&self) -> bool {
        self.taken() > self.total - self.total / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_all_of_it_is_taken() {
        let budget = Budget::new(100);
        assert!(budget.take(70));
        assert!(!budget.take(31) && !budget.is_tight());
        assert!(budget.take(30) && budget.is_tight());
        budget.give(100);
        assert_eq!(budget.taken(), 0);
        budget.give(1);
        assert_eq!(budget.taken(), 0);
        assert!(!budget.take(u32::MAX));
    }
}
