//! One line of the trail: an event and its place in the chain.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::Event;
use crate::state::sha256_hex;

/// The longest line that is ever written or read, in bytes without its newline. Fifteen texts of
/// 1 KiB, each byte escaped as `\u0000`, fit in.
pub const LONGEST_LINE: usize = 128 << 10;

/// What the first line has in `prev`.
pub const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    prev: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

/// The highest `seq` that is believed: from there on a trail would have no end in sight, and whoever
/// wrote it did so to stop the relay where the numbers end.
pub const HIGHEST_SEQ: u64 = u64::MAX >> 1;

fn seq<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let seq = u64::deserialize(from)?;
    let wrong = || serde::de::Error::custom("no trail gets to that seq");
    (seq <= HIGHEST_SEQ).then_some(seq).ok_or_else(wrong)
}

/// What the chain needs of a line.
#[derive(Deserialize)]
pub struct Header {
    #[serde(deserialize_with = "seq")]
    pub seq: u64,
    pub prev: String,
    pub time: Timestamp,
    pub event: String,
    #[serde(default)]
    pub reason: Option<Code>,
}

#[derive(Deserialize)]
pub struct Code {
    pub code: String,
}

/// The code of a Repair that begins a new file after a broken chain.
pub const BROKEN_CHAIN: &str = "BrokenChain";

impl Header {
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    pub fn is_repair(&self) -> bool {
        self.event == "Repair"
    }

    /// Whether it is the Repair that stands after a break, whose `prev` need not fit.
    pub fn follows_a_break(&self) -> bool {
        self.is_repair() && self.reason.as_ref().is_some_and(|reason| reason.code == BROKEN_CHAIN)
    }
}

/// The end of a chain: the `seq` and hash of its last line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tip {
    pub seq: u64,
    pub hash: String,
}

impl Tip {
    /// Before the first line.
    pub fn origin() -> Self {
        Self { seq: 0, hash: ORIGIN.to_owned() }
    }

    /// Appends the line of `event` and its newline to `buffer`, and moves on to it.
    pub fn append(&mut self, buffer: &mut Vec<u8>, event: &Event) -> std::io::Result<()> {
        let line = Line { seq: self.seq + 1, prev: &self.hash, event };
        let bytes = serde_json::to_vec(&line).map_err(std::io::Error::other)?;
        if bytes.len() > LONGEST_LINE {
            return Err(std::io::Error::other("a line of the audit log is too long"));
        }
        self.hash = sha256_hex(&bytes);
        self.seq += 1;
        buffer.extend_from_slice(&bytes);
        buffer.push(b'\n');
        Ok(())
    }
}
