//! The events of one connection on their way to whoever takes them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::Event;

/// Events that may wait. Opens and requests of a channel are bounded by themselves, so that only a peer
/// that asks for other things without end, or a relay that stands still, gets there.
const MOST: usize = 512;

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Nobody takes any more.
    left: bool,
    /// No more will come.
    over: bool,
}

/// Why an event was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// Too many wait.
    Full,
    /// Nobody takes them any more.
    Left,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event over. Without the connection's lock, since one that is not taken is refused.
    pub fn push(&self, event: Event) -> Result<(), NotTaken> {
        let why = {
            let mut state = self.lock();
            if state.left {
                NotTaken::Left
            } else if state.events.len() >= MOST {
                NotTaken::Full
            } else {
                state.events.push_back(event);
                drop(state);
                self.told.notify_one();
                return Ok(());
            }
        };
        drop(event);
        Err(why)
    }

    /// No more will come.
    pub fn end(&self) {
        self.lock().over = true;
        self.told.notify_one();
    }

    async fn next(&self) -> Option<Event> {
        loop {
            {
                let mut state = self.lock();
                if let Some(event) = state.events.pop_front() {
                    if state.events.is_empty() {
                        state.events = VecDeque::new();
                    }
                    return Some(event);
                }
                if state.over {
                    return None;
                }
            }
            self.told.notified().await;
        }
    }

    fn leave(&self) {
        let unread = {
            let mut state = self.lock();
            state.left = true;
            std::mem::take(&mut state.events)
        };
        // Each is refused.
        drop(unread);
    }
}

/// The events of one connection. Dropping it ends the connection at the next event.
pub struct Events(pub(super) Arc<Queue>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// The next event; `None` once the connection has ended.
    pub async fn recv(&mut self) -> Option<Event> {
        self.0.next().await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Event {
        Event::Refused { what: "a flood" }
    }

    #[tokio::test]
    async fn so_many_events_wait_and_no_more() {
        let queue = Arc::new(Queue::default());
        for _ in 0..MOST {
            queue.push(refused()).unwrap();
        }
        assert!(matches!(queue.push(refused()), Err(NotTaken::Full)));
        let mut events = Events(Arc::clone(&queue));
        assert!(events.recv().await.is_some());
        queue.push(refused()).unwrap();
        drop(events);
        assert!(matches!(queue.push(refused()), Err(NotTaken::Left)));
    }
}
