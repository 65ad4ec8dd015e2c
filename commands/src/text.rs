//! Small pieces of text that every answer is made of, on the command line and in the relay's view.

use std::fmt::Write as _;

/// Columns under their heads, as wide as their widest entry, two blanks apart. No trailing blanks.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut put = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    put(&mut heads.iter().copied());
    for row in rows {
        put(&mut row.iter().map(String::as_str));
    }
    text
}

/// One row of a table.
pub fn row<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

/// One line of any length and script, without what could forge or disturb another.
pub fn line(text: &str) -> String {
    let disturbs = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    text.chars().map(|c| if disturbs(c) { '?' } else { c }).collect()
}

/// `812 B`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Tenths of the unit, in whole numbers.
    let mut tenths = count.saturating_mul(10) / 1024;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `1 file`, `2 files`.
pub fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let rows = [row([&"alice.acme", &"ssh"])];
        assert_eq!(table(&["USER", "SERVICE"], &rows), "USER        SERVICE\nalice.acme  ssh\n");
    }

    #[test]
    fn amounts_are_in_the_largest_unit() {
        let shown = [812, 1024, 1_572_864, u64::MAX].map(bytes);
        assert_eq!(shown, ["812 B", "1.0 KiB", "1.5 MiB", "1677721.5 TiB"]);
    }

    #[test]
    fn nothing_that_disturbs_a_line_is_in_it() {
        assert_eq!(line("a\u{1b}[2J\u{202e}\u{9b}b\u{f6}"), "a?[2J??b\u{f6}");
    }
}
