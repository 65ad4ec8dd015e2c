//! A client's share of a key exchange, and the secret that the server's makes of it: RFC 8731, RFC 5656
//! section 4, draft-ietf-sshm-mlkem-hybrid-kex.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use aws_lc_rs::signature::{self, UnparsedPublicKey as Verifier};
use tidegate_ssh::Random;
use tidegate_ssh::wire::{Reader, Writer};

use crate::Fault;

/// Bytes of ML-KEM-768's ciphertext (FIPS 203 table 3).
const CIPHERTEXT: usize = 1088;

pub(crate) enum Private {
    X25519(PrivateKey),
    P256(PrivateKey),
    Hybrid(Box<DecapsulationKey>, PrivateKey),
}

impl Private {
    /// With what goes to the server; none for a method that is not ours.
    pub fn generate(
        method: &str,
        random: &mut dyn Random,
    ) -> Result<Option<(Self, Vec<u8>)>, Fault> {
        let mut scalar = [0; 32];
        random.fill(&mut scalar)?;
        let public = |key: &PrivateKey| {
            key.compute_public_key().map(|it| it.as_ref().to_vec()).map_err(|_| Fault::ours())
        };
        let x25519 = || PrivateKey::from_private_key(&X25519, &scalar).map_err(|_| Fault::ours());
        Ok(Some(match method {
            "curve25519-sha256" | "curve25519-sha256@libssh.org" => {
                let key = x25519()?;
                let share = public(&key)?;
                (Self::X25519(key), share)
            }
            "ecdh-sha2-nistp256" => {
                let key =
                    PrivateKey::from_private_key(&ECDH_P256, &scalar).map_err(|_| Fault::ours())?;
                let share = public(&key)?;
                (Self::P256(key), share)
            }
            "mlkem768x25519-sha256" => {
                let kem = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| Fault::ours())?;
                let encapsulation = kem.encapsulation_key().map_err(|_| Fault::ours())?;
                let bytes = encapsulation.key_bytes().map_err(|_| Fault::ours())?;
                let key = x25519()?;
                let share = [bytes.as_ref(), &public(&key)?].concat();
                (Self::Hybrid(Box::new(kem), key), share)
            }
            _ => return Ok(None),
        }))
    }

    /// K as it is encoded.
    pub fn secret(self, share: &[u8]) -> Result<Vec<u8>, Fault> {
        let bad = || Fault::new("the server's share is not valid");
        let mut secret = Vec::new();
        let mut w = Writer::new(&mut secret);
        let x25519 = |key: &PrivateKey, point: &[u8]| {
            agree(key, UnparsedPublicKey::new(&X25519, point), bad(), |s| Ok(s.to_vec()))
        };
        match self {
            Self::X25519(key) => {
                w.mpint(&x25519(&key, share)?);
            }
            Self::P256(key) => {
                agree(&key, UnparsedPublicKey::new(&ECDH_P256, share), bad(), |s| {
                    w.mpint(s);
                    Ok(())
                })?;
            }
            Self::Hybrid(kem, key) => {
                let (ciphertext, point) = share.split_at_checked(CIPHERTEXT).ok_or_else(bad)?;
                let quantum = kem.decapsulate(ciphertext.into()).map_err(|_| bad())?;
                let both = [quantum.as_ref(), &x25519(&key, point)?].concat();
                w.string(digest(&SHA256, &both));
            }
        }
        Ok(secret)
    }
}

/// The server's signature over the exchange hash (RFC 8709 section 6, RFC 5656 section 3.1.2).
pub(crate) fn verify(
    blob: &[u8],
    signed: &[u8],
    hash: &[u8],
    algorithm: &str,
) -> Result<(), Fault> {
    let wrong = || Fault::new("the signature of the server is not one of its host key");
    let (mut key, mut signed) = (Reader::new(blob), Reader::new(signed));
    if key.string()? != algorithm.as_bytes() || signed.string()? != algorithm.as_bytes() {
        return Err(wrong());
    }
    let signature = signed.string()?;
    signed.end()?;
    if algorithm == "ssh-ed25519" {
        let verifier = Verifier::new(&signature::ED25519, key.string()?);
        verifier.verify(hash, signature).map_err(|_| wrong())?;
    } else {
        if key.string()? != b"nistp256" {
            return Err(wrong());
        }
        let mut parts = Reader::new(signature);
        let mut fixed = [0; 64];
        for half in fixed.chunks_mut(32) {
            let number = parts.mpint()?;
            let start = half.len().checked_sub(number.len()).ok_or_else(wrong)?;
            half[start..].copy_from_slice(number);
        }
        parts.end()?;
        let verifier = Verifier::new(&signature::ECDSA_P256_SHA256_FIXED, key.string()?);
        verifier.verify(hash, &fixed).map_err(|_| wrong())?;
    }
    key.end()?;
    Ok(())
}
