//! Key exchange: what each method does with the client's share, and the keys that follow.

use zeroize::Zeroize;

/// The bytes that one direction's cipher is made of (RFC 4253 section 7.2), wiped when they go.
pub(crate) struct Secrets {
    /// As much of it as the cipher wants, from the front.
    pub key: [u8; 64],
    pub iv: [u8; 12],
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}
