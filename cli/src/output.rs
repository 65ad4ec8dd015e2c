//! How answers are written: tables for people, JSON and YAML for programs.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;
pub use tidegate_commands::text::{bytes, line as clean};
use tidegate_commands::{self as offline, Answer, text};

/// The form of a command's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// For programs; instants in UTC
    Json,
    /// As json, in YAML
    Yaml,
}

impl Output {
    /// The nearest form that the offline commands know.
    pub fn offline(self) -> offline::Output {
        match self {
            Self::Table | Self::Wide => offline::Output::Table,
            Self::Json | Self::Yaml => offline::Output::Json,
        }
    }
}

/// The text for programs, in ASCII, so that no terminal acts on what a name or a note holds.
pub fn structured(value: &impl Serialize, output: Output) -> String {
    if output == Output::Yaml { yaml(value) } else { ascii(&offline::json(value)) }
}

fn yaml(value: &impl Serialize) -> String {
    // Plain structs of texts and numbers: nothing in them can fail to serialise.
    let text = serde_saphyr::to_string(value).unwrap_or_default();
    text.lines().fold(String::new(), |all, line| all + &clean(line) + "\n")
}

/// JSON again, with `\u` for what is not ASCII, which only its strings can hold.
fn ascii(json: &str) -> String {
    let mut text = String::new();
    for c in json.chars() {
        if c == '\n' || c == ' ' || c.is_ascii_graphic() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The answer of an offline command, in the form that was asked for.
pub fn reshaped(answer: Answer, output: Output) -> Answer {
    if output != Output::Yaml || answer.stdout.is_empty() {
        return answer;
    }
    match serde_json::from_str::<serde_json::Value>(&answer.stdout) {
        Ok(value) => Answer { stdout: yaml(&value), ..answer },
        Err(_) => answer,
    }
}

/// Rows under upper-case heads. Cells are cleaned; an empty one becomes `-`.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &String| if text.is_empty() { "-".to_owned() } else { clean(text) };
    let rows = rows.iter().map(|row| row.iter().map(cell).collect());
    text::table(heads, &rows.collect::<Vec<_>>())
}

/// A few of many: `a,b,c+4`.
pub fn few(items: impl IntoIterator<Item = String>, output: Output) -> String {
    const SHOWN: usize = 3;
    let items: Vec<String> = items.into_iter().collect();
    let shown = if output == Output::Wide { items.len() } else { SHOWN };
    let mut text = items.iter().take(shown).cloned().collect::<Vec<_>>().join(",");
    if items.len() > shown {
        let _ = write!(text, "+{}", items.len() - shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_comes_through() {
        let text = "a\u{1b}[2J\u{202e}\u{9b}b";
        assert_eq!(
            table(&["NAME"], &[vec![text.into()], vec![String::new()]]),
            "NAME\na?[2J??b\n-\n"
        );
        for output in [Output::Json, Output::Yaml] {
            let shown = structured(&serde_json::json!({ "name": text }), output);
            assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{shown:?}");
        }
    }

    #[test]
    fn long_lists_are_cut_but_for_the_wide_form() {
        let items = || ["a", "b", "c", "d"].map(String::from);
        assert_eq!(few(items(), Output::Table), "a,b,c+1");
        assert_eq!(few(items(), Output::Wide), "a,b,c,d");
        assert_eq!(few([], Output::Table), "");
    }
}
