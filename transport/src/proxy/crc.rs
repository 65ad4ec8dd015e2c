//! CRC32c as RFC 4960 appendix B has it, bit by bit: it is made once for a header, of some hundred
//! bytes.

/// The polynomial of Castagnoli, its bits turned round.
const POLYNOMIAL: u32 = 0x82f6_3b78;

pub(super) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn makes_the_published_check_values() {
        let of = |bytes: &[u8]| super::crc32c(bytes.iter().copied());
        assert_eq!(of(b"123456789"), 0xe306_9283);
        // RFC 3720 appendix B.4.
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(of(&[0xff; 32]), 0x62a8_ab43);
    }
}
