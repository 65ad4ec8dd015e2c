//! How long to wait before something is tried again: longer each time, and never in step with others.

use std::time::Duration;

/// Full jitter: anything from a tenth of what is due to all of it.
#[derive(Clone, Debug)]
pub struct Pause {
    first: Duration,
    most: Duration,
    due: Duration,
}

impl Pause {
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, due: first }
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let due = self.due;
        self.due = due.saturating_mul(2).min(self.most);
        due.mul_f64(rand::random_range(0.1..=1.0))
    }

    /// From now on as `other` would, from where it is.
    pub fn rebound(&mut self, other: &Self) {
        (self.first, self.most) = (other.first, other.most);
        self.due = self.due.clamp(self.first, self.most);
    }

    /// It went well: the next failure is the first.
    pub fn reset(&mut self) {
        self.due = self.first;
    }
}
