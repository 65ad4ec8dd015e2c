//! SSH public keys as people write them: one line of authorized_keys, without options.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;
use tidegate_policy::model::KeyBlob;

use super::{Refusals, reason};

/// The fewest bits of an RSA modulus.
const RSA_BITS: usize = 2048;
/// The most: sshd's own limit (SSHBUF_MAX_BIGNUM, 16384 bits).
const RSA_BITS_MOST: usize = 16384;

/// A host key: its algorithm and blob, without the comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// Such as `ssh-ed25519 AAAA...`.
    pub line: String,
    pub blob: KeyBlob,
}

/// Reads one public key: `ssh-ed25519 AAAA... comment`. ed25519, ecdsa (nistp256, 384, 521), and RSA
/// from 2048 bits; the error is one clear sentence.
pub fn public_key(text: &str) -> Result<HostKey, String> {
    let form = "is not an SSH public key; write it as in ssh-ed25519 AAAA... comment";
    let mut words = text.splitn(3, ' ');
    let algorithm = words.next().unwrap_or_default();
    if algorithm.starts_with("sk-") {
        return Err("is a security key (sk-), which is not supported yet; use ssh-ed25519, ecdsa or RSA from 2048 bits".into());
    }
    if text.contains("PRIVATE KEY") {
        return Err(
            "is a private key; write the public one, from the file that ends in .pub".into()
        );
    }
    if algorithm == "ssh-dss" {
        return Err(
            "is a DSA key, which is too weak; use ssh-ed25519, ecdsa or RSA from 2048 bits".into(),
        );
    }
    if algorithm.contains("-cert-v01@") {
        return Err("is a certificate; write the public key itself".into());
    }
    let known = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
    ];
    if !known.contains(&algorithm) {
        let options = known.iter().any(|known| text.contains(known));
        return Err(if options {
            "begins with options or other text; write the key alone, as in ssh-ed25519 AAAA... comment".into()
        } else {
            form.into()
        });
    }
    let encoded = words.next().unwrap_or_default();
    if words.next().is_some_and(|comment| comment.chars().any(char::is_control)) {
        return Err("has a control character in its comment; write it on one line".into());
    }
    let blob = STANDARD.decode(encoded).map_err(|_| form)?;
    let key = PublicKey::from_bytes(&blob).map_err(|_| form)?;
    if key.algorithm().as_str() != algorithm {
        return Err("names another algorithm than the key itself does".into());
    }
    // One key must have one blob, since identity is the blob.
    if key.to_bytes().map_err(|_| form)? != blob {
        return Err(form.into());
    }
    match key.key_data() {
        KeyData::Ed25519(_) => {}
        KeyData::Ecdsa(point) => {
            // SEC1's tag of an uncompressed point, the only form that SSH uses.
            if point.as_sec1_bytes().first() != Some(&4) {
                return Err(form.into());
            }
        }
        KeyData::Rsa(rsa) => {
            let bits = rsa.n.as_positive_bytes().map_or(0, bits);
            if bits < RSA_BITS {
                return Err(format!(
                    "is an RSA key of {bits} bits; use at least {RSA_BITS}, or ssh-ed25519"
                ));
            }
            if bits > RSA_BITS_MOST || rsa.e.as_positive_bytes().map_or(0, bits_of_exponent) < 2 {
                return Err(form.into());
            }
        }
        _ => return Err(form.into()),
    }
    Ok(HostKey { line: format!("{algorithm} {encoded}"), blob: KeyBlob::new(blob) })
}

/// How many bits a big-endian number has.
fn bits(bytes: &[u8]) -> usize {
    let leading = bytes.first().map_or(0, |first| first.leading_zeros() as usize);
    bytes.len() * 8 - leading
}

/// 0 for an even exponent, which no RSA key has.
fn bits_of_exponent(bytes: &[u8]) -> usize {
    if bytes.last().is_some_and(|last| last % 2 == 1) { bits(bytes) } else { 0 }
}

impl Refusals {
    /// A list of keys, none of them twice.
    pub(super) fn keys(&mut self, field: &str, texts: &[String]) -> Vec<HostKey> {
        let mut keys: Vec<HostKey> = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let at = format!("{field}[{i}]");
            match public_key(text) {
                Err(sentence) => self.add(at, reason::INVALID_KEY, sentence),
                Ok(key) if keys.iter().any(|other| other.blob == key.blob) => {
                    self.add(at, reason::DUPLICATE, "is the same key as another of this list");
                }
                Ok(key) => keys.push(key),
            }
        }
        keys
    }
}
