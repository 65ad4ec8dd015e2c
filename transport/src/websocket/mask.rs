//! The mask of RFC 6455 section 5.3.

/// Masks or unmasks in place; `phase`: how many bytes of the frame came before.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut mask = mask;
    mask.rotate_left(phase % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_what_the_rfc_says(bytes: Vec<u8>, mask: [u8; 4], phase in 0usize..9) {
            let mut masked = bytes.clone();
            super::apply(&mut masked, mask, phase);
            for (index, (now, then)) in masked.iter().zip(&bytes).enumerate() {
                prop_assert_eq!(*now, then ^ mask[(index + phase) % 4]);
            }
        }
    }
}
