//! `metadata` as the API server checks it (apimachinery `ValidateObjectMeta`), but for the name: objects of Tidegate
//! are named by RFC 1123 labels, with no dots, and never by `generateName`.

use serde_json::{Map, Value};

use super::Rule;
use super::quote::quoted;
use super::structure::Fault;

/// The longest name, namespace and label, in bytes.
const LABEL_BYTES: usize = 63;
/// The longest prefix of a label's key.
const SUBDOMAIN_BYTES: usize = 253;
/// The most bytes of all annotations of an object.
const ANNOTATIONS_BYTES: usize = 256 << 10;

/// Checks metadata that has passed its schema.
pub(super) fn check(metadata: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let text = |field: &str| metadata.get(field).and_then(Value::as_str);
    if text("generateName").is_some_and(|name| !name.is_empty()) {
        faults.push(Fault::new(
            "metadata.generateName",
            Rule::Forbidden,
            "Forbidden: an object of a directory must have a name of its own",
        ));
    }
    match text("name") {
        None | Some("") => faults.push(Fault::new(
            "metadata.name",
            Rule::Required,
            "Required value: name is required",
        )),
        Some(name) => label_name("metadata.name", name, &mut faults),
    }
    if let Some(namespace) = text("namespace").filter(|namespace| !namespace.is_empty()) {
        label_name("metadata.namespace", namespace, &mut faults);
    }
    let texts = |field: &str| metadata.get(field).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in texts("labels") {
        // The server names the whole map; the entry's own path leads to its line.
        let field = format!("metadata.labels.{key}");
        for detail in key_details(key) {
            faults.push(at(&field, "metadata.labels", key, &detail));
        }
        let value = value.as_str().unwrap_or_default();
        if value.len() > LABEL_BYTES {
            faults.push(at(&field, "metadata.labels", value, &too_long(LABEL_BYTES)));
        } else if !value.is_empty() && !name_part(value) {
            let detail = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                          '.', and must start and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', \
                          or '12345')";
            faults.push(at(&field, "metadata.labels", value, detail));
        }
    }
    let mut bytes = 0;
    for (key, value) in texts("annotations") {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let field = format!("metadata.annotations.{key}");
        for detail in key_details(&key.to_lowercase()) {
            faults.push(at(&field, "metadata.annotations", key, &detail));
        }
    }
    if bytes > ANNOTATIONS_BYTES {
        faults.push(Fault::new(
            "metadata.annotations",
            Rule::TooLong,
            format!("Too long: may not be more than {ANNOTATIONS_BYTES} bytes"),
        ));
    }
    faults
}

/// Whether `name` can be an object's name: an RFC 1123 label.
pub(super) fn is_label(name: &str) -> bool {
    name.len() <= LABEL_BYTES && !name.contains('.') && is_subdomain(name)
}

fn is_subdomain(name: &str) -> bool {
    let alphanumeric =
        |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= SUBDOMAIN_BYTES
        && name.split('.').all(|label| {
            alphanumeric(label.bytes().next())
                && alphanumeric(label.bytes().last())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

fn label_name(field: &str, name: &str, faults: &mut Vec<Fault>) {
    let detail = if name.len() > LABEL_BYTES {
        too_long(LABEL_BYTES)
    } else if is_label(name) {
        return;
    } else if is_subdomain(name) {
        "must not contain dots".to_owned()
    } else {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
         end with an alphanumeric character (e.g. 'my-name', or '123-abc')"
            .to_owned()
    };
    faults.push(Fault::invalid(field, &Value::from(name), &detail));
}

fn at(field: &str, shown: &str, value: &str, detail: &str) -> Fault {
    let mut fault = Fault::new(
        field,
        Rule::InvalidValue,
        format!("Invalid value: {}: {detail}", quoted(value)),
    );
    fault.shown = Some(shown.to_owned());
    fault
}

fn too_long(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

/// What is wrong with the key of a label or annotation (`IsLabelKey`).
fn key_details(key: &str) -> Vec<String> {
    let mut details = Vec::new();
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) => (Some(prefix), name),
    };
    if name.contains('/') {
        return vec![
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS \
             subdomain prefix and '/' (e.g. 'example.com/MyName')"
                .to_owned(),
        ];
    }
    match prefix {
        Some("") => details.push("prefix part must be non-empty".to_owned()),
        Some(prefix) if !is_subdomain(prefix) => details.push(
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
             '.', and must start and end with an alphanumeric character (e.g. 'example.com')"
                .to_owned(),
        ),
        _ => {}
    }
    if name.is_empty() {
        details.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES {
        details.push(format!("name part {}", too_long(LABEL_BYTES)));
    } else if !name_part(name) {
        details.push(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc')"
                .to_owned(),
        );
    }
    details
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn name_part(name: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    ends(name.bytes().next())
        && ends(name.bytes().last())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn details(metadata: &Value) -> Vec<String> {
        check(metadata.as_object().unwrap()).into_iter().map(|fault| fault.body).collect()
    }

    #[test]
    fn names_are_labels_without_dots() {
        for good in ["a", "kiosk-17", "0", &"x".repeat(63)] {
            assert!(details(&json!({"name": good})).is_empty(), "{good}");
        }
        for bad in ["A", "-a", "a-", "a_b", "a,b", "k*", "k\u{456}osk", "a b", &"x".repeat(64)] {
            assert_eq!(details(&json!({"name": bad})).len(), 1, "{bad}");
        }
        assert_eq!(
            details(&json!({"name": "a.b"})),
            [r#"Invalid value: "a.b": must not contain dots"#]
        );
        assert_eq!(details(&json!({})), ["Required value: name is required"]);
    }

    #[test]
    fn labels_and_annotations_are_those_of_the_server() {
        let good = json!({"name": "a", "labels": {"tidegate.dev/mesh": "prod", "site": "", "A_b.c": "x.y_Z"},
            "annotations": {"Example.com/Note": "any text \u{e9}"}});
        assert_eq!(details(&good), [""; 0]);
        for labels in [
            json!({"a b": ""}),
            json!({"/x": ""}),
            json!({"A.b/x": ""}),
            json!({"x/": ""}),
            json!({"a/b/c": ""}),
            json!({"x": "y z"}),
            json!({"x": "-"}),
        ] {
            assert_eq!(details(&json!({"name": "a", "labels": labels})).len(), 1, "{labels}");
        }
        let large = json!({"name": "a", "annotations": {"x": "y".repeat(300_000)}});
        assert_eq!(details(&large), ["Too long: may not be more than 262144 bytes"]);
    }
}
