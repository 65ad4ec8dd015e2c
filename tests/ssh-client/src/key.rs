//! A user's key, and the requests that it signs (RFC 4252 section 7, OpenSSH's PROTOCOL section 3.1).

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::PublicKey;
use tidegate_ssh::message::number;
use tidegate_ssh::wire::Writer;

type Sign = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// A public key and what signs for it: the raw signature, as its algorithm encodes it.
#[derive(Clone)]
pub struct Key {
    pub algorithm: &'static str,
    pub blob: Vec<u8>,
    sign: Arc<Sign>,
}

impl Key {
    pub fn new(
        algorithm: &'static str,
        blob: Vec<u8>,
        sign: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self { algorithm, blob, sign: Arc::new(sign) }
    }

    /// The ed25519 key of this seed.
    pub fn ed25519(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes");
        let mut blob = Vec::new();
        Writer::new(&mut blob).string("ssh-ed25519").string(pair.public_key().as_ref());
        Self::new("ssh-ed25519", blob, move |message| pair.sign(message).as_ref().to_vec())
    }

    /// The ed25519 key of a file, as ssh-keygen writes it.
    pub fn read(path: &Path) -> Self {
        let key = ssh_key::PrivateKey::read_openssh_file(path).expect("a private key");
        let pair = key.key_data().ed25519().expect("an ed25519 key");
        Self::ed25519(pair.private.to_bytes())
    }

    /// The same as a private key, for what wants one.
    pub fn private(seed: [u8; 32]) -> ssh_key::PrivateKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes");
        let both = [&seed, pair.public_key().as_ref()].concat();
        let both = both.try_into().expect("64 bytes");
        ssh_key::private::Ed25519Keypair::from_bytes(&both).expect("two halves that fit").into()
    }

    /// The `n`th of as many keys as anybody wants. They protect nothing.
    pub fn numbered(n: u32) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        Self::ed25519(seed)
    }

    /// `ssh-ed25519 AAAA...`
    pub fn public(&self) -> String {
        let key = PublicKey::from_bytes(&self.blob).expect("a public key");
        key.to_openssh().expect("a public key as text")
    }

    /// A request to log in: a question whether the key would do, or signed for a session. `bound`
    /// names the host key that the exchange was signed with.
    pub fn request(&self, user: &str, session: Option<&[u8]>, bound: Option<&[u8]>) -> Vec<u8> {
        let method =
            if bound.is_some() { "publickey-hostbound-v00@openssh.com" } else { "publickey" };
        let mut request = Vec::new();
        let mut w = Writer::new(&mut request);
        w.u8(number::USERAUTH_REQUEST).string(user).string("ssh-connection").string(method);
        w.bool(session.is_some()).string(self.algorithm).string(&self.blob);
        if let Some(host_key) = bound {
            w.string(host_key);
        }
        if let Some(session) = session {
            let mut covered = Vec::new();
            Writer::new(&mut covered).string(session).bytes(&request);
            let raw = (self.sign)(&covered);
            Writer::new(&mut request).nested(|w| {
                w.string(self.algorithm).string(raw);
            });
        }
        request
    }
}
