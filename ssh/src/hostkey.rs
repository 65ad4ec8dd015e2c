//! Host keys: what proves to clients that they talk to this relay.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use zeroize::Zeroizing;

use crate::algorithm::HostKeyAlgorithm;
use crate::wire::Writer;

/// Why a host key is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("the host key cannot be read: {0}; give an OpenSSH private key without a passphrase")]
    Unreadable(ssh_key::Error),
    #[error("the host key has a passphrase; remove it with ssh-keygen -p")]
    Encrypted,
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

/// A new ed25519 key that is on no disk.
pub fn generate(comment: &str) -> Result<ssh_key::PrivateKey, HostKeyError> {
    let mut seed = Zeroizing::new([0; Ed25519PrivateKey::BYTE_SIZE]);
    aws_lc_rs::rand::fill(seed.as_mut()).map_err(|_| HostKeyError::Inconsistent)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
        .map_err(|_| HostKeyError::Inconsistent)?;
    let public = Ed25519PublicKey::try_from(pair.public_key().as_ref());
    let key = Ed25519Keypair {
        public: public.map_err(HostKeyError::Unreadable)?,
        private: Ed25519PrivateKey::from_bytes(&seed),
    };
    ssh_key::PrivateKey::new(KeypairData::Ed25519(key), comment).map_err(HostKeyError::Unreadable)
}

impl HostKey {
    /// From the text of an OpenSSH private key without a passphrase.
    pub fn from_openssh(pem: impl AsRef<[u8]>) -> Result<Self, HostKeyError> {
        let key = ssh_key::PrivateKey::from_openssh(pem).map_err(HostKeyError::Unreadable)?;
        Self::from_private_key(&key)
    }

    pub fn from_private_key(key: &ssh_key::PrivateKey) -> Result<Self, HostKeyError> {
        if key.is_encrypted() {
            return Err(HostKeyError::Encrypted);
        }
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
    use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey};
    use ssh_key::public::Ed25519PublicKey;

    use super::*;
    use crate::tests::{ECDSA, ed25519};
    use crate::wire::Reader;

    #[test]
    fn signs_as_its_type_asks() {
        let key = ed25519(5);
        let signature = key.sign(b"message").unwrap();
        let mut r = Reader::new(&signature);
        assert_eq!(r.text().unwrap(), "ssh-ed25519");
        UnparsedPublicKey::new(&ED25519, key.public())
            .verify(b"message", r.string().unwrap())
            .unwrap();
        r.end().unwrap();

        let key = HostKey::from_openssh(ECDSA).unwrap();
        // r and s are numbers: about one in 128 begins with a zero, half of them are negative without.
        let mut lengths = std::collections::BTreeSet::new();
        for round in 0..600_u32 {
            let message = round.to_be_bytes();
            let signature = key.sign(&message).unwrap();
            let mut outer = Reader::new(&signature);
            assert_eq!(outer.text().unwrap(), "ecdsa-sha2-nistp256");
            let mut r = Reader::new(outer.string().unwrap());
            outer.end().unwrap();
            let mut fixed = [0; 64];
            for half in fixed.chunks_mut(32) {
                let number = r.mpint().unwrap();
                lengths.insert(number.len());
                half[32 - number.len()..].copy_from_slice(number);
            }
            r.end().unwrap();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public())
                .verify(&message, &fixed)
                .unwrap();
        }
        assert!(lengths.contains(&32) && lengths.len() > 1);
    }

    #[test]
    fn blobs_are_those_of_ssh_keygen() {
        let private = ssh_key::PrivateKey::from_openssh(ECDSA).unwrap();
        let key = HostKey::from_private_key(&private).unwrap();
        assert_eq!(key.blob(), private.public_key().to_bytes().unwrap());
        let key = ed25519(5);
        let public = ssh_key::PublicKey::from_bytes(key.blob()).unwrap();
        assert_eq!(public.key_data().ed25519().unwrap().0.as_slice(), key.public());
    }

    #[test]
    fn halves_that_do_not_belong_together() {
        let public = ed25519(2).public().try_into().unwrap();
        let pair = Ed25519Keypair {
            public: Ed25519PublicKey(public),
            private: Ed25519PrivateKey::from_bytes(&[1; 32]),
        };
        let error = HostKey::from_private_key(&pair.into()).unwrap_err();
        assert!(matches!(error, HostKeyError::Inconsistent));
        assert!(matches!(HostKey::from_openssh("no key"), Err(HostKeyError::Unreadable(_))));
    }

    #[test]
    fn keys_that_are_not_for_hosts() {
        let made = |options: &[&str]| {
            let file = std::env::temp_dir().join(format!("tidegate-ssh-{}", std::process::id()));
            let status = std::process::Command::new("ssh-keygen")
                .args(["-q", "-C", "", "-f"])
                .arg(&file)
                .args(options)
                .status()
                .unwrap();
            assert!(status.success());
            let key = std::fs::read(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            std::fs::remove_file(file.with_added_extension("pub")).unwrap();
            HostKey::from_openssh(key).unwrap_err().to_string()
        };
        assert!(made(&["-t", "ed25519", "-N", "secret"]).contains("passphrase"));
        assert!(made(&["-t", "rsa", "-b", "2048", "-N", ""]).contains("type ssh-rsa is not"));
        let larger = made(&["-t", "ecdsa", "-b", "384", "-N", ""]);
        assert!(larger.contains("type ecdsa-sha2-nistp384 is not"), "{larger}");
    }
}
