//! SSH as the relay speaks it, behind types of its own: the only module that names the library
//! (russh, until the project's own core takes its place). Touches the network.
//!
//! [`Server::start`] takes an accepted socket and gives a [`Connection`], by which the connection is
//! ended and used, and its [`Events`]. Knows nothing of policy: a [`Doorkeeper`] says which keys
//! there are, and whoever takes the events decides everything else.
//!
//! What the library cannot do, and what is done about it here:
//! - It replenishes a channel's window on receipt, not on consumption. A channel whose reader is
//!   slow holds up its whole connection once 4 MiB wait (`channel::PIPE`): more than an inner
//!   OpenSSH ever has in flight on one channel.
//! - It writes strictly in order. What was handed to it (4 packets of 32 KiB) is sealed and sent
//!   before a CLOSE or DISCONNECT; [`Connection::kill`] alone calls it back.
//! - Its DISCONNECT waits for the peer, for a rekey in progress and for the queue. So
//!   [`Connection::disconnect`] resets the socket after 200 ms whatever has become of it.
//! - It starts a task of its own that can't be aborted. It ends because its socket fails, its
//!   channels' queues have no reader and no handler here waits past a kill.
//! - The text of a peer's channel open failure is not handed on, only its code.
//! - Channels of unknown types, agent channels and forwarded streamlocal ones are refused without a
//!   word to us: no [`Event::Refused`] for those.
//! - A reply to `tcpip-forward` is awaited inside the connection's loop: nothing else of that
//!   connection moves until whoever takes the events has answered.
//! - A channel that we close first leaves an empty queue behind until its connection ends.
//! - Invalid signatures are not told; what is counted instead is each key that was asked to sign.

mod channel;
mod connection;
mod event;
mod handler;
mod key;
mod sniff;
mod socket;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::Algorithm;
use russh::{cipher, compression, kex, mac};
use tidegate_policy::model::KeyBlob;

pub use channel::{Channel, Closed, SessionChannel};
pub use connection::{Connection, Ended, OpenError, Reason, Server};
pub use event::{
    Authenticated, CancelRequest, Event, Events, ForwardRequest, OpenRequest, RefuseCode,
    SessionKind, SessionRequest,
};
pub use key::{HostKey, HostKeyError};
pub use sniff::NOT_SSH;

/// Says which keys exist. Both are asked from within the connection's loop: sync and quick.
///
/// The answer must depend on the key alone, so that nobody learns from it which names exist.
pub trait Doorkeeper: Send + Sync {
    /// Whether the relay knows this key; a peer need not hold its private half to ask.
    fn offered(&self, user: &str, key: &KeyBlob) -> bool;
    /// The peer holds the private half: whether it gets in.
    fn proven(&self, user: &str, key: &KeyBlob) -> bool;
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
    pub fn new(host_key: HostKey) -> Self {
        Self {
            host_keys: vec![host_key],
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

    /// After this long without a byte, or with a write that makes no progress, a peer is dead.
    fn dead_after(&self) -> Duration {
        self.keepalive.saturating_mul(self.keepalives_missed.saturating_add(1))
    }
}

/// What every peer reads first. No second '-', and nothing that a client could take for a version
/// of OpenSSH and its quirks.
pub const VERSION: &str = "SSH-2.0-Tidegate";
/// The window given for each channel, in bytes; OpenSSH's own.
const WINDOW: u32 = 2 << 20;
/// The largest packet asked for, in bytes; OpenSSH's own.
const PACKET: u32 = 32 * 1024;
/// The library's queue of each channel: never read, since `channel::Pipe` takes its place, and 1 is
/// the least it takes.
const CHANNEL_QUEUE: usize = 1;
/// Messages that may wait to be sealed on one connection, at most `PACKET` bytes each: what a cut by
/// CLOSE or DISCONNECT can no longer call back. Fewer cost throughput: each is handed over by a
/// switch of tasks.
const SEAL_QUEUE: usize = 4;
/// Attempts, the opening "none" and those that no handler sees included, after which the library
/// itself says goodbye. The limits of [`Settings`] come first and say more.
const SPARE_ATTEMPTS: usize = 12;

/// The library's own settings.
fn config(settings: &Settings) -> russh::server::Config {
    let preferred = russh::Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            // paramiko 5.1 knows curve25519 by this name only.
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::ECDH_SHA2_NISTP384,
            kex::ECDH_SHA2_NISTP521,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        cipher: Cow::Borrowed(&[
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_GCM,
            cipher::AES_128_GCM,
        ]),
        // No cipher above uses one, yet some clients give up on an empty list.
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA256]),
        compression: Cow::Borrowed(&[compression::NONE]),
        // Told to clients as server-sig-algs: what a signature may be made with.
        key: russh::Preferred::DEFAULT.key.iter().filter(|it| usable(it)).cloned().collect(),
        ..russh::Preferred::DEFAULT
    };
    russh::server::Config {
        server_id: russh::SshId::Standard(Cow::Borrowed(VERSION)),
        methods: (&[russh::MethodKind::PublicKey][..]).into(),
        // Keys can't be guessed, so making a refusal slow protects nothing.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: settings.host_keys.iter().map(HostKey::private).collect(),
        certificates: Vec::new(),
        limits: russh::Limits::new(1 << 30, 1 << 30, Duration::from_hours(1)),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: CHANNEL_QUEUE,
        event_buffer_size: SEAL_QUEUE,
        preferred,
        max_auth_attempts: usize::try_from(settings.offered_keys)
            .unwrap_or(usize::MAX)
            .saturating_add(SPARE_ATTEMPTS),
        // On purpose: it would also run while the library does not read because a reader is slow,
        // and end a connection whose peer is alive. `connection::watch` looks at the socket instead.
        inactivity_timeout: None,
        keepalive_interval: Some(settings.keepalive),
        keepalive_max: usize::try_from(settings.keepalives_missed).unwrap_or(usize::MAX),
        // Only `run_on_socket` looks at it; `socket` sets it itself.
        nodelay: true,
    }
}

/// SHA-1 signatures are refused whatever the key; so are FIDO keys, until user presence and
/// application are really checked.
fn usable(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) }
    )
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
