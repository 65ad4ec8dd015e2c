//! What the relay keeps of one channel beside the core's own state: where its data goes, and who is to
//! be told when it ends. Its lock is the innermost of all and held for a moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_ssh::Id;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::splice::Way;

/// One channel of one connection.
pub(super) struct Port {
    pub id: Id,
    state: Mutex<State>,
    /// Cancelled when the channel is closed, by the peer, by the relay or with its connection.
    pub closed: CancellationToken,
    /// Something came in for whoever reads here.
    pub came: Notify,
    /// Something of what waits for the peer was sealed.
    pub sealed: Notify,
}

#[derive(Default)]
struct State {
    sink: Sink,
    /// The peer sends no more.
    eof: bool,
    /// The way whose bytes wait in this channel's queue for the peer.
    fed_by: Option<Arc<Way>>,
}

/// Where data goes that the peer sends on a channel.
pub(super) enum Sink {
    /// It waits here, at most as much as the window given, for a reader or until it is joined.
    Inbox(VecDeque<u8>),
    /// To the other leg.
    Way(Arc<Way>),
    /// Nowhere: the relay has let the channel go, or it is a console.
    Nowhere,
}

impl Default for Sink {
    fn default() -> Self {
        Self::Inbox(VecDeque::new())
    }
}

/// What is to be done with data that came in.
pub(super) enum Taken {
    /// It waits in the inbox.
    Kept,
    Pass(Arc<Way>),
    Dropped,
}

impl Port {
    pub fn new(id: Id, closed: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            id,
            state: Mutex::default(),
            closed,
            came: Notify::new(),
            sealed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Data of the peer's.
    pub fn take(&self, data: &[u8]) -> Taken {
        match &mut self.lock().sink {
            Sink::Inbox(inbox) => inbox.extend(data),
            Sink::Way(way) => return Taken::Pass(Arc::clone(way)),
            Sink::Nowhere => return Taken::Dropped,
        }
        self.came.notify_one();
        Taken::Kept
    }

    /// The peer sends no more on this channel; the way that ends with it, if it is joined.
    pub fn eof(&self) -> Option<Arc<Way>> {
        let mut state = self.lock();
        let again = std::mem::replace(&mut state.eof, true);
        self.came.notify_one();
        match &state.sink {
            Sink::Way(way) if !again => Some(Arc::clone(way)),
            _ => None,
        }
    }

    /// What waits in the inbox, all of it; `None` once nothing more will come.
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let eof = state.eof;
        match &mut state.sink {
            Sink::Inbox(inbox) if !inbox.is_empty() => Some(std::mem::take(inbox).into()),
            Sink::Inbox(_) if !eof => Some(Vec::new()),
            _ => None,
        }
    }

    /// Lets what comes in go by `way` from now on, unless something waits that has to go first: that
    /// is returned. An empty answer says that `way` is in place; `true`: the peer has sent its end.
    pub fn join(&self, way: &Arc<Way>) -> Result<bool, Vec<u8>> {
        let mut state = self.lock();
        match &mut state.sink {
            Sink::Inbox(inbox) if !inbox.is_empty() => Err(std::mem::take(inbox).into()),
            sink => {
                *sink = Sink::Way(Arc::clone(way));
                Ok(state.eof)
            }
        }
    }

    /// `way` feeds this channel's queue.
    pub fn feed(&self, way: &Arc<Way>) {
        self.lock().fed_by = Some(Arc::clone(way));
    }

    pub fn fed_by(&self) -> Option<Arc<Way>> {
        self.lock().fed_by.clone()
    }

    /// Nobody wants what the peer sends.
    pub fn discard(&self) {
        let mut state = self.lock();
        let gone = (std::mem::replace(&mut state.sink, Sink::Nowhere), state.fed_by.take());
        // A way may be the last to hold other things.
        drop(state);
        drop(gone);
    }
}
