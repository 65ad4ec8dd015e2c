//! Verifies signatures as they go over the wire: RFC 8709 section 6 (Ed25519), RFC 5656 section 3.1.2
//! (ECDSA), RFC 8332 section 3 (RSA).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use super::key::{Algorithm, Curve, Hash, Public, UserKey};
use crate::wire::Reader;

/// Whether `signature` is one of `message` by `key`, made by the very algorithm that was announced (RFC
/// 4252 section 7, RFC 8332 section 3).
pub(crate) fn verify(key: &UserKey<'_>, message: &[u8], signature: &[u8]) -> bool {
    let mut r = Reader::new(signature);
    let (Ok(name), Ok(raw)) = (r.string(), r.string()) else { return false };
    if name != key.algorithm.name() || r.end().is_err() {
        return false;
    }
    match (key.algorithm, &key.public) {
        (Algorithm::Ed25519, Public::Bytes(key)) => {
            UnparsedPublicKey::new(&ED25519, key).verify(message, raw).is_ok()
        }
        (Algorithm::Ecdsa(curve), Public::Bytes(key)) => {
            let algorithm = match curve {
                Curve::P256 => &ECDSA_P256_SHA256_FIXED,
                Curve::P384 => &ECDSA_P384_SHA384_FIXED,
                Curve::P521 => &ECDSA_P521_SHA512_FIXED,
            };
            fixed(curve, raw).is_some_and(|raw| {
                UnparsedPublicKey::new(algorithm, key).verify(message, &raw).is_ok()
            })
        }
        (Algorithm::Rsa(hash), Public::Rsa { n, e }) => {
            let parameters = match hash {
                Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
            };
            let Some(raw) = padded(raw, n.len()) else { return false };
            RsaPublicKeyComponents { n: *n, e: *e }.verify(parameters, message, &raw).is_ok()
        }
        _ => false,
    }
}

/// Two numbers as mpints, to two numbers of fixed length one behind the other.
fn fixed(curve: Curve, raw: &[u8]) -> Option<Vec<u8>> {
    let mut r = Reader::new(raw);
    let (first, second) = (r.mpint().ok()?, r.mpint().ok()?);
    r.end().ok()?;
    let mut both = padded(first, curve.bytes())?;
    both.extend(padded(second, curve.bytes())?);
    Some(both)
}

/// A number with leading zeros up to `length`. RSA signatures of old clients come without theirs.
fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut padded = vec![0; length.checked_sub(number.len())?];
    padded.extend_from_slice(number);
    Some(padded)
}
