//! What may be done with a connection from outside its own task.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tidegate_policy::way::Transport;
use tidegate_ssh::{DisconnectCode, Id, TooMany};
use tidegate_transport::stack;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::leg::Leg;
use super::queue::Queue;
use super::socket::Socket;
use super::{Settings, sentence};
use crate::clock::{self, Boot};
use crate::supervisor::Supervisor;

/// How long a DISCONNECT may take before the socket is killed.
pub(super) const FAREWELL: Duration = Duration::from_millis(200);

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the peer, or by a DISCONNECT of ours that the peer took.
    Closed,
    /// By [`Connection::kill`], or because a DISCONNECT took too long.
    Killed,
    /// No key was proven in time.
    Grace,
    /// The peer gave no sign of life.
    Dead,
    /// It never came to SSH: it spoke something else, or left before.
    NotSsh,
    /// It was a proxy's look whether somebody is there.
    HealthCheck,
    /// It was a web client, and has its answer.
    Answered,
    /// What the peer sent broke the protocol or a limit; in words for the log.
    Protocol(String),
    /// The connection's task panicked.
    Fault,
}

/// How a connection came to SSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Who is behind the proxy, if there is one.
    pub source: SocketAddr,
    pub transport: stack::Transport,
}

/// What the parts of one connection share.
pub(super) struct Shared {
    pub id: u64,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Nothing before SSH has begun.
    arrived: OnceLock<Arrived>,
    pub socket: Socket,
    pub leg: Mutex<Leg>,
    /// Of the connection's task, which looks at everything when it wakes.
    pub waker: AtomicWaker,
    /// It is among those that another connection wakes.
    pub waits: AtomicBool,
    /// It holds data for another leg and reads nothing meanwhile.
    pub holds: AtomicBool,
    pub events: Arc<Queue>,
    pub settings: Arc<Settings>,
    pub supervisor: Supervisor,
    /// The peer's first bytes were SSH, or it waits for ours.
    pub speaking: AtomicBool,
    /// Told with everything that the peer sends.
    pub heard: Notify,
    /// When a DISCONNECT of ours was sealed.
    left: OnceLock<Boot>,
    cause: OnceLock<Ended>,
    /// The parent of all channels' tokens.
    pub channels: CancellationToken,
    /// The task is gone, and with it the descriptor.
    over: CancellationToken,
}

impl Shared {
    pub fn new(
        id: u64,
        peer: SocketAddr,
        socket: Socket,
        leg: Leg,
        settings: Arc<Settings>,
        supervisor: Supervisor,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            arrived: OnceLock::new(),
            socket,
            leg: Mutex::new(leg),
            waker: AtomicWaker::new(),
            waits: AtomicBool::new(false),
            holds: AtomicBool::new(false),
            events: Arc::default(),
            settings,
            supervisor,
            speaking: AtomicBool::new(false),
            heard: Notify::new(),
            left: OnceLock::new(),
            cause: OnceLock::new(),
            channels: CancellationToken::new(),
            over: CancellationToken::new(),
        })
    }

    /// SSH begins.
    pub fn arrive(&self, arrived: Arrived) {
        let _ = self.arrived.set(arrived);
    }

    /// When the peer was told to go; `None` while it was not.
    pub fn left_at(&self) -> Option<Boot> {
        self.left.get().copied()
    }

    /// Ends the connection at once; the first cause stands. It takes no connection's lock.
    pub fn kill(&self, cause: Ended) {
        let _ = self.cause.set(cause);
        self.socket.kill();
        self.channels.cancel();
        self.waker.wake();
    }

    /// Says goodbye in front of everything that is not sealed yet, and lets the task send it.
    pub fn disconnect(&self, code: DisconnectCode, text: &str) {
        if self.left.get().is_some() {
            return;
        }
        if !self.speaking.load(Ordering::Acquire) {
            return self.kill(Ended::Killed);
        }
        self.shield(|| {
            let mut leg = self.lock();
            leg.core.disconnect(code, &sentence(text));
            let _ = self.left.set(clock::boot());
        });
        self.waker.wake();
    }

    /// The connection is over: nobody waits for it in vain, and nothing of it is kept.
    pub fn end(&self, cause: Ended) {
        let _ = self.cause.set(cause);
        self.socket.close();
        // First, so that whoever sees a channel end with its connection sees that, too.
        self.over.cancel();
        let (ports, opening) = {
            let mut leg = self.lock();
            leg.broken = true;
            leg.over = true;
            leg.release();
            // What channels hold of the replica's budget goes back, but for what waits elsewhere.
            leg.core.disconnect(DisconnectCode::ConnectionLost, "");
            let all = leg.core.output().len();
            leg.core.output().consume(all);
            (std::mem::take(&mut leg.ports), std::mem::take(&mut leg.opening))
        };
        drop(opening);
        // Before any of their ways is seen to be done: who looks then sees why.
        self.channels.cancel();
        for port in ports.into_values() {
            if let Some(way) = port.eof() {
                way.end();
            }
        }
        self.events.end();
    }
}

/// Why a peer is told to go, as RFC 4253 section 11.1 numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotAvailable,
    ByApplication,
    TooManyConnections,
    NoMoreAuth,
}

impl From<Reason> for DisconnectCode {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotAvailable => Self::ServiceNotAvailable,
            Reason::ByApplication => Self::ByApplication,
            Reason::TooManyConnections => Self::TooManyConnections,
            Reason::NoMoreAuth => Self::NoMoreAuthMethods,
        }
    }
}

/// Why a terminal's channel could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// With the peer's code and its own words, which are printable ASCII, at most 200 bytes: OpenSSH
    /// says 2 where nothing listens on the forward's target.
    #[error("the terminal refused the connection to its service (code {code}): {text}")]
    Refused { code: u32, text: String },
    #[error("the terminal's connection has just ended")]
    Gone,
    #[error("the terminal leaves too many requests unanswered")]
    Stuck,
    #[error("the relay has no memory for one more channel")]
    Full,
}

impl From<TooMany> for OpenError {
    fn from(why: TooMany) -> Self {
        match why {
            TooMany::Unanswered => Self::Stuck,
            TooMany::Open | TooMany::Budget => Self::Full,
            TooMany::Over => Self::Gone,
        }
    }
}

/// A channel that was asked for. Dropped before the peer has answered, it is wanted no more.
struct Opening<'a> {
    shared: &'a Shared,
    id: Id,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.shared.shield(|| {
            self.shared.with(|leg| {
                if leg.opening.remove(&self.id).is_some() {
                    leg.core.close(self.id);
                }
            });
        });
    }
}

/// A live connection; clones are the same one.
#[derive(Clone)]
pub struct Connection(pub(super) Arc<Shared>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Unique in this process.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The peer's address: behind a proxy what its header says, else as `start` was given it.
    pub fn peer(&self) -> SocketAddr {
        self.0.arrived.get().map_or(self.0.peer, |arrived| arrived.source)
    }

    /// What it speaks below SSH; known when its first event is.
    pub fn transport(&self) -> Transport {
        match self.0.arrived.get().map(|arrived| arrived.transport) {
            Some(stack::Transport::Plain) | None => Transport::Ssh,
            Some(stack::Transport::Tls) => Transport::Tls,
            Some(stack::Transport::WebSocket) => Transport::WebSocket,
            Some(stack::Transport::WebSocketInTls) => Transport::WebSocketTls,
        }
    }

    /// Bytes read from and written to the socket.
    pub fn bytes(&self) -> (u64, u64) {
        self.0.socket.bytes()
    }

    /// Opens a `forwarded-tcpip` channel that names `address` and `port` as the terminal asked for
    /// them. It waits for the peer's answer as long as it takes; given up, it counts no longer as
    /// unanswered, and a channel that is confirmed later is closed at once.
    pub async fn open_forwarded(
        &self,
        address: &str,
        port: u32,
        originator: SocketAddr,
    ) -> Result<Channel, OpenError> {
        let (tell, told) = oneshot::channel();
        let id = self.0.with(|leg| {
            let (origin, from) = (originator.ip().to_string(), u32::from(originator.port()));
            let id = leg.core.open_forwarded(address, port, (&origin, from))?;
            leg.opening.insert(id, tell);
            Ok::<_, OpenError>(id)
        })?;
        let _opening = Opening { shared: &self.0, id };
        told.await.unwrap_or(Err(OpenError::Gone))
    }

    /// Tells the peer why it has to go, and goes: at once with the first step, in 200 ms at most
    /// with the socket, by a reset where the peer has not closed it by then. From now on no CLOSE
    /// is sent for any channel (before a DISCONNECT it would make `ssh -W` exit 0 in silence).
    /// [`Connection::closed`] tells the end.
    pub fn disconnect(&self, reason: Reason, text: &str) {
        self.0.disconnect(reason.into(), text);
    }

    /// Ends the connection now: the socket is reset and closed when this returns, unread data is
    /// gone, reads and writes on its channels fail. From any thread.
    pub fn kill(&self) {
        self.0.kill(Ended::Killed);
    }

    /// Whether the peer gives a sign of life within `within`: it is asked for one that every client
    /// gives, without a word to its user.
    pub async fn alive(&self, within: Duration) -> bool {
        let shared = &self.0;
        let (before, _) = shared.socket.bytes();
        shared.with(|leg| leg.core.ping());
        let heard = async {
            loop {
                let heard = shared.heard.notified();
                tokio::pin!(heard);
                heard.as_mut().enable();
                // Where the question is stuck behind data, whatever comes in answers it.
                if shared.socket.bytes().0 > before {
                    return true;
                }
                heard.await;
            }
        };
        tokio::select! {
            heard = tokio::time::timeout(within, heard) => heard.unwrap_or(false) && !self.is_closed(),
            () = shared.over.cancelled() => false,
        }
    }

    /// Resolves when the connection is over: no task and no descriptor of it is left.
    pub async fn closed(&self) {
        self.0.over.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.over.is_cancelled()
    }

    /// Whether it is over, or has been told to go.
    pub fn is_ending(&self) -> bool {
        self.is_closed() || self.0.socket.killed().is_cancelled() || self.0.left_at().is_some()
    }

    /// How it ended; `None` while it lives.
    pub fn ended(&self) -> Option<Ended> {
        self.is_closed().then(|| self.0.cause.get().cloned()).flatten()
    }
}
