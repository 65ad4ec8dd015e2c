//! What a connection tells and asks. Each request is answered by one call; dropping it refuses. The
//! connection goes on meanwhile.

use std::sync::Arc;

use tidegate_policy::model::KeyBlob;
use tidegate_ssh::{Core, Id, Negotiated, OpenFailure, Shortage, Token};

use super::channel::Channel;
use super::connection::Shared;
use super::console::SessionChannel;
use super::leg::Leg;

/// What a peer does, in the order in which it does it.
#[derive(Debug)]
pub enum Event {
    /// The peer proved a key that the doorkeeper knows. Always the first event.
    Authenticated(Authenticated),
    /// `direct-tcpip`: what `ssh -W`, `-J` and `-L` send.
    Open(OpenRequest),
    /// `tcpip-forward`: what `ssh -R` sends.
    Forward(ForwardRequest),
    /// `cancel-tcpip-forward`.
    Cancel(CancelRequest),
    /// A session channel was asked for a shell, a command or a subsystem.
    Session(SessionRequest),
    /// The peer asked for proof of these host keys, and has it: it is about to accept them.
    Learned { host_keys: Vec<KeyBlob> },
    /// A channel was refused, since the peer opens them too fast.
    TooFast,
    /// A channel was refused, since there is no room for it.
    NoRoom(Shortage),
    /// Something that a relay never does was refused, plainly.
    Refused { what: &'static str },
}

/// Who the peer is.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The user name as sent, as far as it is printable ASCII, at most 255 bytes; not checked against
    /// anything.
    pub user: String,
    pub key: KeyBlob,
    /// The peer's version line, as far as it is printable ASCII, at most 255 bytes.
    pub client: String,
    /// What the first key exchange agreed on.
    pub negotiated: Negotiated,
    /// The host key that signed it, and that the peer has accepted by going on.
    pub host_key: KeyBlob,
}

/// Why a channel is refused, as RFC 4254 section 5.1 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseCode {
    Prohibited = 1,
    ConnectFailed = 2,
    UnknownType = 3,
    Shortage = 4,
}

impl From<RefuseCode> for OpenFailure {
    fn from(code: RefuseCode) -> Self {
        match code {
            RefuseCode::Prohibited => Self::AdministrativelyProhibited,
            RefuseCode::ConnectFailed => Self::ConnectFailed,
            RefuseCode::UnknownType => Self::UnknownChannelType,
            RefuseCode::Shortage => Self::ResourceShortage,
        }
    }
}

/// Somebody wants a channel to `host` and `port`, neither of them checked yet.
pub struct OpenRequest {
    pub host: String,
    pub port: u32,
    /// Address and port that the client names as the origin; made up by most.
    pub originator: (String, u32),
    pub(super) asked: Asked<Id>,
}

impl std::fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenRequest")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl OpenRequest {
    /// Confirms the channel.
    pub fn accept(self) -> Channel {
        let shared = Arc::clone(&self.asked.shared);
        self.asked.answer(Core::confirm, |leg, id| Channel::new(&shared, leg, id))
    }

    /// Refuses the channel; OpenSSH prints `text`, of which at most 300 bytes are sent.
    pub fn refuse(self, code: RefuseCode, text: &str) {
        self.asked.answer(|core, id| core.refuse(id, code.into(), text), |_, _| ());
    }
}

/// A terminal offers to listen: `host` and `port` as sent.
#[derive(Debug)]
pub struct ForwardRequest {
    pub host: String,
    pub port: u32,
    pub(super) asked: Asked<Token>,
}

impl ForwardRequest {
    /// Grants it. `port` is what the reply to a request for port 0 names; otherwise it is not sent.
    pub fn grant(self, port: u32) {
        self.asked.answer(|core, token| core.answer_forward(token, Some(port)), |_, _| ());
    }

    /// Refuses it; SSH has no room for a reason here.
    pub fn refuse(self) {
        drop(self.asked);
    }
}

/// A terminal takes a forward back: `host` and `port` as sent.
#[derive(Debug)]
pub struct CancelRequest {
    pub host: String,
    pub port: u32,
    pub(super) asked: Asked<Token>,
}

impl CancelRequest {
    pub fn grant(self) {
        self.asked.answer(|core, token| core.answer_cancel(token, true), |_, _| ());
    }

    pub fn refuse(self) {
        drop(self.asked);
    }
}

/// What a session channel was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    Shell,
    /// A command line; what is not UTF-8 in it is replaced.
    Exec(String),
    Subsystem(String),
}

/// A session that the client believes to be granted.
#[derive(Debug)]
pub struct SessionRequest {
    pub kind: SessionKind,
    /// A pty was asked for: lines must end in CRLF.
    pub pty: bool,
    pub channel: SessionChannel,
}

/// Something that a peer waits for an answer to. Dropping it refuses.
pub(super) struct Asked<T: Copy> {
    shared: Arc<Shared>,
    what: T,
    refuse: fn(&mut Core, T),
    answered: bool,
}

impl<T: Copy> Asked<T> {
    pub fn new(shared: &Arc<Shared>, what: T, refuse: fn(&mut Core, T)) -> Self {
        Self { shared: Arc::clone(shared), what, refuse, answered: false }
    }

    /// Answers it, and makes something of it, under one lock.
    fn answer<R>(
        mut self,
        answer: impl FnOnce(&mut Core, T),
        make: impl FnOnce(&mut Leg, T) -> R,
    ) -> R {
        self.answered = true;
        let what = self.what;
        self.shared.with(|leg| {
            let made = make(leg, what);
            answer(&mut leg.core, what);
            made
        })
    }
}

impl<T: Copy> Drop for Asked<T> {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.shield(|| {
                self.shared.with(|leg| (self.refuse)(&mut leg.core, self.what));
            });
        }
    }
}

impl<T: Copy> std::fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}
