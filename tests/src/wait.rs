//! Waiting for a condition until a deadline.

use std::time::{Duration, Instant};

/// Ample for anything that takes a moment on an idle machine; a wait that reaches it has failed. It is
/// more than the 25 s after which the relay asks a silent peer for a sign of life: a client that has
/// slept through its own end (OpenSSH 9.2 when SIGTERM comes just before it polls, dbclient when the last
/// bytes go out behind the peer's CLOSE) sees that then.
pub const SOON: Duration = Duration::from_secs(40);

/// Looks again this often where no event tells of a change.
const LOOK: Duration = Duration::from_millis(5);

/// Calls `look` until it gives something; panics, naming `what`, when `within` has passed.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, look: impl FnMut() -> Option<T>) -> T {
    match poll(within, look) {
        Some(found) => found,
        None => panic!("waited {within:?} in vain for: {what}"),
    }
}

/// [`wait_for`] a condition.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, within, || holds().then_some(()));
}

/// Calls `look` until it gives something or `within` has passed.
pub fn poll<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
