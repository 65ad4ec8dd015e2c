//! Frames from the peer, in either role.

use std::ops::Range;

use super::frame::{
    BINARY, CLOSE, CONTINUATION, Code, FIN, LONG, MASK, MEDIUM, OPCODE, PING, PONG, RESERVED,
    SHORT, TEXT, Violation,
};
use super::mask;

/// A frame that carries no data costs as much as this many bytes of data earn,
const COST: u32 = 4;
/// and so much may be saved: 1,024 such frames. A ping each second is paid for by what keepalives of
/// SSH move.
const SAVED: u32 = 1024 * COST;

/// A control frame's payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    bytes: [u8; SHORT as usize],
    length: usize,
}

impl Payload {
    const EMPTY: Self = Self { bytes: [0; SHORT as usize], length: 0 };

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
    }
}

#[derive(Debug)]
enum State {
    Head,
    Data { left: u64 },
    Control { opcode: u8, left: usize },
    Closed,
}

/// What bytes brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    /// So many bytes of data are at the front of the buffer.
    pub plain: usize,
    /// The peer has closed, and is to be answered with this payload.
    pub closed: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Receiver {
    /// Whether the peer has to mask: clients have to, servers must not (section 5.1).
    masked: bool,
    state: State,
    head: [u8; 14],
    /// Bytes of the head that are there.
    have: usize,
    mask: [u8; 4],
    /// Bytes of this frame's payload that came, by 4.
    phase: usize,
    /// A message has begun that is not complete.
    fragmented: bool,
    control: Payload,
    /// The latest ping that was not answered.
    pub ping: Option<Payload>,
    credit: u32,
}

impl Receiver {
    pub fn new(masked: bool) -> Self {
        Self {
            masked,
            state: State::Head,
            head: [0; 14],
            have: 0,
            mask: [0; 4],
            phase: 0,
            fragmented: false,
            control: Payload::EMPTY,
            ping: None,
            credit: SAVED,
        }
    }

    /// Data has moved, in either direction.
    pub fn earn(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.credit = self.credit.saturating_add(bytes).min(SAVED);
    }

    fn spend(&mut self) -> Result<(), Violation> {
        self.credit = self.credit.checked_sub(COST).ok_or_else(|| {
            Violation::new(Code::Policy, "the peer sends too many WebSocket frames without data")
        })?;
        Ok(())
    }

    /// Nothing more is read.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Takes all of `buffer[raw]` and puts the data in it to the front of `buffer`.
    pub fn receive(&mut self, buffer: &mut [u8], raw: Range<usize>) -> Result<Got, Violation> {
        let mut got = Got::default();
        let mut at = raw.start;
        let end = raw.end.min(buffer.len());
        while at < end {
            let there = end.saturating_sub(at);
            match self.state {
                State::Head => {
                    let Some(byte) = buffer.get(at).copied() else { break };
                    at = at.saturating_add(1);
                    self.push(byte)?;
                }
                State::Data { left } => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(there);
                    let from = at..at.saturating_add(count);
                    let to = got.plain..got.plain.saturating_add(count);
                    // At least a head lies between them, unless nothing was in front of the data.
                    if from != to {
                        buffer.copy_within(from, to.start);
                    }
                    mask::apply(buffer.get_mut(to).unwrap_or_default(), self.mask, self.phase);
                    self.phase = self.phase.wrapping_add(count) % 4;
                    self.earn(count);
                    at = at.saturating_add(count);
                    got.plain = got.plain.saturating_add(count);
                    self.state = match left.saturating_sub(count as u64) {
                        0 => State::Head,
                        left => State::Data { left },
                    };
                }
                State::Control { opcode, left } => {
                    let count = left.min(there);
                    let from = at..at.saturating_add(count);
                    self.control.push(buffer.get(from).unwrap_or_default());
                    at = at.saturating_add(count);
                    match left.saturating_sub(count) {
                        0 => self.controlled(opcode, &mut got)?,
                        left => self.state = State::Control { opcode, left },
                    }
                }
                State::Closed => break,
            }
            // One without a payload is complete with its head.
            if let State::Control { opcode, left: 0 } = self.state {
                self.controlled(opcode, &mut got)?;
            }
        }
        Ok(got)
    }

    /// One more byte of the head; each is checked when it comes.
    fn push(&mut self, byte: u8) -> Result<(), Violation> {
        if let Some(place) = self.head.get_mut(self.have) {
            *place = byte;
        }
        self.have = self.have.saturating_add(1);
        match self.have {
            1 => return self.check_first(byte),
            2 => self.check_second(byte)?,
            _ => {}
        }
        let [first, second, rest @ ..] = self.head;
        let wide = match second & !MASK {
            MEDIUM => 2,
            LONG => 8,
            _ => 0,
        };
        let masked = if self.masked { 4 } else { 0 };
        if self.have < 2_usize.saturating_add(wide).saturating_add(masked) {
            return Ok(());
        }
        let (length, rest) = rest.split_at_checked(wide).unwrap_or_default();
        let length = match wide {
            0 => u64::from(second & !MASK),
            _ => length.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)),
        };
        let least = match wide {
            0 => 0,
            2 => u64::from(SHORT) + 1,
            _ => u64::from(u16::MAX) + 1,
        };
        if length > i64::MAX as u64 {
            return Err(Violation::protocol("a WebSocket frame's length has its highest bit set"));
        }
        if length < least {
            return Err(Violation::protocol(
                "a WebSocket frame's length takes more bytes than it needs",
            ));
        }
        self.mask = match rest.first_chunk() {
            Some(mask) if self.masked => *mask,
            _ => [0; 4],
        };
        self.phase = 0;
        self.have = 0;
        let opcode = first & OPCODE;
        if opcode >= CLOSE {
            self.spend()?;
            self.control = Payload::EMPTY;
            self.state = State::Control { opcode, left: usize::try_from(length).unwrap_or(0) };
            return Ok(());
        }
        self.fragmented = first & FIN == 0;
        if length == 0 {
            self.spend()?;
        } else {
            self.state = State::Data { left: length };
        }
        Ok(())
    }

    fn check_first(&self, byte: u8) -> Result<(), Violation> {
        if byte & RESERVED != 0 {
            return Err(Violation::protocol(
                "a WebSocket frame has a reserved bit set; no extension is in use",
            ));
        }
        let sentence = match byte & OPCODE {
            CONTINUATION if !self.fragmented => {
                "a WebSocket frame continues a message that has not begun"
            }
            BINARY | TEXT if self.fragmented => "a WebSocket message begins inside another",
            TEXT => {
                let sentence =
                    "the peer sends text in the WebSocket; send binary frames (websocat: --binary)";
                return Err(Violation::new(Code::Unsupported, sentence));
            }
            CLOSE | PING | PONG if byte & FIN == 0 => "a WebSocket control frame is fragmented",
            CONTINUATION | BINARY | CLOSE | PING | PONG => return Ok(()),
            _ => "a WebSocket frame has a reserved opcode",
        };
        Err(Violation::protocol(sentence))
    }

    fn check_second(&self, byte: u8) -> Result<(), Violation> {
        if (byte & MASK != 0) != self.masked {
            return Err(Violation::protocol(if self.masked {
                "a WebSocket frame of the client is not masked"
            } else {
                "a WebSocket frame of the server is masked"
            }));
        }
        let [first, ..] = self.head;
        if first & OPCODE >= CLOSE && byte & !MASK > SHORT {
            return Err(Violation::protocol("a WebSocket control frame is longer than 125 bytes"));
        }
        Ok(())
    }

    /// A control frame is complete.
    fn controlled(&mut self, opcode: u8, got: &mut Got) -> Result<(), Violation> {
        self.state = State::Head;
        let place = self.control.bytes.get_mut(..self.control.length).unwrap_or_default();
        mask::apply(place, self.mask, 0);
        match opcode {
            PING => self.ping = Some(self.control),
            CLOSE => {
                got.closed = Some(closed(self.control.as_slice())?);
                self.state = State::Closed;
            }
            // A pong that nobody asked for means nothing (section 5.5.3).
            _ => {}
        }
        Ok(())
    }
}

/// The answer to a close frame's payload: its code (sections 5.5.1 and 7.4).
fn closed(payload: &[u8]) -> Result<Vec<u8>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Violation::protocol("a WebSocket close frame has half a code"))
        };
    };
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::protocol("a WebSocket close frame has a code that nobody may send"));
    }
    if str::from_utf8(reason).is_err() {
        let sentence = "the reason of a WebSocket close frame is not UTF-8";
        return Err(Violation::new(Code::Invalid, sentence));
    }
    Ok(code.to_vec())
}
