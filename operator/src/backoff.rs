//! How long to wait before something that failed is tried again: per object, exponential, jittered.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rand::Rng as _;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer.
const LONGEST: Duration = Duration::from_mins(5);

/// The failures in a row of each object of one controller.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: HashMap<K, u32>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failures: HashMap::new() }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Counts one more failure and says how long to wait: 1 s doubled with each, 5 min at most, of
    /// which up to a quarter is taken off at random.
    pub fn failed(&mut self, key: K) -> Duration {
        let failures = self.failures.entry(key).or_insert(0);
        let wait = bound(*failures);
        *failures = failures.saturating_add(1);
        jittered(wait)
    }

    /// It went well, or is gone: the next failure is a first one.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }
}

/// The wait after `failures` earlier ones, before it is jittered.
fn bound(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST)
}

/// `wait`, less up to a quarter of it at random.
pub fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_per_object_and_are_bounded() {
        let mut backoff = Backoff::default();
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            let wait = backoff.failed("a").as_secs_f64();
            let expected = f64::from(expected);
            assert!((0.75 * expected..=expected).contains(&wait), "{wait} for {expected}");
        }
        assert!(backoff.failed("b") <= FIRST);
        backoff.forget(&"a");
        assert!(backoff.failed("a") <= FIRST);
        assert_eq!(bound(u32::MAX), LONGEST);
    }
}
