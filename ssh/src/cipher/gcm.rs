//! aes128-gcm@openssh.com and aes256-gcm@openssh.com: RFC 5647 with the changes of OpenSSH's PROTOCOL
//! section 1.6 (the MAC that was negotiated does not matter).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};

use super::{Forged, LENGTH, TAG};
use crate::kex::Secrets;

/// One direction's key and the nonce of its next packet (RFC 5647 section 7.1): four fixed bytes, and
/// a counter that begins where the key exchange says and steps by one for each packet, modulo 2^64.
///
/// "LessSafe" is aws-lc's word for a key whose nonces the caller chooses; here they never repeat, as
/// `packets` is bounded far below 2^64 and the counter belongs to the key.
pub(super) struct Key {
    aead: LessSafeKey,
    fixed: u32,
    counter: u64,
    packets: u32,
}

impl Key {
    pub fn aes128(secrets: &Secrets) -> Result<Self, Forged> {
        Self::new(&AES_128_GCM, secrets.key.get(..16), secrets)
    }

    pub fn aes256(secrets: &Secrets) -> Result<Self, Forged> {
        Self::new(&AES_256_GCM, secrets.key.get(..32), secrets)
    }

    fn new(
        algorithm: &'static Algorithm,
        key: Option<&[u8]>,
        secrets: &Secrets,
    ) -> Result<Self, Forged> {
        let key = UnboundKey::new(algorithm, key.ok_or(Forged)?).map_err(|_| Forged)?;
        let [a, b, c, d, counter @ ..] = secrets.iv;
        Ok(Self {
            aead: LessSafeKey::new(key),
            fixed: u32::from_be_bytes([a, b, c, d]),
            counter: u64::from_be_bytes(counter),
            packets: 0,
        })
    }

    /// A nonce that was never given before under this key.
    fn nonce(&mut self) -> Result<Nonce, Forged> {
        self.packets = self.packets.checked_add(1).ok_or(Forged)?;
        let nonce = u128::from(self.fixed) << 64 | u128::from(self.counter);
        let [_, _, _, _, nonce @ ..] = nonce.to_be_bytes();
        self.counter = self.counter.wrapping_add(1);
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    pub fn open(&mut self, frame: &mut [u8]) -> Result<(), Forged> {
        let nonce = self.nonce()?;
        let (length, sealed) = frame.split_first_chunk_mut::<LENGTH>().ok_or(Forged)?;
        self.aead.open_in_place(nonce, Aad::from(*length), sealed).map_err(|_| Forged)?;
        Ok(())
    }

    pub fn seal(&mut self, frame: &mut [u8]) -> Result<(), Forged> {
        let nonce = self.nonce()?;
        let (length, rest) = frame.split_first_chunk_mut::<LENGTH>().ok_or(Forged)?;
        let (plain, place) = rest.split_last_chunk_mut::<TAG>().ok_or(Forged)?;
        let tag = self
            .aead
            .seal_in_place_separate_tag(nonce, Aad::from(*length), plain)
            .map_err(|_| Forged)?;
        *place = tag.as_ref().try_into().map_err(|_| Forged)?;
        Ok(())
    }
}
