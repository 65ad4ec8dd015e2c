//! The wall clock of the manifests and the monotonic clock of the measurements, side by side.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Waits for an instant of the wall clock.
pub fn until(at: Timestamp) {
    if let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now())) {
        std::thread::sleep(left);
    }
}

/// Where an instant of the wall clock lies on the monotonic clock.
pub fn monotonic(at: Timestamp) -> Instant {
    let left = at.duration_since(Timestamp::now());
    match Duration::try_from(left) {
        Ok(left) => Instant::now() + left,
        Err(_) => Instant::now().checked_sub(left.unsigned_abs()).expect("a time since boot"),
    }
}

/// How long after `begin` it was at `at`; zero if before.
pub fn after(begin: Instant, at: Instant) -> Duration {
    at.saturating_duration_since(begin)
}
