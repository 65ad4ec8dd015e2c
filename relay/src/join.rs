//! Joins a staff channel and a terminal's channel: bytes pass both ways, each way's end of stream
//! alone, and nothing passes once the session is no longer live (invariants 1 and 2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::{Boot, Now};
use crate::pace::Pace;
use crate::session::Session;
use crate::ssh::{Channel, Direction, Pass, splice};

/// Runs until both ways are done, a side has closed, or the session has ended. On return both channels
/// are closed.
pub async fn join(session: &Arc<Session>, staff: Channel, terminal: Channel) {
    let gated: Arc<dyn Pass> = Arc::new(Gated(Arc::clone(session)));
    let joined = splice(staff, terminal, &gated);
    let both = async {
        joined.done().await;
        // With its terminal's connection gone the session is about to end: the login user's client
        // is told why before its channel is closed.
        if session.terminal.is_gone() {
            session.ended().await;
        }
    };
    tokio::select! {
        biased;
        () = session.ended() => {}
        () = both => {}
    }
}

/// Asks before each run of bytes is sealed whether it may pass now: the process may have stood still
/// since the last look at the clocks, or the bytes waited for the reader past the deadline.
struct Gated(Arc<Session>);

impl Pass for Gated {
    fn may_pass(&self, now: Now) -> bool {
        self.0.may_forward(now)
    }

    fn passed(&self, direction: Direction, bytes: u64) {
        let counter = match direction {
            Direction::There => &self.0.bytes_in,
            Direction::Back => &self.0.bytes_out,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    fn may_send_at(&self, direction: Direction, bytes: u64, now: Boot) -> Option<Boot> {
        let at = self.0.pace.as_ref()?.passed(direction, bytes, now)?;
        self.0.held_back(direction, bytes);
        Some(at)
    }

    fn rate(&self) -> Option<u64> {
        self.0.pace.as_ref().map(Pace::rate)
    }

    /// A stream that stops with its terminal's connection has no end to pass on: an EOF makes the
    /// client of `ssh -J` leave before it is told why the session ends.
    fn may_end(&self, _: Direction) -> bool {
        !self.0.terminal.is_gone()
    }
}
