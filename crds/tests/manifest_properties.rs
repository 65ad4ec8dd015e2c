//! Properties of the reader of manifests: whatever the bytes, it ends and never panics; how a manifest is written
//! does not change what is read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_collect,
    reason = "a test stops at the first surprise; clippy.toml knows only its functions, not their helpers"
)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate_crds::manifest::{self, Kind, MESSAGE_BYTES, Read, Rule};
use tidegate_draw::cases;

/// Far more than any of these inputs needs, on the slowest machine; a reader that is not linear takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

fn window() -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "SupportWindow",
        "metadata": {"name": "berlin", "namespace": "acme", "labels": {"site": "on", "tidegate.dev/x": "48213"}},
        "spec": {
            "case": {"number": "48213", "url": "https://cases.example.com/48213"},
            "users": {"names": ["alice", "bob.acme"], "groups": ["tier2"]},
            "terminals": {"selector": {"matchLabels": {"site": "berlin"}}},
            "services": ["ssh", "web"],
            "schedule": {"once": {"start": "2026-11-23T09:00:00+01:00", "end": "2026-11-23T11:00:00+01:00"}},
            "consent": "NotRequired",
            "limits": {"maxSessions": 2, "idleTimeout": "10m"},
            "suspend": true,
        },
    })
}

/// Things that bite: what YAML gives a meaning, and fields that are known.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(
            "apiVersion: tidegate.dev/v1alpha1\nkind: SupportWindow\nmetadata: {name: a}\n"
                .to_owned()
        ),
        Just("spec:\n".to_owned()),
        Just("  schedule:\n    recurring: ".to_owned()),
        Just("  users: {names: [".to_owned()),
        "[-?:,\\[\\]{}#&*!|>'\"%@` \n\t~<]{1,6}",
        "[ ]{0,4}(spec|users|suspend|once|start|items|metadata|kind|<<): ?",
        "[a-z0-9.+_-]{0,8}\n?",
        "(---|\\.\\.\\.)\n",
        "\\PC{0,4}",
    ]
}

/// Writes a value as YAML in one of the many ways, led by `choices`.
fn write(value: &Value, indent: usize, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    let choice = choices.next().unwrap_or(0);
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) if !choice.is_multiple_of(3) && !fields.is_empty() => {
            for (key, value) in shuffled(fields, choice) {
                out.push('\n');
                out.push_str(&pad);
                out.push_str(&text(key, choice));
                out.push_str(": ");
                write(value, indent + 1 + usize::from(choice % 4), choices, out);
            }
        }
        Value::Array(items) if !choice.is_multiple_of(3) && !items.is_empty() => {
            for item in items {
                out.push('\n');
                out.push_str(&pad);
                out.push_str("- ");
                write(item, indent + 2, choices, out);
            }
        }
        Value::Object(fields) => {
            out.push('{');
            for (key, value) in shuffled(fields, choice) {
                out.push_str(&text(key, choice));
                out.push_str(": ");
                flow(value, choice, out);
                out.push_str(", ");
            }
            out.push('}');
        }
        value => flow(value, choice, out),
    }
}

fn flow(value: &Value, choice: u8, out: &mut String) {
    match value {
        Value::String(string) => out.push_str(&text(string, choice)),
        value => out.push_str(&value.to_string()),
    }
}

fn shuffled(fields: &Map<String, Value>, choice: u8) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    let middle = usize::from(choice) % fields.len().max(1);
    fields.rotate_left(middle);
    if choice.is_multiple_of(2) {
        fields.reverse();
    }
    fields
}

fn text(text: &str, choice: u8) -> String {
    // These would be another type without quotes, or part of the syntax.
    let bare = !matches!(text, "on" | "48213") && !text.contains([':', ' ']);
    match choice % 4 {
        0 if bare => text.to_owned(),
        1 => format!("'{text}'"),
        2 => {
            text.chars().fold("\"".to_owned(), |out, c| out + &format!("\\u{:04x}", u32::from(c)))
                + "\""
        }
        _ => format!("\"{text}\""),
    }
}

fn sane(read: &Read) {
    for finding in &read.findings {
        assert!(finding.message.len() <= MESSAGE_BYTES && finding.message.is_ascii(), "{finding}");
    }
    assert!(!read.unreadable || !read.findings.is_empty());
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        sane(&manifest::read_bytes("a.yaml", &bytes));
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused(parts in proptest::collection::vec(fragment(), 0..24)) {
        sane(&manifest::read("a.yaml", &parts.concat()));
    }

    #[test]
    fn a_good_manifest_with_one_byte_changed_is_read_or_refused(at in 0_usize..2000, byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec_pretty(&window()).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        sane(&manifest::read_bytes("a.json", &bytes));
    }

    #[test]
    fn any_value_in_any_field_is_read_or_refused(
        field in proptest::sample::select(vec!["case", "users", "terminals", "services", "schedule", "consent", "limits"]),
        value in prop_oneof![
            Just(json!(null)), Just(json!(-1)), Just(json!(1e300)), Just(json!([[]])), Just(json!({"once": []})),
            Just(json!({"once": {"start": "9999-12-31T23:59:59Z", "end": "0000-01-01T00:00:00-23:59"}})),
            Just(json!({"recurring": {"cron": "* * * * *", "timeZone": "UTC", "duration": "99999h99999m999999s"}})),
            Just(json!({"names": [null]})), "\\PC{0,40}".prop_map(Value::from),
        ],
    ) {
        let mut window = window();
        window["spec"][field] = value;
        sane(&manifest::read("a.json", &window.to_string()));
    }

    #[test]
    fn the_way_a_manifest_is_written_does_not_matter(choices in proptest::collection::vec(any::<u8>(), 64)) {
        let plain = manifest::read("a.yaml", &window().to_string());
        prop_assert_eq!(&plain.findings, &[]);
        let mut yaml = String::new();
        write(&window(), 0, &mut choices.into_iter(), &mut yaml);
        let read = manifest::read("a.yaml", &yaml);
        prop_assert!(read.findings.is_empty(), "{:?}\n{}", read.findings, yaml);
        prop_assert_eq!(&read.documents[0].value, &plain.documents[0].value, "{}", yaml);
    }
}

#[test]
fn large_and_twisted_files_end_in_time() {
    #[expect(clippy::disallowed_methods, reason = "a test may look at the clock")]
    let start = Instant::now();
    let window = window().to_string();
    for (name, text) in [
        ("open brackets", "[".repeat(1 << 20)),
        ("open braces", "{a: ".repeat(1 << 20)),
        ("dashes", "- ".repeat(1 << 20)),
        ("one quote", format!("a: \"{}", "x".repeat(4 << 20))),
        ("wide map", (0..200_000).map(|n| format!("k{n}: {n}\n")).collect()),
        (
            "wide map of ours",
            format!(
                "apiVersion: tidegate.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: a}}\nspec:\n{}",
                (0..100_000).map(|n| format!("  k{n}: {n}\n")).collect::<String>()
            ),
        ),
        (
            "long list of ours",
            window.replace("[\"ssh\"", &format!("[{}\"ssh\"", "\"web\",".repeat(200_000))),
        ),
        ("too many values", "- a\n".repeat(2 << 20)),
        ("documents", "---\na\n".repeat(50_000)),
        ("broken documents", "---\n[\n".repeat(20_000)),
        ("anchors", (0..20_000).map(|n| format!("- &a{n} [*a{}]\n", n / 2)).collect()),
        ("too large", " ".repeat(manifest::FILE_BYTES + 1)),
    ] {
        let read = manifest::read("a.yaml", &text);
        assert!(!read.findings.is_empty(), "{name}");
        sane(&read);
        assert!(start.elapsed() < PATIENCE, "{name}: {:?}", start.elapsed());
        println!("{name}: {:?} {}", start.elapsed(), read.findings[0]);
    }
}

#[test]
fn many_good_documents_are_read() {
    let text: String = (0..500)
        .map(|n| {
            let mut window = window();
            window["metadata"]["name"] = json!(format!("w{n}"));
            format!("---\n{window}\n")
        })
        .collect();
    let read = manifest::read("a.yaml", &text);
    assert_eq!((read.documents.len(), read.findings.len()), (500, 0));
}

fn one_time(start: &str, spec: &Value) -> manifest::Document {
    let mut window = window();
    window["spec"]["oneTime"] = json!(true);
    window["spec"]["schedule"]["once"]["start"] = json!(start);
    for (field, value) in spec.as_object().unwrap() {
        window["spec"][field] = value.clone();
    }
    let mut read = manifest::read("a.yaml", &window.to_string());
    assert!(read.findings.is_empty(), "{:?}", read.findings);
    read.documents.remove(0)
}

#[test]
fn what_may_not_change_is_compared_with_what_was() {
    let old = one_time("2026-11-23T09:00:00+01:00", &json!({}));
    assert_eq!(manifest::validate_update(Kind::SupportWindow, &old.value, &old), []);
    let other = one_time("2026-11-23T09:00:00+01:00", &json!({"suspend": false}));
    assert_eq!(manifest::validate_update(Kind::SupportWindow, &old.value, &other), []);
    let moved = one_time("2026-11-23T09:00:01+01:00", &json!({}));
    let findings = manifest::validate_update(Kind::SupportWindow, &old.value, &moved);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].rule, Rule::Cel);
    assert_eq!(findings[0].field.as_deref(), Some("spec.schedule"));
    assert_eq!(findings[0].position.as_ref().map(|p| p.line), Some(1));
    let rearmed = one_time("2026-11-23T09:00:00+01:00", &json!({"oneTime": false}));
    let findings = manifest::validate_update(Kind::SupportWindow, &old.value, &rearmed);
    assert_eq!(findings[0].field.as_deref(), Some("spec.oneTime"));
}

#[test]
fn fields_lead_to_their_lines() {
    let text = "apiVersion: tidegate.dev/v1alpha1\nkind: SupportWindow\nmetadata:\n  name: a\nspec:\n  \
                users:\n    names:\n    - alice\n    - bob\n  terminals: {names: [k]}\n  services: [ssh]\n  \
                schedule:\n    once: {start: 2026-11-23T09:00:00Z,\n      end: 2026-11-23T10:00:00Z}\n";
    let read = manifest::read("w.yaml", text);
    assert!(read.findings.is_empty(), "{:?}", read.findings);
    let at = |field: &str| {
        let position = read.documents[0].fields.at(field);
        (position.line, position.column)
    };
    assert_eq!(at("spec.schedule.once.end"), (14, 7));
    assert_eq!(at("spec.users.names[1]"), (9, 7));
    assert_eq!(at("spec.users.names[7]"), (7, 5), "its list, where the item is not there");
    assert_eq!(at("spec.consent"), (5, 1), "its parent, where a default was filled in");
    assert_eq!(at("status.x"), (1, 1), "the document, where nothing else is near");
}

#[test]
fn findings_are_plain_json() {
    let read = manifest::read(
        "w.yaml",
        "apiVersion: tidegate.dev/v1alpha1\nkind: Mesh\nmetadata: {name: prod}\nspec: {domian: x.example.com}\n",
    );
    assert_eq!(
        serde_json::to_value(&read.findings[0]).unwrap(),
        json!({
            "file": "w.yaml", "line": 4, "column": 1,
            "object": {"kind": "Mesh", "namespace": "default", "name": "prod"},
            "field": "spec.domain", "rule": "Required", "severity": "Error",
            "message": "spec.domain: Required value",
        })
    );
}
