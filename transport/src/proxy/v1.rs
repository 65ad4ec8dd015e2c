//! Version 1, a line of text (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{LINE, Read, header, refused};

/// The most bytes of a line, its CR LF counted (section 2.1).
const MOST: usize = 107;

/// Reads a line; `bytes` begin with [`LINE`].
pub(super) fn read(bytes: &[u8]) -> Read {
    let seen = bytes.get(..MOST).unwrap_or(bytes);
    let end = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = seen.get(..end.unwrap_or(seen.len())).unwrap_or_default();
    if line.iter().any(|byte| !matches!(byte, b' '..=b'~')) {
        return refused("the PROXY line has bytes that are not printable ASCII");
    }
    let Some(end) = end else {
        if seen.len() == MOST {
            return refused("the PROXY line is longer than 107 bytes");
        }
        return Read::NeedMore;
    };
    match seen.get(end..).unwrap_or_default() {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if end.saturating_add(1) < MOST => return Read::NeedMore,
        _ => return refused("the PROXY line does not end with CR LF within 107 bytes"),
    }
    let consumed = end.saturating_add(2);
    let fields = line.get(LINE.len()..).unwrap_or_default();
    let fields = str::from_utf8(fields).unwrap_or_default();
    if fields == "UNKNOWN" || fields.starts_with("UNKNOWN ") {
        // What it has besides is to be ignored.
        return Read::HealthCheck { consumed };
    }
    // Two spaces in a row make an empty field, which is none of those below.
    let mut fields = fields.split(' ');
    let family = fields.next();
    let mut next = || fields.next().unwrap_or_default();
    let (source, destination, from, to) = (next(), next(), next(), next());
    if fields.next().is_some() {
        return refused("the PROXY line has more than two addresses and two ports");
    }
    let address: fn(&str) -> Option<IpAddr> = match family {
        Some("TCP4") => |text| v4(text).map(IpAddr::from),
        Some("TCP6") => |text| v6(text).map(IpAddr::from),
        _ => return refused("the PROXY line names no protocol of TCP4, TCP6 and UNKNOWN"),
    };
    let (Some(source), Some(destination)) = (address(source), address(destination)) else {
        return refused("the PROXY line has an address that is not one of its protocol");
    };
    let (Some(from), Some(to)) = (port(from), port(to)) else {
        return refused("the PROXY line has a port that is not a number from 0 to 65535");
    };
    header(SocketAddr::new(source, from), SocketAddr::new(destination, to), consumed)
}

/// Four numbers without leading zeros, which std's parser demands, too.
fn v4(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}

/// Groups of up to four hexadecimal digits with at most one `::`; proxies write an IPv4 address in
/// IPv6 with dots. A zone is no part of it, and std's parser takes none.
fn v6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok()
}

fn port(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok()?;
    // No sign, no leading zeros.
    (number.to_string() == text).then_some(number)
}
