//! ecdh-sha2-nistp256 (RFC 5656 section 4).

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use zeroize::Zeroizing;

use super::{Reply, bad_share, failed};
use crate::message::Fatal;
use crate::random::Random;
use crate::wire::Writer;

const NAME: &str = "ecdh-sha2-nistp256";

/// A point without compression: 0x04, both coordinates (SEC 1 section 2.3.3). RFC 5656 section 4 lets us
/// refuse compressed ones.
const POINT: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// Bytes of a scalar and of a coordinate.
const SCALAR: usize = 32;

pub(super) fn reply(share: &[u8], random: &mut dyn Random) -> Result<Reply, Fatal> {
    if share.len() != POINT || share.first() != Some(&UNCOMPRESSED) {
        return Err(bad_share(NAME));
    }
    let private = private_key(random)?;
    let public = private.compute_public_key().map_err(|_| failed())?;
    // That the point lies on the curve and is not at infinity is checked by aws-lc as it parses it.
    let secret =
        agree(&private, UnparsedPublicKey::new(&ECDH_P256, share), bad_share(NAME), |x| {
            let mut secret = Zeroizing::new(Vec::with_capacity(SCALAR + 8));
            Writer::new(&mut secret).mpint(x);
            Ok(secret)
        })?;
    Ok(Reply { share: public.as_ref().to_vec(), secret })
}

/// A key from random bytes. About one in 2^32 draws is not below the order of the curve, so that the
/// next serves; four in a row are no chance.
fn private_key(random: &mut dyn Random) -> Result<PrivateKey, Fatal> {
    let mut scalar = Zeroizing::new([0; SCALAR]);
    for _ in 0..4 {
        random.fill(scalar.as_mut())?;
        if let Ok(key) = PrivateKey::from_private_key(&ECDH_P256, scalar.as_ref()) {
            return Ok(key);
        }
    }
    Err(failed())
}
