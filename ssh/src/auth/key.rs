//! The public keys that we can verify, from their blobs: RFC 8709 section 4 (Ed25519), RFC 5656
//! section 3.1 (ECDSA), RFC 4253 section 6.6 (RSA).

use crate::wire::Reader;

/// The least bits of an RSA key's modulus, and the most, which bounds what a verification costs.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A curve of RFC 5656 section 10.1 with the hash of its section 6.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Bytes of a number modulo the curve's order.
    pub fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::P256 => b"nistp256",
            Self::P384 => b"nistp384",
            Self::P521 => b"nistp521",
        }
    }
}

/// The hash of RFC 8332; SHA-1 is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// How a signature is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Ed25519,
    Ecdsa(Curve),
    Rsa(Hash),
}

impl Algorithm {
    /// By the name of the signature's algorithm. None: we do not have it, be it SHA-1 (`ssh-rsa`),
    /// DSA, a FIDO key (`sk-`) or a certificate.
    fn find(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"ssh-ed25519" => Self::Ed25519,
            b"ecdsa-sha2-nistp256" => Self::Ecdsa(Curve::P256),
            b"ecdsa-sha2-nistp384" => Self::Ecdsa(Curve::P384),
            b"ecdsa-sha2-nistp521" => Self::Ecdsa(Curve::P521),
            b"rsa-sha2-256" => Self::Rsa(Hash::Sha256),
            b"rsa-sha2-512" => Self::Rsa(Hash::Sha512),
            _ => return None,
        })
    }

    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Ed25519 => b"ssh-ed25519",
            Self::Ecdsa(Curve::P256) => b"ecdsa-sha2-nistp256",
            Self::Ecdsa(Curve::P384) => b"ecdsa-sha2-nistp384",
            Self::Ecdsa(Curve::P521) => b"ecdsa-sha2-nistp521",
            Self::Rsa(Hash::Sha256) => b"rsa-sha2-256",
            Self::Rsa(Hash::Sha512) => b"rsa-sha2-512",
        }
    }

    /// The type that the blob of such a key names.
    fn key_type(self) -> &'static [u8] {
        match self {
            Self::Rsa(_) => b"ssh-rsa",
            other => other.name(),
        }
    }
}

/// A key and the algorithm that it is to be used with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserKey<'a> {
    pub algorithm: Algorithm,
    pub public: Public<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Public<'a> {
    /// An Ed25519 key, or a point of an ECDSA key, as aws-lc takes it.
    Bytes(&'a [u8]),
    Rsa {
        n: &'a [u8],
        e: &'a [u8],
    },
}

impl<'a> UserKey<'a> {
    /// None if the algorithm is not ours, the blob is not of its kind or malformed, or an RSA key too
    /// short; without the cost of a signature (RFC 4252 section 7, RFC 8332 section 3).
    pub fn parse(algorithm: &[u8], blob: &'a [u8]) -> Option<Self> {
        let algorithm = Algorithm::find(algorithm)?;
        let mut r = Reader::new(blob);
        if r.string().ok()? != algorithm.key_type() {
            return None;
        }
        let public = match algorithm {
            Algorithm::Ed25519 => Public::Bytes(r.string().ok().filter(|it| it.len() == 32)?),
            Algorithm::Ecdsa(curve) => {
                if r.string().ok()? != curve.name() {
                    return None;
                }
                // Uncompressed (4), as RFC 5656 section 3.1 asks; aws-lc checks that it is on the curve.
                let point = r.string().ok()?;
                let length = curve.bytes().saturating_mul(2).saturating_add(1);
                Public::Bytes(Some(point).filter(|it| it.len() == length && it.starts_with(&[4]))?)
            }
            Algorithm::Rsa(_) => {
                let (e, n) = (r.mpint().ok()?, r.mpint().ok()?);
                // Even exponents and those beyond 32 bits have no use but to cost time.
                let usable = e.len() <= 4 && e.last().is_some_and(|last| last & 1 == 1);
                if !usable || !RSA_BITS.contains(&bits(n)) {
                    return None;
                }
                Public::Rsa { n, e }
            }
        };
        r.end().ok()?;
        Some(Self { algorithm, public })
    }
}

/// Bits of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    let Some(first) = number.first() else { return 0 };
    let unused = usize::try_from(first.leading_zeros()).unwrap_or(0);
    number.len().saturating_mul(8).saturating_sub(unused)
}
