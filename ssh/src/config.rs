//! What one server's connections have in common.

use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::{Cipher, Kex};
use crate::budget::Budget;
use crate::hostkey::HostKey;

/// Shared by all connections of a replica.
#[derive(Debug)]
pub struct Config {
    /// The first of each algorithm signs key exchanges; all are announced (hostkeys-00@openssh.com).
    pub host_keys: Vec<HostKey>,
    /// Methods of key exchange that are offered, the preferred one first.
    pub kex: Vec<Kex>,
    /// Ciphers that are offered, for each direction.
    pub ciphers: Vec<Cipher>,
    pub rekey: RekeyLimits,
    /// How long the peer may take for its next message of a key exchange, from when the last byte of
    /// ours was taken from the output.
    pub kex_patience: Duration,
    /// How long a key exchange may take in all, however slowly the peer takes what it is sent.
    pub kex_longest: Duration,
    pub exchanges: ExchangeLimits,
    pub opens: OpenLimits,
    pub limits: Limits,
    pub windows: Windows,
    /// What the windows of all connections are taken from, and one connection's share.
    pub budget: Arc<Budget>,
}

impl Config {
    /// Everything that we have, with the limits that the RFCs recommend.
    pub fn new(host_keys: Vec<HostKey>) -> Self {
        Self {
            host_keys,
            kex: Kex::ALL.to_vec(),
            ciphers: Cipher::ALL.to_vec(),
            rekey: RekeyLimits::default(),
            kex_patience: Duration::from_secs(30),
            kex_longest: Duration::from_mins(2),
            exchanges: ExchangeLimits::default(),
            opens: OpenLimits::default(),
            limits: Limits::default(),
            windows: Windows::default(),
            budget: Budget::new(1 << 30),
        }
    }
}

/// What one peer may ask of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys that a peer may offer (DESIGN.md section 6).
    pub offered_keys: u32,
    /// Keys that the relay may ask a peer to sign with (DESIGN.md section 6).
    pub signatures: u32,
    /// Requests for authentication of any kind, those that cost no try included.
    pub auth_requests: u32,
    /// Channels that a peer may have open, or asked for.
    pub channels: usize,
    /// Channels that we have asked for and the peer has neither confirmed nor refused: of all that ask
    /// together, each of whom has a smaller bound of its own with whoever drives this.
    pub unanswered: usize,
    /// Such channels that nobody waits for any more: only the peer's answer frees their numbers.
    pub forsaken: usize,
    /// Channels of both sides together.
    pub all_channels: usize,
    /// Requests of the peer that wait for their answers: global ones, and those of each channel.
    pub requests: usize,
    /// Bytes of output and of what waits for new keys: a peer that sends a message while there are
    /// more asks for more than it reads, and is sent away.
    pub output: usize,
    /// The same before a login: with the longest answer on top it is less than 64 KiB.
    pub output_before_login: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            offered_keys: 20,
            signatures: 3,
            auth_requests: 64,
            channels: 256,
            unanswered: 1024,
            forsaken: 1024,
            all_channels: 16_384,
            requests: 256,
            output: 2 << 20,
            output_before_login: 28 << 10,
        }
    }
}

/// The windows that we give on each channel, in bytes. Each of them is taken from the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// What a channel begins with where the budget, or the connection's share of it, is used up; the
    /// budget has a reserve for these, and with that gone none is opened.
    pub least: u32,
    /// What a channel begins with, and returns to when it stands idle.
    pub first: u32,
    /// What one that moves much has before long, however short its path is.
    pub usual: u32,
    /// What it may grow to where the path is long: 200 ms at 100 MB/s is 20 MB.
    pub most: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self { least: 16 << 10, first: 64 << 10, usual: 256 << 10, most: 32 << 20 }
    }
}

/// After how much, in either direction, we begin a new key exchange (RFC 4253 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyLimits {
    /// Bytes on the wire; RFC 4253 recommends a gigabyte.
    pub bytes: u64,
    /// Packets; RFC 4344 section 3.1 recommends 2^31.
    pub packets: u32,
    /// RFC 4253 recommends an hour.
    pub time: Duration,
}

/// How often the peer may begin a key exchange, the first of a connection apart: RFC 4253 section 9
/// lets it do so at any time and names no bound. The numbers are ours. OpenSSH begins none before a
/// login, and later one for each `RekeyLimit` of bytes, but never without a packet between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// As many before a login: some libraries count the bytes of authentication, too.
    pub before_login: u32,
    /// As many at once after it, and no more than that add up.
    pub burst: u32,
    /// One more for so many bytes of other messages, of both sides together: half of what passes from
    /// one exchange to the next with a `RekeyLimit` of 4 KiB.
    pub bytes: u64,
    /// One more for so much time.
    pub time: Duration,
}

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self { before_login: 8, burst: 64, bytes: 2 << 10, time: Duration::from_secs(1) }
    }
}

/// How often a peer may open a channel of any type. The numbers are ours: a browser behind `ssh -L`
/// opens some dozens at once for a page, and a decision with its line in the audit takes milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// As many at once: what it may have open.
    pub burst: u32,
    /// One more for so much time.
    pub each: Duration,
    /// One that was refused for opening too fast more often than this, without ever having been at
    /// rest in between, is sent away.
    pub refused: u32,
}

impl Default for OpenLimits {
    fn default() -> Self {
        Self { burst: 256, each: Duration::from_micros(31_250), refused: 256 }
    }
}

impl Default for RekeyLimits {
    fn default() -> Self {
        Self { bytes: 1 << 30, packets: 1 << 31, time: Duration::from_hours(1) }
    }
}
