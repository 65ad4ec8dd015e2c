//! The local claim: until when, by this machine's boot clock, this replica leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_process::clock::{self, Boot};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Inner {
    /// Nanoseconds since the machine's start; 0: not held.
    until: AtomicU64,
    /// Writes on their way.
    writes: AtomicUsize,
    /// Told when the last of them is done.
    idle: Notify,
}

/// Until when this replica leads. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Inner>);

impl Held {
    /// Not held.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is held until `until`.
    pub fn extend(&self, until: Boot) {
        self.0.until.store(nanos(until), Ordering::SeqCst);
    }

    /// It is not held any more; no further write starts.
    pub fn give_up(&self) {
        self.0.until.store(0, Ordering::SeqCst);
    }

    /// How long it is still held; `None` once it is not.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining_at(clock::boot())
    }

    fn remaining_at(&self, now: Boot) -> Option<Duration> {
        let until = self.0.until.load(Ordering::SeqCst);
        let left = until.checked_sub(nanos(now)).filter(|left| *left > 0)?;
        Some(Duration::from_nanos(left))
    }

    /// Counts a write in, if the lease is held. The write is to take no longer than
    /// [`Pass::remaining`].
    pub fn enter(&self) -> Option<Pass> {
        // Counted first: who gives up and then sees no write knows that none starts.
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        let mut pass = Pass { held: self.clone(), remaining: Duration::ZERO };
        pass.remaining = self.remaining()?;
        Some(pass)
    }

    /// Resolves when no write is on its way, at that instant.
    pub async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.0.writes.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// One write on its way.
#[derive(Debug)]
pub struct Pass {
    held: Held,
    remaining: Duration,
}

impl Pass {
    /// How long the lease is still held, as of when the write was counted in.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.held.0.writes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.held.0.idle.notify_waiters();
        }
    }
}

fn nanos(at: Boot) -> u64 {
    u64::try_from(at.since_start().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn it_expires_by_itself_at_the_instant() {
        let held = Held::new();
        assert_eq!(held.remaining_at(at(0)), None);
        held.extend(at(12));
        assert_eq!(held.remaining_at(at(2)), Some(Duration::from_secs(10)));
        assert_eq!(held.remaining_at(at(12)), None);
        assert_eq!(held.remaining_at(at(13)), None);
        held.give_up();
        assert_eq!(held.remaining_at(at(1)), None);
    }

    #[tokio::test]
    async fn who_gives_up_can_wait_for_the_writes_on_their_way() {
        let held = Held::new();
        assert!(held.enter().is_none());
        held.idle().await;
        held.extend(clock::boot().plus(Duration::from_mins(1)));
        let pass = held.enter().unwrap();
        assert!(pass.remaining() > Duration::from_secs(50));
        held.give_up();
        assert!(held.enter().is_none());
        let idle = held.idle();
        tokio::pin!(idle);
        assert!(futures_util::poll!(&mut idle).is_pending());
        drop(pass);
        idle.await;
    }
}
