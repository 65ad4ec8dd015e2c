//! Text of others in sentences of ours: printable ASCII, bounded, so that no manifest can write to a terminal.

use std::fmt::Write as _;

use serde_json::Value;

/// The most characters of a value that a sentence repeats.
const VALUE_CHARS: usize = 64;
/// The most bytes of a field path that a sentence repeats.
const PATH_BYTES: usize = 160;

fn escape_into(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        ' '..='~' => out.push(c),
        _ => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
}

/// `text` in double quotes as Go's `%+q` writes it, cut after 64 characters.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (count, c) in text.chars().enumerate() {
        if count == VALUE_CHARS {
            out.push_str("...");
            break;
        }
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        escape_into(&mut out, c);
    }
    out.push('"');
    out
}

/// `text` with nothing in it but printable ASCII.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        escape_into(&mut out, c);
    }
    out
}

/// `text` cut to at most `bytes` bytes, with dots where something is missing. `text` is ASCII.
pub(super) fn clip(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let cut: String = text.chars().take(bytes.saturating_sub(3)).collect();
    cut + "..."
}

/// A field path as sentences and findings carry it.
pub(super) fn path(path: &str) -> String {
    clip(&plain(path), PATH_BYTES)
}

/// A value as `field.Error` prints it: strings quoted, numbers and booleans bare, the rest as JSON.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            clip(&plain(&short_json(value, &mut { VALUE_CHARS })), VALUE_CHARS + 16)
        }
    }
}

/// JSON of a value, given up in the middle once it is long enough to be cut anyway.
fn short_json(value: &Value, left: &mut usize) -> String {
    if *left == 0 {
        return String::new();
    }
    let mut out = String::new();
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().take(*left).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out += &short_json(item, left);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, field)) in fields.iter().take(*left).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out += &quoted(key);
                out.push(':');
                out += &short_json(field, left);
            }
            out.push('}');
        }
        Value::String(text) => out = quoted(text),
        _ => out = value.to_string(),
    }
    *left = left.saturating_sub(out.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_bounded_printable_ascii() {
        assert_eq!(quoted("a\"b\\c\n\u{e9}\u{1b}"), r#""a\"b\\c\n\u00e9\u001b""#);
        assert_eq!(quoted(&"x".repeat(100)).len(), 64 + 5);
        assert_eq!(
            value(&serde_json::json!({"name": "ssh", "port": 22})),
            r#"{"name":"ssh","port":22}"#
        );
        assert!(value(&serde_json::json!(vec![vec!["x"; 1000]; 1000])).len() <= 80);
        assert_eq!(clip("abcdefgh", 6), "abc...");
        assert_eq!(path("spec.a\u{1b}[0m"), "spec.a\\u001b[0m");
    }
}
