//! The sending half, and the key exchange that both halves get their keys from (RFC 4253).
//!
//! The states that a key exchange goes through, and each message of theirs, are in STATES.md.
//!
//! We send data in `Idle` and `Confirming`: our NEWKEYS is what changes our keys, the peer's its own.

mod exchange;
mod pace;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use pace::Pace;
use wait::Wait;

use crate::algorithm::Negotiated;
use crate::cipher::Opener;
use crate::config::Config;
use crate::kex::{Exchange, HASH};
use crate::kexinit::Choice;
use crate::message::{DisconnectCode, Fatal, number, printable};
use crate::outbound::{self, Outbound};
use crate::output::Output;
use crate::random::Random;
use crate::version;
use crate::wire::{Reader, Writer};

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

/// Where a key exchange stands.
enum State {
    /// Either side may begin one (RFC 4253 section 9).
    Idle,
    /// Our KEXINIT is sent; the peer's is waited for (RFC 4253 section 7.1).
    Offered { ours: Vec<u8> },
    /// Both KEXINITs are here; the client's share is waited for (RFC 5656 section 4). `discard`: the
    /// next message of the exchange is a wrong guess (RFC 4253 section 7).
    Agreed { choice: Choice, exchange: Exchange, discard: bool },
    /// Our NEWKEYS is sent; the peer's is waited for (RFC 4253 section 7.3).
    Confirming { opener: Opener },
    /// DISCONNECT was sent or came (RFC 4253 section 11.1).
    Dead,
}

/// How far the peer has come, for what strict key exchange forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No message yet.
    Silent,
    /// A message, not its first NEWKEYS.
    Begun,
    Keyed,
}

/// The sending half and the key exchange of one connection, server role.
pub struct Transport {
    config: Arc<Config>,
    random: Box<dyn Random + Send>,
    outbound: Outbound,
    state: State,
    /// The peer's version line.
    peer: Vec<u8>,
    progress: Progress,
    /// Whether the first KEXINITs of both were strict; false before.
    strict: bool,
    /// Whether the peer's first KEXINIT asked for EXT_INFO; false before.
    ext_info: bool,
    /// H of the first exchange.
    session: Option<[u8; HASH]>,
    negotiated: Option<Negotiated>,
    /// When the latest exchange was over; at first, when the connection began.
    keyed: Duration,
    /// The exchange that is under way.
    wait: Wait,
    pace: Pace,
    /// The peer's next message may be EXT_INFO (RFC 8308 section 2.4).
    ext_info_due: bool,
    /// What went wrong where nothing could be returned; the next `handle` or `tick` returns it.
    fault: Option<Fatal>,
}

impl Transport {
    /// Puts our version line and KEXINIT into the output.
    pub fn new(config: Arc<Config>, random: Box<dyn Random + Send>, now: Duration) -> Self {
        let mut outbound = Outbound::new();
        outbound.output.append(version::OURS.as_bytes());
        outbound.output.append(b"\r\n");
        let pace = Pace::new(&config.exchanges);
        let mut transport = Self {
            config,
            random,
            outbound,
            state: State::Idle,
            peer: Vec::new(),
            progress: Progress::Silent,
            strict: false,
            ext_info: false,
            session: None,
            negotiated: None,
            keyed: now,
            wait: Wait::new(now),
            pace,
            ext_info_due: false,
            fault: None,
        };
        transport.begin(now);
        transport
    }

    /// The peer's version line, which the exchange hash covers.
    pub fn version(&mut self, line: &[u8]) {
        self.peer = line.to_vec();
    }

    /// One message, whose number `build` writes first. It is sealed into the output at once; while
    /// keys are exchanged it is held, in order, and sealed under the new ones. What is held is
    /// bounded: beyond that [`Transport::handle`] and [`Transport::tick`] fail.
    pub fn write(&mut self, build: impl FnOnce(&mut Writer<'_>)) {
        let written = match self.state {
            State::Idle | State::Confirming { .. } => {
                self.outbound.write(self.random.as_mut(), build)
            }
            State::Offered { .. } | State::Agreed { .. } => self.outbound.hold(build),
            State::Dead => Ok(()),
        };
        self.note(written);
    }

    /// Whether data may be sealed now: no key exchange of ours is under way, nothing is held.
    pub fn is_open(&self) -> bool {
        self.fault.is_none() && matches!(self.state, State::Idle | State::Confirming { .. })
    }

    /// Seals a frame in place under our keys: `packet_length`, `padding_length`, the message, the
    /// padding and 16 bytes for the tag, as [`crate::packet::Next::Message`] gave it, all but the
    /// message's content unchanged. The caller sends it right behind everything in the output.
    ///
    /// False, with nothing changed: not open, or the cipher's blocks do not fit.
    pub fn seal_frame(&mut self, frame: &mut [u8]) -> bool {
        if !self.is_open() {
            return false;
        }
        match self.outbound.seal_frame(self.random.as_mut(), frame) {
            Ok(sealed) => sealed,
            Err(fatal) => {
                self.note(Err(fatal));
                false
            }
        }
    }

    fn note(&mut self, result: Result<(), Fatal>) {
        if let Err(fatal) = result {
            self.fault.get_or_insert(fatal);
        }
    }

    /// A message 1 to 4, 7, 20 to 49, 192 or 193 (RFC 4253 sections 7 and 11, RFC 8308, OpenSSH's
    /// PROTOCOL section 1.8). Others are `Handled::Other`.
    ///
    /// Which messages may come while keys are exchanged, [`crate::packet::Inbound`] has checked, which
    /// sees all of them; what strict key exchange forbids besides is checked here.
    pub fn handle(&mut self, message: &[u8], now: Duration) -> Result<Handled, Fatal> {
        self.tick(now)?;
        if matches!(self.state, State::Dead) {
            return Ok(Handled::Nothing);
        }
        let number = message.first().copied().unwrap_or_default();
        let first = self.progress == Progress::Silent;
        if first {
            self.progress = Progress::Begun;
        }
        self.check_strict(number)?;
        let ext_info_due = std::mem::take(&mut self.ext_info_due);
        match number {
            number::DISCONNECT => {
                self.die();
                return Ok(disconnected(message));
            }
            // RFC 4253 sections 11.2 to 11.4: nothing in them is of use to us.
            number::IGNORE | number::UNIMPLEMENTED | number::DEBUG => {}
            // RFC 8308 section 2.4: right after the client's first NEWKEYS alone. We need nothing of it.
            number::EXT_INFO if ext_info_due => {}
            number::KEXINIT => self.offered(message, first, now)?,
            number::NEWKEYS => return self.confirmed(message, now),
            22..=49 => self.share(message)?,
            number::PING => return self.pong(message),
            number::PONG => {}
            _ => {
                self.moved(message.len());
                return Ok(Handled::Other);
            }
        }
        Ok(Handled::Nothing)
    }

    /// PING (OpenSSH's PROTOCOL section 1.8): all of its data comes back. One that is longer than the
    /// packets of our own cipher, or of any that comes next where it would have to wait, is answered
    /// as a message that we don't know.
    fn pong(&mut self, message: &[u8]) -> Result<Handled, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let data = r.string()?;
        r.end()?;
        let most = if self.is_open() { self.outbound.most() } else { outbound::MOST_OF_ANY };
        if message.len() > most {
            return Ok(Handled::Other);
        }
        self.write(|w| {
            w.u8(number::PONG).string(data);
        });
        Ok(Handled::Nothing)
    }

    /// The peer sent a message of so many bytes that is not the transport's.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.pace.moved(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The peer has proven a key, and may ask for new keys as often as one that is trusted.
    pub fn logged_in(&mut self, now: Duration) {
        self.pace.logged_in(&self.config.exchanges, now);
    }

    /// Begins a key exchange when it is time (RFC 4253 section 9), and ends one that was not answered.
    /// To be called when [`Transport::deadline`] is over, which is to be looked at after each batch that
    /// was sent.
    pub fn tick(&mut self, now: Duration) -> Result<(), Fatal> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.wait.look(&self.outbound.output, now);
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        if matches!(self.state, State::Idle) {
            self.begin(now);
            return self.fault.take().map_or(Ok(()), Err);
        }
        Err(self.wait.too_long(&self.config, now))
    }

    /// When `tick` wants to be called; zero is at once.
    pub fn deadline(&self) -> Option<Duration> {
        if self.fault.is_some() {
            return Some(Duration::ZERO);
        }
        match self.state {
            State::Idle if self.outbound.is_exhausted(&self.config.rekey) => Some(Duration::ZERO),
            State::Idle => self.keyed.checked_add(self.config.rekey.time),
            State::Dead => None,
            _ => self.wait.deadline(&self.outbound.output, &self.config),
        }
    }

    /// UNIMPLEMENTED in answer to the packet of that number (RFC 4253 section 11.4).
    pub fn unimplemented(&mut self, sequence: u32) {
        self.write(|w| {
            w.u8(number::UNIMPLEMENTED).u32(sequence);
        });
    }

    /// DISCONNECT (RFC 4253 section 11.1), past everything that is held; nothing is sealed after it.
    pub fn disconnect(&mut self, code: DisconnectCode, text: &str) {
        if !matches!(self.state, State::Dead) {
            self.outbound.forget();
            let text = printable(text, Fatal::TEXT);
            // What fails here has no consequence any more.
            let _ = self.outbound.write(self.random.as_mut(), |w| {
                w.u8(number::DISCONNECT).u32(code.number()).string(&text).string("");
            });
            self.die();
        }
    }

    /// RFC 4253 section 11.1: nothing is sent or taken after a DISCONNECT.
    fn die(&mut self) {
        self.state = State::Dead;
        self.fault = None;
    }

    pub fn output(&mut self) -> &mut Output {
        &mut self.outbound.output
    }

    /// Bytes that the peer has not taken: those of the output, and those that are held.
    pub(crate) fn waiting(&self) -> usize {
        self.outbound.waiting()
    }

    /// The exchange hash of the first key exchange; empty before.
    pub fn session_id(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |session| session.as_slice())
    }

    /// What the latest key exchange agreed on.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }
}

/// RFC 4253 section 11.1. One that ends early ends the connection no less.
fn disconnected(message: &[u8]) -> Handled {
    let mut r = Reader::new(message.get(1..).unwrap_or_default());
    let code = r.u32().unwrap_or_default();
    let text = String::from_utf8_lossy(r.string().unwrap_or_default());
    Handled::Disconnected { code, text: printable(&text, Fatal::TEXT) }
}

#[cfg(any(test, feature = "testing"))]
impl Transport {
    /// As after a first key exchange that signed with the first host key, but in plain text.
    pub(crate) fn plain(
        config: Arc<Config>,
        random: Box<dyn Random + Send>,
        session: [u8; HASH],
    ) -> Self {
        use crate::algorithm::{Cipher, HostKeyAlgorithm, Kex};
        let mut transport = Self::new(config, random, Duration::ZERO);
        transport.outbound = Outbound::new();
        transport.state = State::Idle;
        transport.progress = Progress::Keyed;
        transport.session = Some(session);
        transport.wait = Wait::new(Duration::ZERO);
        transport.negotiated = Some(Negotiated {
            kex: Kex::Curve25519,
            host_key: HostKeyAlgorithm::Ed25519,
            cipher_in: Cipher::Aes128Gcm,
            cipher_out: Cipher::Aes128Gcm,
            strict: true,
            ext_info: false,
        });
        transport
    }
}
