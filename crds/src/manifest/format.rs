//! `format` of strings, as k8s.io/kube-openapi (`validation/strfmt`) checks those that our schemas use. What it lets
//! through that Tidegate does not (a leap second, a year 0) is refused by `compile`.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil::Date;

/// The formats that are checked; the server ignores those it does not know, and so do we.
#[cfg(test)]
pub(super) const KNOWN: &[&str] =
    &["date-time", "date", "ipv4", "ipv6", "cidr", "uuid", "int32", "int64", "double", "float"];

pub(super) fn matches(format: &str, text: &str) -> bool {
    match format {
        "date-time" => date_time(text),
        "date" => date(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => uuid(text),
        _ => true,
    }
}

/// `YYYY-MM-DD`, a day that exists.
fn date(text: &str) -> bool {
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shaped && text.parse::<Date>().is_ok()
}

/// A date, `T`, `HH:MM:SS`, perhaps a fraction, then `Z` or an offset; case does not matter.
fn date_time(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let Some((day, time)) = lower.split_once('t') else { return false };
    let Some((clock, rest)) = time.split_at_checked(8) else { return false };
    let two =
        |from: usize| clock.get(from..from + 2).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    let (Some(hour), Some(minute), Some(second)) = (two(0), two(3), two(6)) else { return false };
    let colons = clock.get(2..3) == Some(":") && clock.get(5..6) == Some(":");
    let digits = rest
        .strip_prefix('.')
        .map_or(0, |fraction| fraction.bytes().take_while(u8::is_ascii_digit).count() + 1);
    let offset = rest.get(digits..).unwrap_or_default();
    date(day)
        && colons
        && hour <= "23"
        && minute <= "59"
        && second <= "59"
        && digits != 1
        && (offset == "z" || numeric_offset(offset))
}

/// `+HH:MM` or `-HH:MM`.
fn numeric_offset(text: &str) -> bool {
    text.len() == 6
        && text.bytes().enumerate().all(|(place, byte)| match place {
            0 => byte == b'+' || byte == b'-',
            3 => byte == b':',
            _ => byte.is_ascii_digit(),
        })
}

fn uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for good in [
            "2026-11-23T09:00:00+01:00",
            "2026-11-23t09:00:00z",
            "2026-11-23T23:59:59.123456789Z",
            "2024-02-29T00:00:00-00:00",
        ] {
            assert!(matches("date-time", good), "{good}");
        }
        for bad in [
            "",
            "t",
            "2026-11-23",
            "2026-11-23 09:00:00Z",
            "2026-11-23T09:00:00",
            "2026-11-23T09:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T09:00:60Z",
            "2026-11-23T09:00:00.Z",
            "2026-11-23T09:00:00+01",
            "2026-02-29T09:00:00Z",
            "20261123T090000Z",
            "2026-11-23T09:00:\u{e9}Z",
        ] {
            assert!(!matches("date-time", bad), "{bad}");
        }
        assert!(
            matches("date", "2026-12-24")
                && !matches("date", "20261224")
                && !matches("date", "2026-13-01")
        );
    }
}
