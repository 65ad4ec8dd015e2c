//! The receiving half: from bytes as they come to messages (RFC 4253 sections 4.2 and 6).

use std::ops::Range;

use crate::cipher::{LENGTH, Layout, Opener};
use crate::config::RekeyLimits;
use crate::message::{DisconnectCode, Fatal, number};
use crate::version::{self, Line};

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
    /// messages 1 to 4 and 20 to 49 (RFC 4253 section 7.1), and a few later answers.
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
    /// The first NEWKEYS came.
    keyed: bool,
    /// `packet_length` of the packet at hand, so that it is decrypted only once.
    length: Option<u32>,
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
            keyed: false,
            length: None,
            limits,
            bytes: 0,
            packets: 0,
            said: false,
        }
    }

    /// New keys, after the peer's NEWKEYS was handled (RFC 4253 section 7.3). `reset`: sequence numbers
    /// begin at 0 again (draft-miller-sshm-strict-kex).
    pub fn install(&mut self, opener: Opener, reset: bool) {
        self.opener = opener;
        self.phase = Phase::Open;
        self.keyed = true;
        self.bytes = 0;
        self.packets = 0;
        self.said = false;
        if reset {
            self.sequence = 0;
        }
    }

    /// What `buffer[at..]` begins with. A packet that is complete is decrypted where it lies.
    pub fn next(&mut self, buffer: &mut [u8], at: usize) -> Result<Next, Fatal> {
        match self.phase {
            Phase::Version => self.version(buffer.get(at..).unwrap_or_default(), at),
            Phase::Waiting => Err(Fatal::new(
                DisconnectCode::ByApplication,
                "the relay read on without the keys that were agreed on; this is a fault of the relay",
            )),
            Phase::Exchanging | Phase::Open => {
                if self.is_exhausted() {
                    self.said = true;
                    return Ok(Next::Exhausted);
                }
                self.packet(buffer.get_mut(at..).unwrap_or_default(), at)
            }
        }
    }

    fn version(&mut self, bytes: &[u8], at: usize) -> Result<Next, Fatal> {
        Ok(match version::read(bytes)? {
            Line::Incomplete { need } => Next::Incomplete { need },
            Line::Whole { length, next } => {
                self.phase = Phase::Exchanging;
                Next::Version { line: at..at.saturating_add(length), next: at.saturating_add(next) }
            }
        })
    }

    fn is_exhausted(&self) -> bool {
        !self.said
            && self.phase == Phase::Open
            && (self.bytes >= self.limits.bytes || self.packets >= self.limits.packets)
    }

    /// RFC 4253 section 6; `at` is where `bytes` begin in the caller's buffer.
    fn packet(&mut self, bytes: &mut [u8], at: usize) -> Result<Next, Fatal> {
        let layout = self.opener.layout();
        let length = match (self.length, bytes.first_chunk::<LENGTH>()) {
            (Some(length), _) => length,
            (None, None) => return Ok(Next::Incomplete { need: LENGTH }),
            (None, Some(field)) => {
                let length = self.opener.length(self.sequence, *field);
                check_length(layout, length)?;
                self.length = Some(length);
                length
            }
        };
        let field = length;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let whole = LENGTH.saturating_add(length).saturating_add(layout.tag);
        let Some(frame) = bytes.get_mut(..whole) else {
            return Ok(Next::Incomplete { need: whole });
        };
        // After 2^32 packets nonces would come round again; the peer was asked for new keys at 2^31.
        self.packets = self
            .packets
            .checked_add(1)
            .ok_or_else(|| Fatal::protocol("the same keys were used for more than 2^32 packets"))?;
        self.opener.open(self.sequence, field, frame).map_err(|_| {
            Fatal::new(DisconnectCode::Mac, "a packet was changed on its way; connect again")
        })?;
        let padding = usize::from(frame.get(LENGTH).copied().unwrap_or_default());
        let message = message_length(length, padding)?;
        let start = LENGTH.saturating_add(1);
        let number = frame.get(start).copied().unwrap_or_default();
        self.follow(number)?;

        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.length = None;
        self.bytes = self.bytes.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
        let start = at.saturating_add(start);
        let next = at.saturating_add(whole);
        Ok(Next::Message {
            frame: at..next,
            message: start..start.saturating_add(message),
            next,
            sequence,
        })
    }

    /// RFC 4253 section 7.1: what may come between KEXINIT and NEWKEYS, and that after NEWKEYS the
    /// new keys are used.
    fn follow(&mut self, number: u8) -> Result<(), Fatal> {
        match (self.phase, number) {
            (Phase::Exchanging, number::NEWKEYS) => self.phase = Phase::Waiting,
            (Phase::Exchanging, 1..=4 | 20..=49) => {}
            // paramiko answers what was asked of it before it has our KEXINIT, past its own. That does no
            // harm: what follows from an answer is held as anything is.
            (
                Phase::Exchanging,
                number::REQUEST_SUCCESS
                | number::REQUEST_FAILURE
                | number::CHANNEL_OPEN_CONFIRMATION
                | number::CHANNEL_OPEN_FAILURE,
            ) if self.keyed => {}
            (Phase::Exchanging, _) => {
                return Err(Fatal::protocol(format_args!(
                    "message {number} came while keys were exchanged"
                )));
            }
            (_, number::KEXINIT) => self.phase = Phase::Exchanging,
            (_, number::NEWKEYS) => self.phase = Phase::Waiting,
            _ => {}
        }
        Ok(())
    }
}

/// Checks a `packet_length` before anything is waited for or decrypted by it.
fn check_length(layout: Layout, length: u32) -> Result<(), Fatal> {
    match usize::try_from(length) {
        // The least: padding_length, a message of one byte, four bytes of padding.
        Ok(bytes) if (6..=MOST).contains(&bytes) && layout.fits(bytes) => Ok(()),
        _ => Err(Fatal::protocol(format_args!("a packet cannot have {length} bytes"))),
    }
}

/// Bytes of the message in a packet of `packet_length` that claims so much padding.
fn message_length(packet_length: usize, padding: usize) -> Result<usize, Fatal> {
    if padding < 4 {
        return Err(Fatal::protocol("a packet has less than 4 bytes of padding"));
    }
    match packet_length.checked_sub(padding.saturating_add(1)) {
        None => Err(Fatal::protocol("the padding of a packet is longer than the packet")),
        Some(0) => Err(Fatal::protocol("a packet has no message")),
        Some(message) => Ok(message),
    }
}
