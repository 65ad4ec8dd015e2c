//! Random bytes from a seed.

use aws_lc_rs::digest::{SHA256, digest};
use tidegate_ssh::Random;
use tidegate_ssh::random::NoRandom;

/// The same bytes for the same seed.
#[derive(Clone, Copy, Debug)]
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        for part in bytes.chunks_mut(32) {
            self.0 = self.0.wrapping_add(1);
            part.copy_from_slice(&digest(&SHA256, &self.0.to_be_bytes()).as_ref()[..part.len()]);
        }
        Ok(())
    }
}
