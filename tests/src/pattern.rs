//! The bytes that are sent: known in advance at every offset, so that making them costs the machine
//! nothing and each that arrives is compared with what it has to be. That is more than a checksum
//! says, at the price of a memcmp.

use std::sync::OnceLock;

/// After this many bytes it repeats: a prime, so that no piece that is lost, doubled or out of place
/// leaves the rest in step.
const PERIOD: usize = 1_048_573;
/// The longest piece that is sent or compared at once.
pub const PIECE: usize = 256 << 10;

/// The `length` bytes from offset `at` on; at most [`PIECE`].
pub fn piece(at: u64, length: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mut state = 0_u64;
        let words = std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        });
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take(PERIOD).collect();
        bytes.extend_from_within(..PIECE);
        bytes
    });
    let from = usize::try_from(at % PERIOD as u64).expect("less than PERIOD");
    &bytes[from..from + length]
}

/// How far the bytes are right that have come so far.
#[derive(Default)]
pub struct Check {
    pub at: u64,
}

impl Check {
    /// Compares the next bytes; at most [`PIECE`].
    pub fn next(&mut self, bytes: &[u8]) -> Result<(), String> {
        if piece(self.at, bytes.len()) != bytes {
            return Err(format!(
                "other bytes than were sent, within {} of {}",
                bytes.len(),
                self.at
            ));
        }
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_lost_doubled_or_changed_is_seen() {
        let mut check = Check::default();
        for at in (0..5_000_000).step_by(PIECE) {
            check.next(piece(at, PIECE)).expect("the right bytes");
        }
        for wrong in [check.at - 32_768, check.at + 32_768, check.at + 1, check.at + (1 << 20)] {
            check.next(piece(wrong, PIECE)).expect_err("bytes of another place");
        }
        let mut changed = piece(check.at, PIECE).to_vec();
        changed[PIECE - 1] ^= 1;
        check.next(&changed).expect_err("a changed byte");
    }
}
