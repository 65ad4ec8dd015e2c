//! Version 2, binary (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::crc::crc32c;
use super::{Read, header, refused};

/// The bytes in front of the addresses: signature, version and command, family, length.
const FIXED: usize = 16;
/// The most bytes of a header. The text says that one is always smaller than an MSS and sent at once;
/// an Ethernet's is 1,460. The longest addresses and every registered TLV at its usual most, some 800
/// bytes, fit in.
pub const MOST: usize = 1460;

/// PP2_TYPE_CRC32C, section 2.2.3.
const CRC32C: u8 = 0x03;
/// PP2_TYPE_UNIQUE_ID, section 2.2.5, and the most bytes of one.
const UNIQUE_ID: u8 = 0x05;
const LONGEST_ID: usize = 128;
/// PP2_TYPE_SSL, section 2.2.6, and what stands in front of its own TLVs: client, verify.
const SSL: u8 = 0x20;
const SSL_FIXED: usize = 5;
/// Type and length of a TLV.
const TLV_FIXED: usize = 3;

/// Reads a header; `bytes` begin with the signature.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Some(command) = bytes.get(12).copied() else { return Read::NeedMore };
    let local = match command {
        0x20 => true,
        0x21 => false,
        0x22..=0x2f => {
            return refused("the PROXY header has a command that is neither LOCAL nor PROXY");
        }
        _ => return refused("the PROXY header is of a version other than 1 and 2"),
    };
    let Some(family) = bytes.get(13).copied() else { return Read::NeedMore };
    // With LOCAL the family is to be ignored.
    if !local && (family >> 4 > 3 || family & 0xf > 2) {
        return refused("the PROXY header has an address family or protocol that is not defined");
    }
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return Read::NeedMore };
    let consumed = FIXED.saturating_add(usize::from(u16::from_be_bytes([high, low])));
    if consumed > MOST {
        return refused("the PROXY header is longer than 1460 bytes");
    }
    let needed = match family {
        0x11 => 12,
        0x21 => 36,
        _ => 0,
    };
    if !local && consumed < FIXED.saturating_add(needed) {
        return refused("the PROXY header is too short for its addresses");
    }
    let Some(whole) = bytes.get(..consumed) else { return Read::NeedMore };
    if local || needed == 0 {
        return Read::HealthCheck { consumed };
    }
    let rest = whole.get(FIXED..).unwrap_or_default();
    let Some((addresses, tlvs)) = rest.split_at_checked(needed) else { return Read::NeedMore };
    if let Err(read) = check(whole, tlvs) {
        return read;
    }
    let ports = addresses.get(needed.saturating_sub(4)..).unwrap_or_default();
    let both = match family {
        0x11 => two::<4>(addresses).map(|(a, b)| (v4(a), v4(b))),
        _ => two::<16>(addresses).map(|(a, b)| (v6(a), v6(b))),
    };
    match (both, two::<2>(ports)) {
        (Some((source, destination)), Some((from, to))) => header(
            SocketAddr::new(source, u16::from_be_bytes(from)),
            SocketAddr::new(destination, u16::from_be_bytes(to)),
            consumed,
        ),
        _ => refused("the PROXY header is too short for its addresses"),
    }
}

fn v4(bytes: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(bytes).into()
}

fn v6(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).into()
}

/// Two of the same length, one behind the other.
fn two<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((*first, *rest.first_chunk()?))
}

/// One TLV: its type, its value, and what comes behind. `None`: it is longer than what there is.
fn tlv(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, high, low], rest) = bytes.split_first_chunk::<TLV_FIXED>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((kind, value, rest))
}

fn well_formed(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((_, _, rest)) = tlv(bytes) else { return false };
        bytes = rest;
    }
    true
}

/// Whether the TLVs are what they have to be; of those that are not known, their lengths.
fn check(whole: &[u8], tlvs: &[u8]) -> Result<(), Read> {
    let mut left = tlvs;
    let mut sum = None;
    while !left.is_empty() {
        let Some((kind, value, rest)) = tlv(left) else {
            return Err(refused("the PROXY header has a TLV that reaches beyond its end"));
        };
        match kind {
            CRC32C => {
                let Ok(value) = <[u8; 4]>::try_from(value) else {
                    return Err(refused("the PROXY header has a checksum that is not of 4 bytes"));
                };
                let at = whole.len().saturating_sub(rest.len()).saturating_sub(value.len());
                if sum.replace((u32::from_be_bytes(value), at)).is_some() {
                    return Err(refused("the PROXY header has two checksums"));
                }
            }
            UNIQUE_ID if value.len() > LONGEST_ID => {
                return Err(refused("the PROXY header has a unique ID of more than 128 bytes"));
            }
            SSL if !value.get(SSL_FIXED..).is_some_and(well_formed) => {
                return Err(refused("the PROXY header has an SSL TLV that is malformed"));
            }
            _ => {}
        }
        left = rest;
    }
    let Some((sum, at)) = sum else { return Ok(()) };
    let zeroed = whole
        .iter()
        .enumerate()
        .map(|(index, byte)| if (at..at.saturating_add(4)).contains(&index) { 0 } else { *byte });
    if crc32c(zeroed) == sum {
        Ok(())
    } else {
        Err(refused("the checksum of the PROXY header is wrong"))
    }
}
