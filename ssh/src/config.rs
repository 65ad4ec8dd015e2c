//! What one server's connections have in common.

use std::time::Duration;

use crate::algorithm::{Cipher, Kex};
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
    /// How long the peer may take to answer a KEXINIT with everything up to its NEWKEYS.
    pub kex_patience: Duration,
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
        }
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

impl Default for RekeyLimits {
    fn default() -> Self {
        Self { bytes: 1 << 30, packets: 1 << 31, time: Duration::from_hours(1) }
    }
}
