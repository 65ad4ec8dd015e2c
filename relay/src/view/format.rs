//! Small pieces of text: sentences, instants, ages, lines of 80 columns.

use jiff::Timestamp;
use tidegate_policy::schedule::human_utc;

/// The most bytes of a sentence.
pub(super) const LONGEST: usize = 300;
/// Columns of the terminal that is written for.
const WIDTH: usize = 80;

/// Printable ASCII alone, at most 300 bytes: anything else becomes `?`.
pub fn clean(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut clean: String = text.chars().map(printable).take(LONGEST + 1).collect();
    if clean.len() > LONGEST {
        clean.truncate(LONGEST - 3);
        clean.push_str("...");
    }
    clean
}

/// `Tue 24 Nov 22:00 UTC`: an instant that belongs to no schedule.
pub fn utc(at: Timestamp) -> String {
    human_utc(at)
}

/// `45s`, `12m`, `3h05m`, `2d04h`: how long ago, in the two largest units.
pub fn age(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let s = seconds.unsigned_abs();
    match s {
        0..60 => format!("{sign}{s}s"),
        60..3600 => format!("{sign}{}m", s / 60),
        3600..86_400 => format!("{sign}{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{sign}{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// Writes `text` behind `head`, broken at spaces so that no line is wider than the terminal; further
/// lines are indented as far. A word that is too long stands alone.
pub(super) fn wrap(out: &mut String, head: &str, text: &str) {
    let indent = head.len();
    let mut column = indent;
    out.push_str(head);
    let mut first = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !first && column + 1 + word.len() > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
            first = true;
        }
        if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
        first = false;
    }
    out.push('\n');
}
