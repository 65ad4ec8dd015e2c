//! chacha20-poly1305@openssh.com: OpenSSH's PROTOCOL.chacha20poly1305.
//!
//! The nonce is the packet's sequence number; whoever counts those must not let them come round again
//! under the same key.

use aws_lc_rs::aead::chacha20_poly1305_openssh::{OpeningKey, SealingKey};

use super::{Forged, LENGTH, TAG};
use crate::kex::Secrets;

pub(super) struct Opening(OpeningKey);

impl Opening {
    pub fn new(secrets: &Secrets) -> Result<Self, Forged> {
        Ok(Self(OpeningKey::new(secrets.key.first_chunk().ok_or(Forged)?)))
    }

    pub fn length(&self, sequence: u32, bytes: [u8; LENGTH]) -> u32 {
        u32::from_be_bytes(self.0.decrypt_packet_length(sequence, bytes))
    }

    pub fn open(&self, sequence: u32, length: u32, frame: &mut [u8]) -> Result<(), Forged> {
        let (sealed, tag) = frame.split_last_chunk_mut::<TAG>().ok_or(Forged)?;
        if sealed.len() < LENGTH {
            return Err(Forged);
        }
        // Authenticates the encrypted length, and leaves it as it is.
        self.0.open_in_place(sequence, sealed, tag).map_err(|_| Forged)?;
        *sealed.first_chunk_mut().ok_or(Forged)? = length.to_be_bytes();
        Ok(())
    }
}

pub(super) struct Sealing(SealingKey);

impl Sealing {
    pub fn new(secrets: &Secrets) -> Result<Self, Forged> {
        Ok(Self(SealingKey::new(secrets.key.first_chunk().ok_or(Forged)?)))
    }

    pub fn seal(&self, sequence: u32, frame: &mut [u8]) -> Result<(), Forged> {
        let (plain, tag) = frame.split_last_chunk_mut::<TAG>().ok_or(Forged)?;
        if plain.len() < LENGTH {
            return Err(Forged);
        }
        self.0.seal_in_place(sequence, plain, tag);
        Ok(())
    }
}
