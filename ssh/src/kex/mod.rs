//! Key exchange: what each method does with the client's share, and the keys that follow.
//!
//! Every method hashes with SHA-256, and shapes its messages alike (RFC 5656 section 4, RFC 8731
//! section 3, draft-ietf-sshm-mlkem-hybrid-kex section 2.3): the client's share, then our host key, our
//! share and the signature. They differ in what a share is and how the secret K is encoded.

mod curve25519;
mod derive;
mod mlkem;
mod nistp256;

use zeroize::Zeroizing;

pub use derive::{Direction, Exchange, HASH, Secrets};

use crate::algorithm::Kex;
use crate::message::Fatal;
use crate::random::{NoRandom, Random};

/// Our half of an exchange.
pub(crate) struct Reply {
    /// Q_S, or S_REPLY.
    pub share: Vec<u8>,
    /// K as the exchange hash and the key derivation take it, its length in front: an `mpint`, for
    /// the hybrid method a `string`. Wiped when it goes.
    pub secret: Zeroizing<Vec<u8>>,
}

/// Answers a client's share (Q_C, or C_INIT) by `method`: RFC 8731, RFC 5656 section 4,
/// draft-ietf-sshm-mlkem-hybrid-kex.
pub(crate) fn reply(method: Kex, share: &[u8], random: &mut dyn Random) -> Result<Reply, Fatal> {
    match method {
        Kex::MlKem768X25519 => mlkem::reply(share, random),
        Kex::Curve25519 | Kex::Curve25519Libssh => curve25519::reply(share, random),
        Kex::NistP256 => nistp256::reply(share, random),
    }
}

/// The client's share is none of the method's (code 3): RFC 8731 section 3, RFC 5656 section 4,
/// draft-ietf-sshm-mlkem-hybrid-kex section 2.3.
fn bad_share(method: &str) -> Fatal {
    Fatal::key_exchange(format_args!("the share of the key exchange is not valid for {method}"))
}

/// Something of ours failed, not of the peer's (code 3).
pub(crate) fn failed() -> Fatal {
    Fatal::key_exchange("the relay could not make keys; connect again")
}

impl From<NoRandom> for Fatal {
    fn from(_: NoRandom) -> Self {
        failed()
    }
}
