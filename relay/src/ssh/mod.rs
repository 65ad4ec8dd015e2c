//! SSH as the relay speaks it: drives the project's own core (`tidegate-ssh`), which knows neither
//! sockets nor clocks, over TCP, and over TLS and WebSockets (`tidegate-transport`), of which the same
//! holds. Touches the network.
//!
//! [`Server::start`] takes an accepted socket and gives a [`Connection`], by which the connection is
//! ended and used, and its [`Events`]. Knows nothing of policy: a [`Doorkeeper`] says which keys
//! there are, whoever takes the events decides everything else, and a [`Pass`] is asked before bytes
//! go from one channel to another.
//!
//! Each connection has one task (`task`), which alone reads. Its core lies under the connection's lock
//! (`leg`), since others seal into it too: the task of the other leg of a [`splice()`], and whoever
//! answers a request. What keeps this sound:
//! - Nobody holds two connections' locks, and nobody waits while holding one. A channel's own lock
//!   (`port`) and the socket's are inside of it.
//! - [`Connection::kill`] takes no connection's lock. The socket is closed when it returns.
//! - [`BeforeWrite`] is called before each write, without any of these locks; a write that comes later
//!   than 50 ms after it is put off (`socket::Swept`).
//! - What one connection's task does to another one is shielded: a panic ends the one that it is done to.
//! - What is not sealed can be called back: a [`Pass`] is asked under the lock under which is sealed.
//!   Sealed ahead of the kernel are 128 KiB at most.
//! - A DISCONNECT is sealed by whoever calls for it, and nothing after it.
//! - The window that a peer was given is given again only for what was sealed for the other leg, so
//!   that what waits on a channel is bounded by its window, and no channel waits for another.

mod arrive;
mod buffers;
mod channel;
mod connection;
mod console;
mod event;
mod intake;
mod key;
mod later;
mod leg;
mod partial;
mod port;
mod queue;
mod server;
mod socket;
mod splice;
mod task;
mod tell;
#[cfg(test)]
mod testing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::model::KeyBlob;
pub use tidegate_ssh::version::OURS as VERSION;
pub use tidegate_ssh::{Cipher, Kex, Negotiated, Shortage};
use tidegate_ssh::{Config, Limits};
pub use tidegate_transport::tls;

pub use channel::{Channel, Closed};
pub use connection::{Connection, Ended, OpenError, Reason};
pub use console::SessionChannel;
pub use event::{
    Authenticated, CancelRequest, Event, ForwardRequest, OpenRequest, RefuseCode, SessionKind,
    SessionRequest,
};
pub use key::{HostKey, HostKeyError};
pub use queue::Events;
pub use server::Server;
pub use splice::{Direction, Pass, Splice, splice};

/// Says which keys exist. Both are asked from within the connection's loop: sync and quick.
///
/// The answer must depend on the key alone, so that nobody learns from it which names exist.
pub trait Doorkeeper: Send + Sync {
    /// Whether the relay knows this key; a peer need not hold its private half to ask.
    fn offered(&self, user: &str, key: &KeyBlob) -> bool;
    /// The peer holds the private half: whether it gets in.
    fn proven(&self, user: &str, key: &KeyBlob) -> bool;
    /// Whether the connection comes from where proxies are, which say who is behind them.
    fn behind_proxy(&self) -> bool {
        false
    }
    /// The proxy says who is behind it, before anything is known of that peer.
    fn came_from(&self, _source: SocketAddr) {}
    /// The peer begins what costs a signature, and nothing of that has been done: a handshake of TLS, its
    /// first key exchange, or one more before a login. What it is told and sent away with instead, if it
    /// is to be.
    fn turned_away(&self) -> Option<&'static str> {
        None
    }
    /// After a key was offered that nobody has: what the peer is told and sent away with, if it is to be.
    fn had_enough(&self) -> Option<&'static str> {
        None
    }
}

/// Called before each write to a socket: sweeps deadlines after a gap (suspend, SIGSTOP), so that
/// nothing goes out on a connection that ought to have been killed meanwhile. It may kill any
/// connection, this one included. It is called for every packet, so it looks at a clock first and
/// comes back at once.
#[derive(Clone)]
pub struct BeforeWrite(pub Arc<dyn Fn() + Send + Sync>);

impl Default for BeforeWrite {
    fn default() -> Self {
        Self(Arc::new(|| {}))
    }
}

impl std::fmt::Debug for BeforeWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeWrite")
    }
}

/// How connections are served. The defaults are DESIGN.md's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Those that the server begins with: the first one signs, all are announced.
    pub host_keys: Vec<HostKey>,
    /// From accepting the socket to a proven key.
    pub login_grace: Duration,
    /// A peer that has said nothing for this long is shown our banner.
    pub sniff_silence: Duration,
    /// Keys that a peer may offer on one connection.
    pub offered_keys: u32,
    /// Keys that the relay may ask a peer to sign with on one connection.
    pub signatures: u32,
    /// Channels that a peer may have open, or asked for, on one connection.
    pub channels: usize,
    /// Silence after which the peer is asked for a sign of life.
    pub keepalive: Duration,
    /// Unanswered keepalives after which the peer is dead.
    pub keepalives_missed: u32,
    pub before_write: BeforeWrite,
}

impl Settings {
    pub fn new(host_keys: Vec<HostKey>) -> Self {
        Self {
            host_keys,
            login_grace: Duration::from_secs(20),
            sniff_silence: Duration::from_secs(3),
            offered_keys: 20,
            signatures: 3,
            channels: 256,
            keepalive: Duration::from_secs(25),
            keepalives_missed: 2,
            before_write: BeforeWrite::default(),
        }
    }

    /// The core's own settings.
    fn config(&self) -> Config {
        let limits = Limits {
            offered_keys: self.offered_keys,
            signatures: self.signatures,
            channels: self.channels,
            ..Limits::default()
        };
        Config { limits, ..Config::new(core_keys(&self.host_keys)) }
    }

    /// After this long without a byte, or with a write that makes no progress, a peer is dead.
    fn dead_after(&self) -> Duration {
        self.keepalive.saturating_mul(self.keepalives_missed.saturating_add(1))
    }
}

/// Each was seen to be good when it was read.
fn core_keys(keys: &[HostKey]) -> Vec<tidegate_ssh::HostKey> {
    keys.iter().filter_map(|key| key.core().ok()).collect()
}

/// The longest sentence that is sent to a peer, in bytes.
const SENTENCE: usize = 300;

/// `text` as it may be sent to a terminal: printable ASCII on one line, at most [`SENTENCE`] bytes.
fn sentence(text: &str) -> String {
    printable(text, SENTENCE)
}

fn printable(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_one_line_of_ascii() {
        assert_eq!(sentence("opens at 18:00\r\n\u{1b}[2J\u{e9}"), "opens at 18:00???[2J?");
        assert_eq!(sentence(&"x".repeat(10_000)).len(), SENTENCE);
        assert!(!VERSION.trim_start_matches("SSH-2.0-").contains('-'));
    }
}
