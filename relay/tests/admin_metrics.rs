//! The names in `docs/metrics.md` are those that are served, with their types, labels and help.
//!
//! `TIDEGATE_BLESS=1 cargo test -p tidegate-relay --test admin_metrics` rewrites the list.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tidegate_policy::way::{Transport, Way};
use tidegate_relay::accept::GaveWay;
use tidegate_relay::hostkeys::Count;
use tidegate_relay::metrics::{
    ClaimResult, Closed, Direction, Metrics, ObjectKind, Opened, Proof, Role, Severity,
};

const BEGIN: &str = "<!-- begin: generated from what is served -->\n";
const END: &str = "<!-- end -->";

#[derive(Default)]
struct Served {
    help: String,
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Reads the text format as a scraper does.
fn parse(text: &str) -> BTreeMap<String, Served> {
    let mut served: BTreeMap<String, Served> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            served.entry(name.to_owned()).or_default().help = help.into();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            served.entry(name.to_owned()).or_default().kind = kind.into();
        } else if let Some((series, _value)) = line.rsplit_once(' ') {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|base| served.contains_key(*base))
                .unwrap_or(name)
                .to_owned();
            let entry = served.get_mut(&base).unwrap_or_else(|| panic!("{base} has no HELP"));
            for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
                let (label, value) = pair.split_once('=').unwrap();
                let value = value.trim_matches('"').to_owned();
                entry.labels.entry(label.to_owned()).or_default().insert(value);
            }
        }
    }
    served
}

fn table(served: &BTreeMap<String, Served>) -> String {
    let mut table = String::from("| name | type | labels | what it says |\n|---|---|---|---|\n");
    for (name, Served { help, kind, labels }) in served {
        let labels: Vec<_> = labels
            .iter()
            .filter(|(label, _)| *label != "le")
            .map(|(label, values)| {
                // One grows with the code's reasons, the other changes with each release.
                let varies =
                    ["tidegate_denies_total", "tidegate_build_info"].contains(&name.as_str());
                if varies || ["fingerprint", "port"].contains(&label.as_str()) {
                    return format!("`{label}`");
                }
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                format!("`{label}`: {}", values.join(", "))
            })
            .collect();
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join("; "));
    }
    table
}

/// All sorts of clients of two host keys.
fn host_key_counts(served: &str, announced: Option<&str>) -> Vec<Count> {
    let keys = [(Some(served), true), (announced, false)].into_iter();
    let keys = keys.filter_map(|(key, serves)| Some((key?.to_owned(), serves)));
    let sorts = [(true, true), (true, false), (false, true), (false, false)];
    keys.flat_map(|(fingerprint, serves)| {
        [Role::Staff, Role::Terminal].into_iter().flat_map(move |role| {
            let fingerprint = fingerprint.clone();
            sorts.into_iter().map(move |(connected, accepted)| Count {
                fingerprint: fingerprint.clone(),
                serves,
                role,
                connected,
                accepted,
                clients: 3,
            })
        })
    })
    .collect()
}

/// What is served once there are host keys.
fn served() -> String {
    let metrics = Metrics::new().unwrap();
    metrics.set_host_key_clients(&host_key_counts("SHA256:a", Some("SHA256:b")));
    metrics.listens(5938);
    metrics.render().unwrap()
}

#[test]
fn the_documented_metrics_are_the_served_ones() {
    let text = served();
    let table = table(&parse(&text));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let doc = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = doc.split_once(BEGIN).expect("the begin mark");
    let (listed, tail) = rest.split_once(END).expect("the end mark");
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
    } else {
        assert_eq!(listed, table, "docs/metrics.md is stale: TIDEGATE_BLESS=1 cargo test");
    }
}

#[test]
fn every_name_is_ours_or_the_process_s_and_no_label_names_an_object() {
    let text = served();
    for (name, served) in parse(&text) {
        assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
        assert!(!served.help.is_empty(), "{name} has no help");
        for label in served.labels.keys() {
            let bounded = [
                "outcome",
                "cap",
                "table",
                "room",
                "cipher",
                "method",
                "role",
                "result",
                "reason",
                "ended_by",
                "direction",
                "kind",
                "severity",
                "version",
                "le",
                "transport",
                // Of the limits by source.
                "table",
                // Of the listeners.
                "port",
                // Of the two host keys at most that are offered.
                "fingerprint",
                "offered",
                "connected",
                "accepted",
            ];
            assert!(bounded.contains(&label.as_str()), "{name} has the label {label}");
        }
    }
}

fn value(text: &str, series: &str) -> f64 {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|r| r.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{series} is not served:\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn each_method_moves_its_own_metric() {
    let m = Metrics::new().unwrap();
    m.connection_accepted();
    m.connection_closed(Closed::GaveWay);
    m.set_unauthenticated(7);
    m.evicted(GaveWay { unauthenticated: 0, per_source: 1 });
    m.authenticated(Role::Terminal, Proof::Allowed);
    m.listens(80);
    m.came(Way { port: 5938, transport: Transport::WebSocketTls });
    m.set_terminals(3, 1);
    m.open(Opened::Joined);
    m.denied("NotOpen");
    m.denied("NotOpen");
    m.claim(ClaimResult::Used);
    m.session_opened();
    m.admission(Duration::from_millis(4));
    m.session_ended("Deadline", Duration::from_millis(20));
    m.session_ended("Staff", Duration::ZERO);
    m.set_sessions(5);
    m.bytes(Direction::In, 1024);
    m.set_policy_age(-3);
    m.set_policy_objects(ObjectKind::SupportWindow, 12);
    m.set_findings(Severity::Error, 2);
    m.snapshot_applied();
    m.audit_written(8, Duration::from_millis(3));
    m.set_audit_healthy(true);
    m.set_ready(true);
    m.set_supervisor(9, 2);
    m.set_supervisor(9, 2);
    let text = m.render().unwrap();
    for (series, expected) in [
        ("tidegate_connections_accepted_total", 1.0),
        ("tidegate_connections_closed_total{outcome=\"gave_way\"}", 1.0),
        ("tidegate_connections_closed_total{outcome=\"served\"}", 0.0),
        ("tidegate_connections_unauthenticated", 7.0),
        ("tidegate_connections_proven_total{port=\"5938\",transport=\"WebSocketTLS\"}", 1.0),
        ("tidegate_connections_proven_total{port=\"80\",transport=\"SSH\"}", 0.0),
        ("tidegate_evictions_total{cap=\"per_source\"}", 1.0),
        ("tidegate_authentications_total{result=\"allowed\",role=\"terminal\"}", 1.0),
        ("tidegate_terminals_connected", 3.0),
        ("tidegate_terminals_contended", 1.0),
        ("tidegate_opens_total{result=\"joined\"}", 1.0),
        ("tidegate_denies_total{reason=\"NotOpen\"}", 2.0),
        ("tidegate_claims_total{result=\"used\"}", 1.0),
        ("tidegate_sessions_opened_total", 1.0),
        ("tidegate_admission_seconds_count", 1.0),
        ("tidegate_sessions_ended_total{ended_by=\"Deadline\"}", 1.0),
        ("tidegate_cut_overrun_milliseconds_count", 1.0),
        ("tidegate_cut_overrun_milliseconds_sum", 20.0),
        ("tidegate_cut_overrun_milliseconds_bucket{le=\"10\"}", 0.0),
        ("tidegate_cut_overrun_milliseconds_bucket{le=\"25\"}", 1.0),
        ("tidegate_sessions_current", 5.0),
        ("tidegate_session_bytes_total{direction=\"in\"}", 1024.0),
        ("tidegate_policy_age_seconds", -3.0),
        ("tidegate_policy_objects{kind=\"SupportWindow\"}", 12.0),
        ("tidegate_policy_findings{severity=\"error\"}", 2.0),
        ("tidegate_policy_snapshots_applied_total", 1.0),
        ("tidegate_audit_records_total", 8.0),
        ("tidegate_audit_fsync_seconds_count", 1.0),
        ("tidegate_audit_healthy", 1.0),
        ("tidegate_ready", 1.0),
        ("tidegate_supervisor_tasks", 9.0),
        ("tidegate_supervisor_panics_total", 2.0),
    ] {
        assert!(
            (value(&text, series) - expected).abs() < 1e-9,
            "{series} is not {expected}\n{text}"
        );
    }
}

#[test]
fn host_keys_that_are_offered_no_more_or_otherwise_have_no_series() {
    let m = Metrics::new().unwrap();
    let series = || {
        let text = m.render().unwrap();
        text.lines().filter(|line| line.starts_with("tidegate_host_key_clients{")).count()
    };
    m.set_host_key_clients(&host_key_counts("SHA256:a", Some("SHA256:b")));
    assert_eq!(series(), 16);
    m.set_host_key_clients(&host_key_counts("SHA256:b", Some("SHA256:a")));
    assert_eq!(series(), 16);
    m.set_host_key_clients(&host_key_counts("SHA256:b", None));
    assert_eq!(series(), 8);
    let text = m.render().unwrap();
    let series = "tidegate_host_key_clients{accepted=\"no\",connected=\"yes\",\
                  fingerprint=\"SHA256:b\",offered=\"served\",role=\"terminal\"}";
    assert!((value(&text, series) - 3.0).abs() < 1e-9, "{text}");
}
