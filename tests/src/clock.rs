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
    // Of some readings of both clocks the closest pair: something else may run between two readings.
    let readings = (0..10).map(|_| {
        let (now, wall) = (Instant::now(), Timestamp::now());
        (now.elapsed(), now, wall)
    });
    let (_, now, wall) = readings.min_by_key(|(apart, ..)| *apart).expect("a reading");
    let left = at.duration_since(wall);
    match Duration::try_from(left) {
        Ok(left) => now + left,
        Err(_) => now.checked_sub(left.unsigned_abs()).expect("a time since boot"),
    }
}

/// The time that so many percent of the rounds of each of two acts take at most. They take turns, so that
/// whatever else the machine does falls on both.
pub fn in_turn(rounds: usize, percent: usize, mut acts: [&mut dyn FnMut(); 2]) -> [Duration; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (act, times) in acts.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            act();
            times.push(begun.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort();
        times[rounds * percent / 100]
    })
}

/// How long after `begin` it was at `at`; zero if before.
pub fn after(begin: Instant, at: Instant) -> Duration {
    at.saturating_duration_since(begin)
}
