//! What a connection tells and asks. Each request is answered by one call; dropping it refuses.
//!
//! Whoever takes the events must not wait for this same connection between two of them (no reads, no
//! writes, no opens): the library is not read on while an event has no room.

use std::sync::Arc;

use futures_util::FutureExt as _;
use russh::ChannelWriteHalf;
use russh::server::{ChannelOpenHandle, Msg};
use tidegate_policy::model::KeyBlob;
use tokio::sync::{mpsc, oneshot};

use super::channel::{Channel, Pipe, SessionChannel};
use super::connection::Shared;
use super::sentence;

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
    /// Something that a relay never does was refused, plainly.
    Refused { what: &'static str },
}

/// Who the peer is.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The user name as sent; not checked against anything.
    pub user: String,
    pub key: KeyBlob,
    /// The peer's version line, as far as it is printable ASCII, at most 255 bytes.
    pub client: String,
}

/// The events of one connection. Dropping it ends the connection at the next event.
#[derive(Debug)]
pub struct Events(pub(super) mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the connection has ended.
    pub async fn recv(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// Why a channel is refused, as RFC 4254 section 5.1 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseCode {
    Prohibited = 1,
    ConnectFailed = 2,
    UnknownType = 3,
    Shortage = 4,
}

/// Somebody wants a channel to `host` and `port`, neither of them checked yet.
pub struct OpenRequest {
    pub host: String,
    pub port: u32,
    /// Address and port that the client names as the origin; made up by most.
    pub originator: (String, u32),
    pub(super) reply: ChannelOpenHandle,
    pub(super) pending: PendingChannel,
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
        // Never pending: the answer goes into a queue without a bound.
        let _ = self.reply.accept().now_or_never();
        self.pending.into_channel()
    }

    /// Refuses the channel; OpenSSH prints `text`, of which at most 300 bytes are sent.
    pub fn refuse(self, code: RefuseCode, text: &str) {
        refuse(self.reply, code, text);
    }
}

pub(super) fn refuse(reply: ChannelOpenHandle, code: RefuseCode, text: &str) {
    let reason = sentence(text);
    let _ =
        reply.reject(russh::ChannelOpenFailure::Other { code: code as u32, reason }).now_or_never();
}

/// A channel that the peer asked for, before the answer; holds its place among the peer's channels.
pub(super) struct PendingChannel {
    parts: Option<(ChannelWriteHalf<Msg>, Arc<Pipe>, Arc<Shared>)>,
}

impl PendingChannel {
    pub fn new(channel: russh::Channel<Msg>, shared: &Arc<Shared>) -> Self {
        let (_, half) = channel.split();
        let pipe = shared.table.enter(half.id());
        Self { parts: Some((half, pipe, Arc::clone(shared))) }
    }

    #[expect(clippy::expect_used, reason = "both of these consume it, so the parts are there")]
    fn into_channel(mut self) -> Channel {
        let (half, pipe, shared) = self.parts.take().expect("taken once");
        Channel::new(half, pipe, shared)
    }

    #[expect(clippy::expect_used, reason = "both of these consume it, so the parts are there")]
    pub fn into_session(mut self) -> SessionChannel {
        let (half, pipe, shared) = self.parts.take().expect("taken once");
        SessionChannel::new(half, pipe, shared)
    }
}

impl Drop for PendingChannel {
    fn drop(&mut self) {
        if let Some((half, _, shared)) = self.parts.take() {
            shared.table.close(half.id());
        }
    }
}

/// A terminal offers to listen: `host` and `port` as sent.
#[derive(Debug)]
pub struct ForwardRequest {
    pub host: String,
    pub port: u32,
    pub(super) answer: oneshot::Sender<Option<u32>>,
}

impl ForwardRequest {
    /// Grants it. `port` is what the reply to a request for port 0 names; otherwise it is not sent.
    pub fn grant(self, port: u32) {
        let _ = self.answer.send(Some(port));
    }

    /// Refuses it; SSH has no room for a reason here.
    pub fn refuse(self) {
        drop(self.answer);
    }
}

/// A terminal takes a forward back: `host` and `port` as sent.
#[derive(Debug)]
pub struct CancelRequest {
    pub host: String,
    pub port: u32,
    pub(super) answer: oneshot::Sender<bool>,
}

impl CancelRequest {
    pub fn grant(self) {
        let _ = self.answer.send(true);
    }

    pub fn refuse(self) {
        drop(self.answer);
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
