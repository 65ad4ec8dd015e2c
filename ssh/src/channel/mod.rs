//! Channels (RFC 4254 section 5): what is known of each, and the table of them.

pub(crate) mod chunks;
pub(crate) mod incoming;
pub(crate) mod open;
pub(crate) mod opens;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod table;

use crate::replies::Replies;

use receive::ReceiveWindow;
use send::SendQueue;

/// A channel of one connection. Our number for it is small and used again after both CLOSEs; a handle
/// to an earlier channel of the same number is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `direct-tcpip`, opened by the peer.
    Direct,
    /// `session`, opened by the peer: the relay itself answers on it, and there is no input.
    Session(Session),
    /// `forwarded-tcpip`, opened by us.
    Forwarded,
}

/// What a session channel was asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    pub pty: bool,
    /// A shell, a command or a subsystem was asked for.
    pub started: bool,
}

/// Where a channel is on its way to being open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The peer asked; we have neither confirmed nor refused. It does not know our number yet.
    Asked,
    /// We asked. `forsaken`: nobody wants it any more, so it is closed as soon as it is confirmed.
    Asking { forsaken: bool },
    /// Confirmed, until both CLOSEs.
    Open,
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub kind: Kind,
    pub state: State,
    /// The peer's number for it; 0 while `state` is `Asking`.
    pub remote: u32,
    pub incoming: ReceiveWindow,
    pub outgoing: SendQueue,
    pub peer_eof: bool,
    /// The relay has closed it: nothing is told of it any more.
    pub silent: bool,
    /// Requests of the peer on it; `bool` is whether a reply is wanted.
    pub replies: Replies<bool, bool>,
    /// The number of the one that the relay is to answer.
    pub asked: Option<u64>,
    /// It is in the line of those that have something to seal.
    pub lined_up: bool,
}

impl Channel {
    pub fn new(kind: Kind, state: State, remote: u32, incoming: ReceiveWindow) -> Self {
        Self {
            kind,
            state,
            remote,
            incoming,
            outgoing: SendQueue::default(),
            peer_eof: false,
            silent: false,
            replies: Replies::default(),
            asked: None,
            lined_up: false,
        }
    }

    pub fn by_peer(&self) -> bool {
        self.kind != Kind::Forwarded
    }
}
