//! From messages to sealed packets (RFC 4253 section 6), and what waits for new keys.

use crate::algorithm::Cipher;
use crate::cipher::{LENGTH, Layout, Sealer};
use crate::config::RekeyLimits;
use crate::kex::Secrets;
use crate::message::{DisconnectCode, Fatal};
use crate::output::Output;
use crate::packet::MOST;
use crate::random::Random;
use crate::wire::{Reader, Writer};

/// The most bytes of messages that wait for new keys. A peer that asks for answers without end while
/// it owes us its KEXINIT runs into this.
const HELD: usize = 256 * 1024;

/// The longest message that fits into a packet under every cipher.
pub(crate) const MOST_OF_ANY: usize = most(Layout::GCM);

/// The longest message that fits into a packet of at most [`MOST`] bytes: a whole number of blocks,
/// without `padding_length` and the least padding (RFC 4253 section 6).
const fn most(layout: Layout) -> usize {
    let blocks = (MOST + layout.counted) / layout.block;
    blocks * layout.block - layout.counted - 1 - 4
}

/// What goes out, and what waits.
pub struct Outbound {
    pub output: Output,
    keys: Keys,
    /// Messages that wait for new keys, each as a `string`.
    held: Vec<u8>,
}

impl Outbound {
    pub fn new() -> Self {
        let keys = Keys {
            sealer: Sealer::none(),
            sequence: 0,
            bytes: 0,
            packets: 0,
            padding: Padding::new(),
        };
        Self { output: Output::default(), keys, held: Vec::new() }
    }

    /// Builds a message at the end of the output and seals it there.
    pub fn write(
        &mut self,
        random: &mut dyn Random,
        build: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), Fatal> {
        let tail = self.output.tail();
        let start = tail.len();
        tail.extend_from_slice(&[0; LENGTH + 1]);
        build(&mut Writer::new(tail));
        let message = tail.len().saturating_sub(start).saturating_sub(LENGTH + 1);
        let layout = self.keys.sealer.layout();
        let padding = layout.padding(message);
        let length = message.saturating_add(1).saturating_add(usize::from(padding));
        if message == 0 || length > MOST {
            tail.truncate(start);
            return Err(fault("a message of the relay does not fit into a packet"));
        }
        tail.resize(tail.len().saturating_add(usize::from(padding)), 0);
        tail.resize(tail.len().saturating_add(layout.tag), 0);
        let frame = tail.get_mut(start..).unwrap_or_default();
        if let Some(([a, b, c, d, e], _)) = frame.split_first_chunk_mut() {
            [*a, *b, *c, *d] = u32::try_from(length).unwrap_or_default().to_be_bytes();
            *e = padding;
        }
        let sealed = self.keys.seal(random, frame);
        if sealed.is_err() {
            // Nothing that is in clear may stay among what is sent.
            tail.truncate(start);
        }
        sealed
    }

    /// Seals a frame where it lies; false if its layout is none of our cipher's.
    pub fn seal_frame(&mut self, random: &mut dyn Random, frame: &mut [u8]) -> Result<bool, Fatal> {
        if !is_frame(self.keys.sealer.layout(), frame) {
            return Ok(false);
        }
        self.keys.seal(random, frame)?;
        Ok(true)
    }

    /// Keeps a message for [`Outbound::release`].
    pub fn hold(&mut self, build: impl FnOnce(&mut Writer<'_>)) -> Result<(), Fatal> {
        Writer::new(&mut self.held).nested(build);
        if self.held.len() > HELD {
            self.held = Vec::new();
            return Err(Fatal::protocol(
                "the key exchange was not answered while many answers were asked for",
            ));
        }
        Ok(())
    }

    /// Seals what was held, in order.
    pub fn release(&mut self, random: &mut dyn Random) -> Result<(), Fatal> {
        let held = std::mem::take(&mut self.held);
        let mut r = Reader::new(&held);
        while !r.is_empty() {
            let message = r.string()?;
            self.write(random, |w| {
                w.bytes(message);
            })?;
        }
        Ok(())
    }

    /// Drops what was held.
    pub fn forget(&mut self) {
        self.held = Vec::new();
    }

    /// New keys, after our NEWKEYS (RFC 4253 section 7.3). `reset`: sequence numbers begin at 0 again.
    pub fn install(&mut self, cipher: Cipher, secrets: &Secrets, reset: bool) -> Result<(), Fatal> {
        self.keys.sealer =
            Sealer::new(cipher, secrets).map_err(|_| fault("the relay could not make keys"))?;
        self.keys.bytes = 0;
        self.keys.packets = 0;
        if reset {
            self.keys.sequence = 0;
        }
        Ok(())
    }

    /// The longest message that fits into a packet now.
    pub(crate) fn most(&self) -> usize {
        most(self.keys.sealer.layout())
    }

    /// Bytes that these keys have sealed.
    pub(crate) fn sealed(&self) -> u64 {
        self.keys.bytes
    }

    /// Bytes that were not taken yet: of the output, and of what is held.
    pub(crate) fn waiting(&self) -> usize {
        self.output.len().saturating_add(self.held.len())
    }

    /// Whether the keys were used as much as they should be.
    pub fn is_exhausted(&self, limits: &RekeyLimits) -> bool {
        self.keys.bytes >= limits.bytes || self.keys.packets >= limits.packets
    }
}

#[cfg(feature = "testing")]
impl Outbound {
    /// Seals bytes as they lie, `packet_length` to room for the tag, be they a packet or not; false
    /// if they are too few to be sealed.
    pub fn seal_anything(&mut self, frame: &mut [u8]) -> bool {
        let sealed = self.keys.sealer.seal(self.keys.sequence, frame).is_ok();
        self.keys.sequence = self.keys.sequence.wrapping_add(u32::from(sealed));
        sealed
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}

fn fault(text: &str) -> Fatal {
    Fatal::new(DisconnectCode::ByApplication, text)
}

/// What seals, and how much it has.
struct Keys {
    sealer: Sealer,
    /// Of the next packet.
    sequence: u32,
    /// Since the keys are in use.
    bytes: u64,
    packets: u32,
    padding: Padding,
}

impl Keys {
    /// Fresh padding and the tag for a frame that [`is_frame`].
    fn seal(&mut self, random: &mut dyn Random, frame: &mut [u8]) -> Result<(), Fatal> {
        // After 2^32 packets nonces would come round again; new keys were begun at 2^31.
        self.packets = self
            .packets
            .checked_add(1)
            .ok_or_else(|| Fatal::protocol("the same keys were used for more than 2^32 packets"))?;
        let count = usize::from(frame.get(LENGTH).copied().unwrap_or_default());
        let end = frame.len().saturating_sub(self.sealer.layout().tag);
        let padding = frame.get_mut(end.saturating_sub(count)..end).unwrap_or_default();
        self.padding.fill(random, padding);
        self.bytes = self.bytes.saturating_add(u64::try_from(frame.len()).unwrap_or(u64::MAX));
        let sealed = self.sealer.seal(self.sequence, frame);
        sealed.map_err(|_| fault("the relay could not seal a packet"))?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }
}

/// Whether a frame of another connection can be sealed as it lies.
fn is_frame(layout: Layout, frame: &[u8]) -> bool {
    let Some(([a, b, c, d, padding], rest)) = frame.split_first_chunk() else { return false };
    let Ok(length) = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])) else { return false };
    let whole = LENGTH.checked_add(length).and_then(|n| n.checked_add(layout.tag));
    whole == Some(frame.len())
        && length <= MOST
        && layout.fits(length)
        && *padding >= 4
        // At least one byte of message before the padding and the tag.
        && rest.len() > usize::from(*padding).saturating_add(layout.tag)
}

/// Random bytes for padding, drawn in advance, since a draw costs more than it hands out to a packet.
/// RFC 4253 section 6 asks for randomness, but nothing secret depends on it under our ciphers: where
/// the source fails, bytes are used again.
struct Padding {
    pool: [u8; 256],
    used: usize,
}

impl Padding {
    fn new() -> Self {
        Self { pool: [0; 256], used: 256 }
    }

    fn fill(&mut self, random: &mut dyn Random, out: &mut [u8]) {
        // Padding is at most 255 bytes, so that one draw always serves.
        let fits = self.used.saturating_add(out.len()) <= self.pool.len();
        if !fits {
            // On failure the pool keeps what it had.
            let _ = random.fill(&mut self.pool);
            self.used = 0;
        }
        for (to, from) in out.iter_mut().zip(self.pool.iter().skip(self.used)) {
            *to = *from;
        }
        self.used = self.used.saturating_add(out.len());
    }
}
