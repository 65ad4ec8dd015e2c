//! Why policy refuses, as values; `sentence` has the words.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{Label, Login};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deny {
    pub reason: Reason,
    /// When the same request would next be admitted, if that is foreseeable.
    pub next_opening: Option<NextOpening>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextOpening {
    pub at: Timestamp,
    /// As people read it: `Tue 24 Nov 22:00 Europe/Berlin`.
    pub human: String,
    pub case: Option<Arc<str>>,
}

/// Why policy refuses. `Display` of [`Deny`] is the sentence: ASCII, at most 300 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The login does not exist any more, or never did.
    UnknownLogin {
        login: Login,
    },
    /// A known key with another's login name.
    WrongLogin {
        typed: String,
        owner: Login,
    },
    /// The key was taken from the user.
    KeyRemoved {
        login: Login,
    },
    UserSuspended {
        login: Login,
    },
    UserExpired {
        login: Login,
        at: Timestamp,
    },
    SourceNotAllowed {
        login: Login,
        source: IpAddr,
    },
    /// The host is no terminal name by form (comma, glob, non-ASCII, too long, another domain).
    MalformedHost {
        shown: String,
    },
    /// No such terminal, or none that a window of this user's selects: the two read the same.
    UnknownTerminal {
        login: Login,
        terminal: String,
    },
    UnknownListenPort {
        login: Login,
        port: u32,
    },
    /// The terminal declares no service on this port (declared ones listed: those of her windows).
    UndeclaredPort {
        terminal: Label,
        port: u32,
        declared: Vec<(Label, u16)>,
    },
    TerminalSuspended {
        terminal: Label,
    },
    /// Windows select user and terminal, but none this service.
    ServiceNotInWindow {
        login: Login,
        terminal: Label,
        service: Label,
    },
    /// Windows admit, but none is open now.
    NotOpen {
        login: Login,
        terminal: Label,
        service: Label,
    },
    /// Windows admitted, none is open now and none will be; this one was the last.
    WindowExpired {
        login: Login,
        terminal: Label,
        service: Label,
        window: Label,
        /// When it closed, as people read it.
        closed: String,
    },
    /// A window that would be open now is suspended, or all that select user, terminal and service are.
    WindowSuspended {
        login: Login,
        terminal: Label,
        service: Label,
        window: Label,
    },
    /// The window wants what only an agent can do.
    NeedsAgent {
        window: Label,
        what: Wants,
        terminal: Label,
    },
    /// A running session's own window went away: deleted, re-made or narrowed.
    WindowGone {
        window: Label,
    },
    WindowClosed {
        window: Label,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    Consent,
    Code,
    Recording,
}
