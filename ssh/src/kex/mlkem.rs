//! mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex): secret as long as one of both is.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_768};
use zeroize::Zeroizing;

use super::{HASH, Reply, bad_share, curve25519, derive};
use crate::message::Fatal;
use crate::random::Random;
use crate::wire::Writer;

const NAME: &str = "mlkem768x25519-sha256";

/// Bytes of an encapsulation key of ML-KEM-768 (FIPS 203 table 3); C_INIT is this and an X25519 key.
const KEY: usize = 1184;

/// Section 2.3: C_INIT = C_PK2 || C_PK1, S_REPLY = S_CT2 || S_PK1; section 2.4:
/// K = HASH(K_PQ || K_CL), a `string` wherever K occurs.
pub(super) fn reply(share: &[u8], random: &mut dyn Random) -> Result<Reply, Fatal> {
    let (key, point) = share.split_at_checked(KEY).ok_or_else(|| bad_share(NAME))?;
    // X25519 first, as it checks the length of the rest.
    let (ours, classical) = curve25519::exchange(point, random, NAME)?;
    // That every coefficient is below the modulus (FIPS 203 section 7.2) is checked as it is used.
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| bad_share(NAME))?;
    let (ciphertext, quantum) = key.encapsulate().map_err(|_| bad_share(NAME))?;

    let mut hash = Context::new(&SHA256);
    hash.update(quantum.as_ref());
    hash.update(classical.as_ref());
    let mut secret = Zeroizing::new(Vec::with_capacity(4 + HASH));
    Writer::new(&mut secret).string(derive::secret(hash));

    let mut reply = ciphertext.as_ref().to_vec();
    reply.extend_from_slice(&ours);
    Ok(Reply { share: reply, secret })
}
