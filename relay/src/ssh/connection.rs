//! One connection from its accepted socket to its end, and what may be done with it from outside.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use russh::server::{Config, Handle, run_stream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, Table};
use super::event::Events;
use super::handler::Front;
use super::socket::{Socket, Stream};
use super::{Doorkeeper, Settings, config, sentence, sniff};
use crate::supervisor::Supervisor;

/// Events that may wait for whoever takes them, before the connection itself is kept waiting.
const EVENTS: usize = 16;
/// How long a DISCONNECT may take before the socket is killed.
const FAREWELL: Duration = Duration::from_millis(200);
/// How often a connection's socket is looked at for a dead peer.
const LOOK: Duration = Duration::from_secs(5);

/// Serves SSH on sockets. One per process.
#[derive(Debug)]
pub struct Server {
    config: Arc<Config>,
    settings: Arc<Settings>,
    supervisor: Supervisor,
    next: AtomicU64,
}

impl Server {
    pub fn new(settings: Settings, supervisor: Supervisor) -> Self {
        let config = Arc::new(config(&settings));
        Self { config, settings: Arc::new(settings), supervisor, next: AtomicU64::new(1) }
    }

    /// Serves SSH on `socket` until it ends. `door` is asked for this connection alone, so that it
    /// may remember what was proven on it.
    pub fn start(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        door: Arc<dyn Doorkeeper>,
    ) -> (Connection, Events) {
        let (sender, events) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            peer,
            socket: Socket::new(socket, self.settings.before_write.clone()),
            table: Table::default(),
            supervisor: self.supervisor.clone(),
            settings: Arc::clone(&self.settings),
            handle: OnceLock::new(),
            authenticated: CancellationToken::new(),
            leaving: AtomicBool::new(false),
            cause: OnceLock::new(),
            over: CancellationToken::new(),
        });
        let front = Front::new(Arc::clone(&shared), door, sender);
        let config = Arc::clone(&self.config);
        let task = Arc::clone(&shared);
        self.supervisor.spawn("ssh connection", async move {
            // However this ends, a panic included, nobody may wait for it in vain.
            let over = Over(task);
            serve(&over.0, config, front).await;
        });
        (Connection(shared), Events(events))
    }
}

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
    /// The first bytes were not SSH.
    NotSsh,
    /// What the peer sent broke the protocol or a limit; the library's words.
    Protocol(String),
    /// The connection's task panicked.
    Fault,
}

/// What the parts of one connection share.
pub(super) struct Shared {
    pub id: u64,
    pub peer: SocketAddr,
    pub socket: Arc<Socket>,
    pub table: Table,
    pub supervisor: Supervisor,
    pub settings: Arc<Settings>,
    pub handle: OnceLock<Handle>,
    /// A key was proven.
    pub authenticated: CancellationToken,
    leaving: AtomicBool,
    cause: OnceLock<Ended>,
    /// The library's task is gone, and with it the descriptor.
    over: CancellationToken,
}

impl Shared {
    /// A DISCONNECT is on its way: no CLOSE may come before it.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Ends the connection at once; the first cause stands.
    pub fn kill(&self, cause: Ended) {
        let _ = self.cause.set(cause);
        self.socket.kill();
        self.table.end(true);
    }

    pub fn disconnect(self: &Arc<Self>, reason: Reason, text: &str) {
        if self.leaving.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(handle) = self.handle.get().cloned() else { return self.kill(Ended::Killed) };
        let text = sentence(text);
        let mut goodbye =
            Box::pin(async move { handle.disconnect(reason.into(), text, "en".to_owned()).await });
        // The first step is taken here and now: it puts the DISCONNECT in front of whatever the
        // caller's next step makes other tasks send.
        let sent = (&mut goodbye).now_or_never().is_some();
        let shared = Arc::clone(self);
        self.supervisor.spawn("ssh farewell", async move {
            let farewell = async {
                if !sent {
                    let _ = goodbye.await;
                }
                shared.over.cancelled().await;
            };
            if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
                shared.kill(Ended::Killed);
            }
        });
    }
}

/// Marks a connection as over when dropped.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        let shared = &self.0;
        let _ = shared.cause.set(Ended::Fault);
        // First, so that whoever sees a channel end with its connection sees that, too.
        shared.over.cancel();
        if !shared.socket.killed().is_cancelled() {
            shared.table.end(false);
        }
    }
}

async fn serve(shared: &Arc<Shared>, config: Arc<Config>, front: Front) {
    let ended = tokio::select! {
        ended = speak(shared, config, front) => ended,
        never = watch(shared) => match never {},
    };
    let _ = shared.cause.set(ended);
}

/// Runs the library until its task is gone.
async fn speak(shared: &Arc<Shared>, config: Arc<Config>, front: Front) -> Ended {
    let mut stream = Stream(Arc::clone(&shared.socket));
    if !sniff::speaks_ssh(&shared.socket, &mut stream, shared.settings.sniff_silence).await {
        return Ended::NotSsh;
    }
    let ended = match run_stream(config, stream, front).await {
        Ok(running) => {
            let _ = shared.handle.set(running.handle());
            running.await
        }
        Err(error) => Err(error),
    };
    let Err(error) = ended else { return Ended::Closed };
    tracing::debug!(connection = shared.id, %error, "an SSH connection ended with an error");
    match error {
        russh::Error::Disconnect | russh::Error::HUP | russh::Error::IO(_) => Ended::Closed,
        russh::Error::KeepaliveTimeout => Ended::Dead,
        russh::Error::Join(_) => {
            shared.supervisor.panicked("ssh connection", &"in the task of the SSH library");
            Ended::Fault
        }
        error => Ended::Protocol(super::printable(&error.to_string(), 200)),
    }
}

/// Kills the connection of a peer that proves no key in time, or that gives no sign of life. The
/// library's own keepalive stands still while it waits for a peer that does not read.
async fn watch(shared: &Shared) -> std::convert::Infallible {
    tokio::select! {
        () = shared.authenticated.cancelled() => {}
        () = tokio::time::sleep(shared.settings.login_grace) => shared.kill(Ended::Grace),
    }
    // The library's own end of a dead connection comes first where it can.
    let patience = shared.settings.dead_after().saturating_add(Duration::from_secs(2));
    loop {
        tokio::time::sleep(LOOK.min(patience)).await;
        if shared.socket.waiting() > patience {
            shared.kill(Ended::Dead);
        }
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

impl From<Reason> for russh::Disconnect {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotAvailable => Self::ServiceNotAvailable,
            Reason::ByApplication => Self::ByApplication,
            Reason::TooManyConnections => Self::TooManyConnections,
            Reason::NoMoreAuth => Self::NoMoreAuthMethodsAvailable,
        }
    }
}

/// Why a terminal's channel could not be opened. The library keeps the peer's own words to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// With the peer's code: OpenSSH says 2 where nothing listens on the forward's target.
    #[error("the terminal refused the connection to its service (code {0})")]
    Refused(u32),
    #[error("the terminal's connection has just ended")]
    Gone,
    #[error("the terminal leaves too many requests unanswered")]
    Stuck,
}

/// A live connection; clones are the same one.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

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

    /// The peer's address, as `start` was given it.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Bytes read from and written to the socket.
    pub fn bytes(&self) -> (u64, u64) {
        self.0.socket.bytes()
    }

    /// Opens a `forwarded-tcpip` channel that names `address` and `port` as the terminal asked for
    /// them. It waits for the peer's answer as long as it takes; given up, a channel that is
    /// confirmed later is closed at once.
    pub async fn open_forwarded(
        &self,
        address: &str,
        port: u32,
        originator: SocketAddr,
    ) -> Result<Channel, OpenError> {
        let Some(handle) = self.0.handle.get().cloned() else { return Err(OpenError::Gone) };
        if !self.0.table.ask() {
            return Err(OpenError::Stuck);
        }
        let (tell, told) = oneshot::channel();
        let (shared, address) = (Arc::clone(&self.0), address.to_owned());
        // In a task of its own, since the library ends a connection whose answer nobody awaits.
        self.0.supervisor.spawn("forwarded open", async move {
            let (origin, from) = (originator.ip().to_string(), u32::from(originator.port()));
            let opened = handle.channel_open_forwarded_tcpip(address, port, origin, from).await;
            let result = match opened {
                Ok(channel) => {
                    let (_, half) = channel.split();
                    tokio::select! {
                        pipe = shared.table.claim(half.id()) => {
                            Ok(Channel::new(half, pipe, Arc::clone(&shared)))
                        }
                        () = shared.over.cancelled() => Err(OpenError::Gone),
                    }
                }
                Err(russh::Error::ChannelOpenFailure(failure)) => {
                    shared.table.answered();
                    Err(OpenError::Refused(failure.code()))
                }
                Err(_) => Err(OpenError::Gone),
            };
            // Where nobody waits any more, dropping the channel closes it.
            drop(tell.send(result));
        });
        told.await.unwrap_or(Err(OpenError::Gone))
    }

    /// Tells the peer why it has to go, and goes: at once with the first step, in 200 ms at most
    /// with the socket, by a reset where the peer has not closed it by then. From now on no CLOSE
    /// is sent for any channel (before a DISCONNECT it would make `ssh -W` exit 0 in silence).
    /// [`Connection::closed`] tells the end.
    pub fn disconnect(&self, reason: Reason, text: &str) {
        self.0.disconnect(reason, text);
    }

    /// Ends the connection now: the socket is reset and closed when this returns, unread data is
    /// gone, reads and writes on its channels fail. From any thread.
    pub fn kill(&self) {
        self.0.kill(Ended::Killed);
    }

    /// Whether the peer gives a sign of life within `within`: it is asked for a forward to be
    /// cancelled that it never had, which every client refuses, without a word to its user.
    pub async fn alive(&self, within: Duration) -> bool {
        let shared = &self.0;
        let Some(handle) = shared.handle.get() else { return false };
        let (before, _) = shared.socket.bytes();
        let ask = async {
            // Refused or granted, both are an answer; a connection that ended fails, too.
            let _ = handle.cancel_forward_tcpip("alive@tidegate.dev".to_owned(), 0).await;
        };
        tokio::select! {
            _ = tokio::time::timeout(within, ask) => {}
            () = shared.over.cancelled() => {}
        }
        if shared.over.is_cancelled() || shared.socket.killed().is_cancelled() {
            return false;
        }
        // Where the question is stuck behind data, whatever comes in answers it; and one that sends
        // more than its readers take can't be heard, but has been a moment ago.
        shared.socket.bytes().0 > before || shared.table.is_full()
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
        self.is_closed() || self.0.socket.killed().is_cancelled() || self.0.is_leaving()
    }

    /// How it ended; `None` while it lives.
    pub fn ended(&self) -> Option<Ended> {
        self.is_closed().then(|| self.0.cause.get().cloned()).flatten()
    }
}
