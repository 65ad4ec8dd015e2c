//! What we tell in EXT_INFO (RFC 8308).

use crate::message::number;
use crate::wire::Writer;

/// The algorithms of user keys whose signatures we verify (RFC 8308 section 3.1).
///
/// Not among them: FIDO keys (`sk-`), until user presence and application are really checked.
pub const SIGNATURES: &str = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,\
     rsa-sha2-512,rsa-sha2-256";

/// Writes the message EXT_INFO: RFC 8308 section 2.3, and OpenSSH's PROTOCOL sections 1.8 and 3.1.
pub(crate) fn write(w: &mut Writer<'_>) {
    w.u8(number::EXT_INFO).u32(3);
    w.string("server-sig-algs").string(SIGNATURES);
    w.string("publickey-hostbound@openssh.com").string("0");
    w.string("ping@openssh.com").string("0");
}
