//! Ciphers over whole packets, in place: `Opener` for what comes in, `Sealer` for what goes out.
//!
//! A frame is a packet as it lies in a buffer: `packet_length` (4 bytes), `padding_length` (1), the
//! message, the padding, and room for the tag (16 bytes, none before the first NEWKEYS).

mod chacha;
mod gcm;

use crate::algorithm::Cipher;
use crate::kex::Secrets;

/// Bytes of `packet_length`.
pub const LENGTH: usize = 4;

/// Bytes of a tag under every cipher that we have.
pub const TAG: usize = 16;

/// A frame is not what its sender sealed, or cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// The keys that open one direction.
pub struct Opener(Opening);

enum Opening {
    None,
    Gcm(gcm::Key),
    ChaCha(chacha::Opening),
}

impl Opener {
    /// Before the first key exchange nothing is encrypted.
    pub fn none() -> Self {
        Self(Opening::None)
    }

    pub(crate) fn new(cipher: Cipher, secrets: &Secrets) -> Result<Self, Forged> {
        Ok(Self(match cipher {
            Cipher::Aes128Gcm => Opening::Gcm(gcm::Key::aes128(secrets)?),
            Cipher::Aes256Gcm => Opening::Gcm(gcm::Key::aes256(secrets)?),
            Cipher::ChaCha20Poly1305 => Opening::ChaCha(chacha::Opening::new(secrets)?),
        }))
    }

    /// Where a frame's parts must end.
    pub fn layout(&self) -> Layout {
        match self.0 {
            Opening::None => Layout::NONE,
            Opening::Gcm(_) => Layout::GCM,
            Opening::ChaCha(_) => Layout::CHACHA,
        }
    }

    /// `packet_length` of the frame that begins with these bytes, not authenticated yet.
    pub fn length(&self, sequence: u32, bytes: [u8; LENGTH]) -> u32 {
        match &self.0 {
            Opening::None | Opening::Gcm(_) => u32::from_be_bytes(bytes),
            Opening::ChaCha(key) => key.length(sequence, bytes),
        }
    }

    /// Checks a whole frame and decrypts it in place. Its `packet_length`, which [`Opener::length`] told
    /// as `length`, is in clear afterwards.
    pub fn open(&mut self, sequence: u32, length: u32, frame: &mut [u8]) -> Result<(), Forged> {
        match &mut self.0 {
            Opening::None => Ok(()),
            Opening::Gcm(key) => key.open(frame),
            Opening::ChaCha(key) => key.open(sequence, length, frame),
        }
    }
}

/// The keys that seal one direction.
pub struct Sealer(Sealing);

enum Sealing {
    None,
    Gcm(gcm::Key),
    ChaCha(chacha::Sealing),
}

impl Sealer {
    /// Before the first key exchange nothing is encrypted.
    pub fn none() -> Self {
        Self(Sealing::None)
    }

    pub(crate) fn new(cipher: Cipher, secrets: &Secrets) -> Result<Self, Forged> {
        Ok(Self(match cipher {
            Cipher::Aes128Gcm => Sealing::Gcm(gcm::Key::aes128(secrets)?),
            Cipher::Aes256Gcm => Sealing::Gcm(gcm::Key::aes256(secrets)?),
            Cipher::ChaCha20Poly1305 => Sealing::ChaCha(chacha::Sealing::new(secrets)?),
        }))
    }

    /// Where a frame's parts must end.
    pub fn layout(&self) -> Layout {
        match self.0 {
            Sealing::None => Layout::NONE,
            Sealing::Gcm(_) => Layout::GCM,
            Sealing::ChaCha(_) => Layout::CHACHA,
        }
    }

    /// Encrypts a frame in place and fills in its tag.
    pub fn seal(&mut self, sequence: u32, frame: &mut [u8]) -> Result<(), Forged> {
        match &mut self.0 {
            Sealing::None => Ok(()),
            Sealing::Gcm(key) => key.seal(frame),
            Sealing::ChaCha(key) => key.seal(sequence, frame),
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// How a cipher lays out a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What is encrypted is a multiple of so many bytes (RFC 4253 section 6).
    pub block: usize,
    /// Bytes of `packet_length` that count towards that multiple: 4 only without a cipher.
    pub counted: usize,
    pub tag: usize,
}

impl Layout {
    /// RFC 4253 section 6: blocks of 8 bytes, `packet_length` included.
    pub const NONE: Self = Self { block: 8, counted: LENGTH, tag: 0 };
    /// RFC 5647 section 7.2: blocks of 16 bytes, `packet_length` is in clear and apart.
    pub const GCM: Self = Self { block: 16, counted: 0, tag: TAG };
    /// PROTOCOL.chacha20poly1305: blocks of 8 bytes, `packet_length` is encrypted apart.
    pub const CHACHA: Self = Self { block: 8, counted: 0, tag: TAG };

    /// Whether a packet may have this `packet_length`, as far as blocks go.
    pub fn fits(self, packet_length: usize) -> bool {
        packet_length.checked_add(self.counted).is_some_and(|n| n.is_multiple_of(self.block))
    }

    /// The least padding (at least 4, below 4 + `block`) behind a message of `message` bytes.
    pub fn padding(self, message: usize) -> u8 {
        let before = message.wrapping_add(1).wrapping_add(self.counted).wrapping_add(4);
        let short = before.checked_rem(self.block).unwrap_or_default();
        let more = if short == 0 { 0 } else { self.block.wrapping_sub(short) };
        u8::try_from(more).unwrap_or_default().saturating_add(4)
    }
}
