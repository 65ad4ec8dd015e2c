//! The algorithms that we have, by the names of their specifications.

/// Methods of key exchange, the one that we would rather have first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kex {
    /// draft-ietf-sshm-mlkem-hybrid-kex section 2.
    MlKem768X25519,
    /// RFC 8731.
    Curve25519,
    /// The same under the name that it had before the RFC.
    Curve25519Libssh,
    /// RFC 5656 section 4, on NIST P-256.
    NistP256,
}

impl Kex {
    pub const ALL: [Self; 4] =
        [Self::MlKem768X25519, Self::Curve25519, Self::Curve25519Libssh, Self::NistP256];

    pub fn name(self) -> &'static str {
        match self {
            Self::MlKem768X25519 => "mlkem768x25519-sha256",
            Self::Curve25519 => "curve25519-sha256",
            Self::Curve25519Libssh => "curve25519-sha256@libssh.org",
            Self::NistP256 => "ecdh-sha2-nistp256",
        }
    }
}

/// Algorithms of host keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostKeyAlgorithm {
    /// RFC 8709.
    Ed25519,
    /// RFC 5656 section 3, on NIST P-256.
    EcdsaP256,
}

impl HostKeyAlgorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
        }
    }
}

/// Ciphers; all of them authenticate what they encrypt, so that no MAC is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// RFC 5647 as OpenSSH's PROTOCOL section 1.6 has it.
    Aes128Gcm,
    /// The same with a key of 32 bytes.
    Aes256Gcm,
    /// OpenSSH's PROTOCOL.chacha20poly1305.
    ChaCha20Poly1305,
}

impl Cipher {
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Aes256Gcm => "aes256-gcm@openssh.com",
            Self::ChaCha20Poly1305 => "chacha20-poly1305@openssh.com",
        }
    }
}

/// What a key exchange agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub kex: Kex,
    pub host_key: HostKeyAlgorithm,
    /// Of what the peer sends.
    pub cipher_in: Cipher,
    /// Of what we send.
    pub cipher_out: Cipher,
    /// Whether both sides exchange keys strictly (draft-miller-sshm-strict-kex). Without it the
    /// peer is served, and named in the audit.
    pub strict: bool,
    /// Whether the peer asked for EXT_INFO (RFC 8308 section 2.1).
    pub ext_info: bool,
}
