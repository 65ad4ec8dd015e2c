//! Frames as they are sent, and what their first bytes mean (RFC 6455 section 5.2).

use crate::Fault;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

pub(super) const FIN: u8 = 0x80;
pub(super) const RESERVED: u8 = 0x70;
pub(super) const OPCODE: u8 = 0x0f;
pub(super) const MASK: u8 = 0x80;

/// The most of a control frame's payload, and the greatest length that needs no more bytes.
pub(super) const SHORT: u8 = 125;
/// Lengths that 2 and 8 more bytes say.
pub(super) const MEDIUM: u8 = 126;
pub(super) const LONG: u8 = 127;

/// A status of section 7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Normal = 1000,
    Protocol = 1002,
    Unsupported = 1003,
    Invalid = 1007,
    Policy = 1008,
}

/// What a peer did against the protocol, and the status that it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub code: Code,
    pub fault: Fault,
}

impl Violation {
    pub fn new(code: Code, sentence: &'static str) -> Self {
        Self { code, fault: Fault::new(sentence) }
    }

    pub fn protocol(sentence: &'static str) -> Self {
        Self::new(Code::Protocol, sentence)
    }
}

/// The head of a frame, 14 bytes at most, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; 14],
    length: usize,
}

impl Head {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length = self.length.saturating_add(1);
            }
        }
    }

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The head of a whole binary message of `length` bytes, as a server sends it: its payload follows as
/// it is.
pub fn head(length: usize) -> Head {
    build(BINARY, length, None)
}

pub(super) fn build(opcode: u8, length: usize, mask: Option<[u8; 4]>) -> Head {
    let mut head = Head { bytes: [0; 14], length: 0 };
    let masked = if mask.is_some() { MASK } else { 0 };
    head.push(&[FIN | opcode]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short <= SHORT => head.push(&[masked | short]),
        (_, Ok(medium)) => {
            head.push(&[masked | MEDIUM]);
            head.push(&medium.to_be_bytes());
        }
        _ => {
            head.push(&[masked | LONG]);
            head.push(&(length as u64).to_be_bytes());
        }
    }
    head.push(mask.as_ref().map_or(&[], <[u8; 4]>::as_slice));
    head
}

/// The payload of a close frame.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let mut end = reason.len().min(usize::from(SHORT).saturating_sub(2));
    while !reason.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    payload
}
