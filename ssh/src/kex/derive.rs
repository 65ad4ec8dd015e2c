//! The exchange hash and the keys that are drawn from it.

use std::hint::black_box;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of an exchange hash.
pub const HASH: usize = 32;

/// The exchange hash in the making (RFC 4253 section 8, RFC 5656 section 4):
/// HASH(V_C || V_S || I_C || I_S || K_S || Q_C || Q_S || K), everything but K a `string`.
#[derive(Clone)]
pub struct Exchange(Context);

impl Exchange {
    /// From both version lines (without CR LF) and both KEXINITs (whole messages), client's first.
    pub fn new(lines: [&[u8]; 2], offers: [&[u8]; 2]) -> Self {
        let mut exchange = Self(Context::new(&SHA256));
        for part in lines.into_iter().chain(offers) {
            exchange.string(part);
        }
        exchange
    }

    fn string(&mut self, bytes: &[u8]) {
        self.0.update(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.update(bytes);
    }

    /// H, from our host key, both shares, client's first, and K as it is encoded (RFC 4253 section 8).
    pub fn finish(mut self, host_key: &[u8], shares: [&[u8]; 2], secret: &[u8]) -> [u8; HASH] {
        self.string(host_key);
        for share in shares {
            self.string(share);
        }
        self.0.update(secret);
        bytes(&self.0.finish())
    }
}

fn bytes(digest: &Digest) -> [u8; HASH] {
    // SHA-256 has 32 bytes.
    digest.as_ref().try_into().unwrap_or_default()
}

/// What was hashed, where that is a secret itself. aws-lc wipes the context as it frees it.
pub(super) fn secret(context: Context) -> Zeroizing<[u8; HASH]> {
    let mut digest = context.finish();
    let mut secret = Zeroizing::new([0; HASH]);
    for (to, from) in secret.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    wipe(&mut digest);
    secret
}

/// aws-lc's digests do not wipe themselves: this one is written over where it lies.
fn wipe(digest: &mut Digest) {
    // With its address known elsewhere, as far as the compiler can tell, the write has to happen.
    *black_box(&mut *digest) = Context::new(&SHA256).finish();
    black_box(digest);
}

/// Whose packets keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ClientToServer,
    ServerToClient,
}

/// The bytes that one direction's cipher is made of (RFC 4253 section 7.2), wiped when they go.
pub struct Secrets {
    /// As much of it as the cipher wants, from the front.
    pub key: [u8; 64],
    pub iv: [u8; 12],
}

impl Secrets {
    /// `secret` is K as it is encoded, `hash` H of this exchange, `session` H of the first.
    pub fn derive(
        direction: Direction,
        secret: &[u8],
        hash: &[u8; HASH],
        session: &[u8; HASH],
    ) -> Self {
        let (iv, key) = match direction {
            Direction::ClientToServer => (b'A', b'C'),
            Direction::ServerToClient => (b'B', b'D'),
        };
        let mut secrets = Self { key: [0; 64], iv: [0; 12] };
        fill(&mut secrets.iv, iv, secret, hash, session);
        fill(&mut secrets.key, key, secret, hash, session);
        secrets
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl ZeroizeOnDrop for Secrets {}

/// K1 = HASH(K || H || letter || session_id); what is longer goes on with Kn = HASH(K || H || K1 || ...
/// || Kn-1).
fn fill(out: &mut [u8], letter: u8, shared: &[u8], hash: &[u8], session: &[u8]) {
    let mut start = Context::new(&SHA256);
    start.update(shared);
    start.update(hash);
    let mut first = start.clone();
    first.update(&[letter]);
    first.update(session);
    let mut block = secret(first);
    for part in out.chunks_mut(HASH) {
        for (to, from) in part.iter_mut().zip(block.iter()) {
            *to = *from;
        }
        start.update(block.as_ref());
        block = secret(start.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_wiped_when_they_go() {
        fn is_wiped<T: ZeroizeOnDrop>(_: &T) {}
        is_wiped(&Secrets::derive(Direction::ClientToServer, b"K", &[1; HASH], &[2; HASH]));
        let context = || {
            let mut context = Context::new(&SHA256);
            context.update(b"K");
            context
        };
        let made: Zeroizing<[u8; HASH]> = secret(context());
        let mut digest = context().finish();
        assert_eq!(digest.as_ref(), made.as_ref());
        wipe(&mut digest);
        assert!(digest.as_ref() != made.as_ref());
    }
}
