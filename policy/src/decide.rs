//! `decide`: whether a login user may reach a service of a terminal at an instant, by which windows,
//! until when; and if not, why not and when next.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{KeyBlob, Label, Login, LoginUser, Service, Terminal, Window};
use crate::schedule::Occurrence;
use crate::snapshot::Snapshot;

/// A login user at the relay's door: what authentication proved, and where from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staff {
    pub login: Login,
    /// The key whose possession was proved.
    pub key: KeyBlob,
    pub source: IpAddr,
}

/// One staff channel that asks for a target.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub staff: &'a Staff,
    /// As the client sent it: name or FQDN in any case, one trailing dot allowed; or `localhost` and
    /// loopback addresses, where `port` is a listenPort. Any bytes, any length.
    pub host: &'a str,
    pub port: u32,
    /// Whether the terminal runs our agent, which alone can ask for consent or a code, or record.
    pub agent: bool,
}

#[derive(Clone, Debug)]
pub enum Decision {
    Allow(Allow),
    Deny(Deny),
}

#[derive(Clone, Debug)]
pub struct Allow {
    pub user: Arc<LoginUser>,
    pub terminal: Arc<Terminal>,
    pub service: Service,
    /// Not empty, in the order in which they are to be claimed: without oneTime first, then the
    /// latest deadline, then the oldest.
    pub candidates: Vec<Candidate>,
}

/// One window that admits.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub window: Arc<Window>,
    pub occurrence: Occurrence,
    /// The earliest of closes, the user's validUntil and now + maxSessionDuration.
    pub deadline: Timestamp,
}

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

impl Reason {
    /// A stable CamelCase word for metrics, audit and conditions: `NotOpen`.
    pub fn code(&self) -> &'static str {
        unimplemented!()
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

/// Who may be in at all, before any channel: known login, its own key, not suspended, not expired,
/// from a permitted address.
pub fn admit_staff<'a>(
    _snapshot: &'a Snapshot,
    _staff: &Staff,
    _now: Timestamp,
) -> Result<&'a Arc<LoginUser>, Deny> {
    unimplemented!()
}

/// Invariant 1: every channel goes through here.
pub fn decide(_snapshot: &Snapshot, _request: &Request<'_>, _now: Timestamp) -> Decision {
    unimplemented!()
}

/// What a running session was admitted by.
#[derive(Clone, Debug)]
pub struct Admission {
    pub staff: Staff,
    pub terminal: Arc<Terminal>,
    pub service: Service,
    pub window: Arc<Window>,
    pub occurrence: Occurrence,
    pub opened_at: Timestamp,
    pub deadline: Timestamp,
}

/// Whether a running session may go on under a newer policy (invariant 3). It belongs to its window:
/// another that would admit does not save it. `Ok` has the deadline, which is never later than
/// `admission.deadline`; `Err` says why it is cut.
pub fn recheck(
    _snapshot: &Snapshot,
    _admission: &Admission,
    _now: Timestamp,
) -> Result<Timestamp, Reason> {
    unimplemented!()
}

/// Whether a terminal of `attach: DuringWindow` may be connected at `now`: from 2 minutes before an
/// opening until the last open window that selects it has closed. `Always` is always `true`.
pub fn may_attach(_snapshot: &Snapshot, _terminal: &Terminal, _now: Timestamp) -> bool {
    unimplemented!()
}
