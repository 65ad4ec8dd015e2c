//! curve25519-sha256 (RFC 8731), and the X25519 part of the hybrid method.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::Zeroizing;

use super::{Reply, bad_share, failed};
use crate::message::Fatal;
use crate::random::Random;
use crate::wire::Writer;

/// Bytes of a public key, and of what two of them make (RFC 7748 section 6.1).
pub(super) const BYTES: usize = 32;

const NAME: &str = "curve25519-sha256";

pub(super) fn reply(share: &[u8], random: &mut dyn Random) -> Result<Reply, Fatal> {
    let (ours, shared) = exchange(share, random, NAME)?;
    // Section 3.1: the 32 bytes are taken for a number in big endian.
    let mut secret = Zeroizing::new(Vec::with_capacity(BYTES + 8));
    Writer::new(&mut secret).mpint(shared.as_ref());
    Ok(Reply { share: ours, secret })
}

/// Our public key, and the secret that it shares with the client's.
///
/// A share that leads to the all-zero secret is refused (RFC 8731 section 3, RFC 7748 section 6.1); by
/// aws-lc, as its documentation of `X25519` says, and the tests here make sure.
pub(super) fn exchange(
    share: &[u8],
    random: &mut dyn Random,
    method: &str,
) -> Result<(Vec<u8>, Zeroizing<[u8; BYTES]>), Fatal> {
    // aws-lc would also take X.509's form of a key.
    if share.len() != BYTES {
        return Err(bad_share(method));
    }
    let mut private = Zeroizing::new([0; BYTES]);
    random.fill(private.as_mut())?;
    let private = PrivateKey::from_private_key(&X25519, private.as_ref()).map_err(|_| failed())?;
    let public = private.compute_public_key().map_err(|_| failed())?;
    let shared =
        agree(&private, UnparsedPublicKey::new(&X25519, share), bad_share(method), |shared| {
            let mut bytes = Zeroizing::new([0; BYTES]);
            *bytes = *shared.first_chunk().ok_or_else(failed)?;
            Ok(bytes)
        })?;
    Ok((public.as_ref().to_vec(), shared))
}
