//! Strict readers of timestamps, dates and durations, and the cleaning of text that people are shown.
//!
//! The text is checked before jiff parses it: jiff alone takes `:60`, year 0000, `+01`, `[Zone]`,
//! `20261224`, `2h ago`, `PT2H`, `1ns` and more.

use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// Why a text is not what it should be: one clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadText(pub String);

/// An RFC 3339 timestamp: `2026-11-23T09:00:00+01:00`, `T` and `Z` in upper case, seconds to 59,
/// an optional fraction of 1 to 9 digits, years from 0001, offsets to 23:59.
pub fn timestamp(text: &str) -> Result<Timestamp, BadText> {
    timestamp_and_offset(text).map(|(at, _)| at)
}

/// A [`timestamp`] and the offset in which it was written; `Z` is zero.
pub fn timestamp_and_offset(text: &str) -> Result<(Timestamp, Offset), BadText> {
    let bad = || {
        BadText(format!(
            "'{}' is not an RFC 3339 timestamp; write it as in 2026-11-23T09:00:00+01:00",
            shown(text, 60)
        ))
    };
    let read = || {
        if !text.is_ascii() {
            return None;
        }
        let (date, rest) = text.split_at_checked(10)?;
        let date = civil_date(date)?;
        let (time, rest) = rest.split_at_checked(9)?;
        let hour = digits(time.strip_prefix('T')?.get(..2)?, 23)?;
        let minute = digits(time.get(3..)?.strip_prefix(':')?.get(..2)?, 59)?;
        let second = digits(time.get(6..)?.strip_prefix(':')?, 59)?;
        let (nanosecond, zone) = match rest.strip_prefix('.') {
            None => (0, rest),
            Some(rest) => {
                let end = rest.find(|c: char| !c.is_ascii_digit())?;
                let (fraction, zone) = rest.split_at_checked(end)?;
                if !(1..=9).contains(&fraction.len()) {
                    return None;
                }
                (format!("{fraction:0<9}").parse::<i32>().ok()?, zone)
            }
        };
        let offset = if zone == "Z" {
            Offset::UTC
        } else {
            let (sign, rest) = zone.split_at_checked(1)?;
            let (hours, minutes) = rest.split_once(':')?;
            let seconds =
                i32::from(digits(hours, 23)?) * 3600 + i32::from(digits(minutes, 59)?) * 60;
            match sign {
                "+" => Offset::from_seconds(seconds).ok()?,
                "-" => Offset::from_seconds(-seconds).ok()?,
                _ => return None,
            }
        };
        let at = offset.to_timestamp(date.at(hour, minute, second, nanosecond)).ok()?;
        Some((at, offset))
    };
    read().ok_or_else(bad)
}

/// A date: `2026-12-24`, years from 0001.
pub fn date(text: &str) -> Result<Date, BadText> {
    civil_date(text).ok_or_else(|| {
        BadText(format!("'{}' is not a date; write it as in 2026-12-24", shown(text, 60)))
    })
}

/// A duration in whole hours, minutes and seconds, in that order, each at most once: `2h30m`. Its
/// bounds are its user's business; it is never negative.
pub fn duration(text: &str) -> Result<SignedDuration, BadText> {
    let read = || {
        let mut rest = text;
        let mut seconds = 0_i64;
        for (unit, size) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((count, after)) = rest.split_once(unit) else { continue };
            let good = (1..=9).contains(&count.len()) && count.bytes().all(|b| b.is_ascii_digit());
            if !good {
                return None;
            }
            seconds += count.parse::<i64>().ok()? * size;
            rest = after;
        }
        (rest.is_empty() && !text.is_empty()).then(|| SignedDuration::from_secs(seconds))
    };
    read().ok_or_else(|| {
        BadText(format!(
            "'{}' is not a duration; write whole hours, minutes and seconds as in 2h30m",
            shown(text, 60)
        ))
    })
}

/// A duration as [`duration`] reads it, the parts that are zero left out: `2h30m`, `45m`, `0s`. A
/// fraction of a second is dropped.
pub fn show_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let mut text = String::new();
    for (count, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")] {
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Text of unknown origin as a sentence may carry it: printable ASCII, `?` for anything else, at most
/// `longest` bytes (3 or more), cut ones ending in `...`.
pub fn shown(text: &str, longest: usize) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut clean: String = text.chars().take(longest + 1).map(printable).collect();
    if clean.len() > longest {
        clean.truncate(longest.saturating_sub(3));
        clean.push_str("...");
    }
    clean
}

/// Exactly two digits, at most `most`.
fn digits(text: &str, most: i8) -> Option<i8> {
    let good = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    let value = if good { text.parse::<i8>().ok()? } else { return None };
    (value <= most).then_some(value)
}

fn civil_date(text: &str) -> Option<Date> {
    let shape =
        |(at, b): (usize, u8)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() };
    if text.len() != 10 || !text.bytes().enumerate().all(shape) {
        return None;
    }
    let year = text.get(..4)?.parse::<i16>().ok().filter(|year| *year >= 1)?;
    Date::new(year, digits(text.get(5..7)?, 12)?, digits(text.get(8..)?, 31)?).ok()
}
