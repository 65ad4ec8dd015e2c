//! What a scalar of YAML means, as `kubectl` reads it: through sigs.k8s.io/yaml, so by the rules of go-yaml v2
//! (`resolve.go`) and then through JSON. Unquoted `yes`, `on` and `y` are booleans, `010` is eight, `48213` is a
//! number, a time is a string.

use serde_json::{Number, Value};

/// The value of an unquoted scalar. `None` for a number that JSON does not have (`.inf`, `.nan`).
pub(super) fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(Value::Bool(false));
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return None,
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'.') => float(text),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let digits = text.replace('_', "");
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    };
    Some(number.map_or_else(|| Value::from(text), Value::Number))
}

/// `strconv.ParseInt(text, 0, 64)`: a sign, then 0x, 0o, 0b or a bare 0 for octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match (prefix.as_deref(), digits) {
        (Some("0x"), _) => (16, digits.get(2..)?),
        (Some("0o"), _) => (8, digits.get(2..)?),
        (Some("0b"), _) => (2, digits.get(2..)?),
        (Some(_), _) if digits.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude).map(Number::from)
    } else {
        Some(Number::from(magnitude))
    }
}

/// Decimal floats only; a whole one is written to JSON without its point and so becomes an integer.
fn float(text: &str) -> Option<Number> {
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let shaped = rest.bytes().any(|b| b.is_ascii_digit())
        && rest.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.')
        && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let parsed = shaped.then(|| text.parse::<f64>().ok()).flatten().filter(|f| f.is_finite())?;
    whole(parsed).map(Number::from).or_else(|| Number::from_f64(parsed))
}

/// The integer that `float` is, if it is one that both sides can hold.
pub(super) fn whole(float: f64) -> Option<i64> {
    // 2^53: below it every whole f64 is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if float.fract() != 0.0 || float.abs() > EXACT {
        return None;
    }
    format!("{float:.0}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_mean_what_kubectl_reads() {
        for (text, value) in [
            ("yes", json!(true)),
            ("On", json!(true)),
            ("n", json!(false)),
            ("yES", json!("yES")),
            ("~", json!(null)),
            ("", json!(null)),
            ("48213", json!(48213)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("010", json!(8)),
            ("0o10", json!(8)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("08", json!(8)),
            ("0", json!(0)),
            ("1_000", json!(1000)),
            ("1e3", json!(1000)),
            ("2.0", json!(2)),
            ("2.5", json!(2.5)),
            (".5", json!(0.5)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("12:30", json!("12:30")),
            ("2026-11-23T09:00:00+01:00", json!("2026-11-23T09:00:00+01:00")),
            ("2026-12-24", json!("2026-12-24")),
            ("1e400", json!("1e400")),
            ("-", json!("-")),
            ("+", json!("+")),
            (".", json!(".")),
            ("0x", json!("0x")),
            ("--1", json!("--1")),
            ("1.2.3", json!("1.2.3")),
            ("ssh-ed25519 AAAA", json!("ssh-ed25519 AAAA")),
            ("\u{e9}", json!("\u{e9}")),
            ("0\u{e9}", json!("0\u{e9}")),
        ] {
            assert_eq!(plain(text), Some(value), "{text}");
        }
        assert_eq!(plain(".inf"), None);
        assert_eq!(plain("-.Inf"), None);
    }
}
