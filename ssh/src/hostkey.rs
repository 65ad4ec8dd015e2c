//! Host keys: what proves to clients that they talk to this relay.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use ssh_key::private::{EcdsaKeypair, KeypairData};

use crate::algorithm::HostKeyAlgorithm;
use crate::wire::Writer;

/// Why a host key is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("the host key cannot be read: {0}; give an OpenSSH private key without a passphrase")]
    Unreadable(ssh_key::Error),
    #[error("a host key of type {0} is not supported; give an ed25519 or ecdsa nistp256 key")]
    Unsupported(String),
    #[error("the two halves of the host key do not belong together; generate it anew")]
    Inconsistent,
}

/// A signature could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host key cannot sign")]
pub struct NoSignature;

/// A private host key. Its secret lives in aws-lc and is wiped there when it goes.
#[derive(Debug)]
pub struct HostKey {
    pair: Pair,
    blob: Vec<u8>,
}

#[derive(Debug)]
enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

impl HostKey {
    /// From the text of an OpenSSH private key without a passphrase.
    pub fn from_openssh(pem: impl AsRef<[u8]>) -> Result<Self, HostKeyError> {
        let key = ssh_key::PrivateKey::from_openssh(pem).map_err(HostKeyError::Unreadable)?;
        Self::from_private_key(&key)
    }

    pub fn from_private_key(key: &ssh_key::PrivateKey) -> Result<Self, HostKeyError> {
        let mut blob = Vec::new();
        let mut w = Writer::new(&mut blob);
        let pair = match key.key_data() {
            KeypairData::Ed25519(key) => {
                let public = key.public.as_ref();
                // RFC 8709 section 4.
                w.string("ssh-ed25519").string(public);
                Ed25519KeyPair::from_seed_and_public_key(key.private.as_ref(), public)
                    .map(Pair::Ed25519)
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                let public = public.as_bytes();
                // RFC 5656 section 3.1.
                w.string("ecdsa-sha2-nistp256").string("nistp256").string(public);
                EcdsaKeyPair::from_private_key_and_public_key(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    private.as_slice(),
                    public,
                )
                .map(Pair::EcdsaP256)
            }
            _ => return Err(HostKeyError::Unsupported(key.algorithm().to_string())),
        };
        Ok(Self { pair: pair.map_err(|_| HostKeyError::Inconsistent)?, blob })
    }

    pub fn algorithm(&self) -> HostKeyAlgorithm {
        match self.pair {
            Pair::Ed25519(_) => HostKeyAlgorithm::Ed25519,
            Pair::EcdsaP256(_) => HostKeyAlgorithm::EcdsaP256,
        }
    }

    /// The public key as it goes over the wire.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The signature over `message` as it goes over the wire: RFC 8709 section 6, RFC 5656 section
    /// 3.1.2.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NoSignature> {
        let mut signature = Vec::with_capacity(128);
        let mut w = Writer::new(&mut signature);
        w.string(self.algorithm().name());
        match &self.pair {
            Pair::Ed25519(key) => {
                w.string(key.try_sign(message).map_err(|_| NoSignature)?);
            }
            Pair::EcdsaP256(key) => {
                let fixed = key.sign(&SystemRandom::new(), message).map_err(|_| NoSignature)?;
                let (r, s) = fixed.as_ref().split_at_checked(32).ok_or(NoSignature)?;
                w.nested(|w| {
                    w.mpint(r).mpint(s);
                });
            }
        }
        Ok(signature)
    }

    /// The public half of the key pair, as the algorithm encodes it.
    pub fn public(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(key) => key.public_key().as_ref(),
            Pair::EcdsaP256(key) => key.public_key().as_ref(),
        }
    }
}
