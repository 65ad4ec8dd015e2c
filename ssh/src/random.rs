//! Where random bytes come from: the system, or in tests a seed.

/// No random bytes were to be had; no keys are made then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the source of random bytes failed")]
pub struct NoRandom;

/// A source of bytes that nobody can guess: cookies, private keys and padding come from it.
///
/// Two things do not, since aws-lc takes no source for them: the encapsulation of ML-KEM and the
/// nonces of ECDSA signatures. Runs with the other methods and an ed25519 host key are the same for
/// the same source.
pub trait Random: Send {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom>;
}

/// The generator of aws-lc, seeded by the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| NoRandom)
    }
}
