//! Window that a sender is to have later, where its channel is held to a rate.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{self, Boot};

/// What is due within the same of these is given together.
const TICK: Duration = Duration::from_millis(5);
/// Entries that wait; beyond that the last one takes the bytes, and their time.
const MOST: usize = 256;

/// Bytes of one sender, by when it may send as many anew. At most its window.
#[derive(Debug, Default)]
pub(super) struct Later {
    due: Mutex<VecDeque<(Boot, u32)>>,
    told: Notify,
}

/// `at`, at the end of its tick.
fn round(at: Boot) -> Boot {
    let tick = TICK.as_nanos();
    let ticks = at.since_start().as_nanos().div_ceil(tick);
    let nanos = u64::try_from(ticks.saturating_mul(tick)).unwrap_or(u64::MAX);
    Boot::from_start(Duration::from_nanos(nanos))
}

impl Later {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Boot, u32)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `bytes` until `at`, or until what was kept before them is due.
    pub fn push(&self, at: Boot, bytes: u32) {
        let at = round(at);
        let mut due = self.lock();
        let waits = due.len();
        match due.back_mut() {
            Some((last, sum)) if *last >= at || waits >= MOST => {
                *last = at.max(*last);
                *sum = sum.saturating_add(bytes);
            }
            _ => due.push_back((at, bytes)),
        }
        drop(due);
        if waits == 0 {
            self.told.notify_one();
        }
    }

    /// Takes what is due, and says when there will be more.
    fn take(&self, now: Boot) -> (u32, Option<Boot>) {
        let mut due = self.lock();
        let mut all = 0_u32;
        while let Some((_, bytes)) = due.pop_front_if(|(at, _)| *at <= now) {
            all = all.saturating_add(bytes);
        }
        (all, due.front().map(|(at, _)| *at))
    }

    /// Gives what is due, for as long as it is polled.
    pub async fn run(&self, give: impl Fn(u32)) -> Infallible {
        loop {
            let told = self.told.notified();
            let now = clock::boot();
            let (bytes, next) = self.take(now);
            if bytes > 0 {
                give(bytes);
            }
            match next {
                Some(at) => tokio::time::sleep(at.since(now)).await,
                None => told.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Boot {
        Boot::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_kept_is_given_when_it_is_due_and_takes_a_bounded_place() {
        let later = Later::default();
        later.push(at(101), 1);
        later.push(at(104), 2);
        later.push(at(106), 4);
        assert_eq!(later.take(at(104)), (0, Some(at(105))));
        assert_eq!(later.take(at(105)), (3, Some(at(110))));
        assert_eq!(later.take(at(200)), (4, None));
        for step in 0..10_000 {
            later.push(at(1000 + step * 10), 1);
        }
        assert_eq!(later.lock().len(), MOST);
        assert_eq!(later.take(at(200_000)), (10_000, None), "none is lost");
    }
}
