//! `manifests/monitoring/alerts.yaml` names nothing that no relay serves, by the list of `docs/metrics.md`,
//! which `admin_metrics` holds to what is served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// What PromQL itself has, of what is used here.
const LANGUAGE: [&str; 9] =
    ["absent", "by", "histogram_quantile", "ignoring", "increase", "or", "rate", "sum", "without"];

#[derive(Debug, PartialEq, Eq)]
struct Metric {
    kind: String,
    /// No values: they are not listed.
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the list: name, type, labels.
fn documented() -> BTreeMap<String, Metric> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _] = cells.as_slice() else { panic!("{row}") };
        let labels = labels.split(';').map(str::trim).filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, values) = label.split_once(':').unwrap_or((label, ""));
            let values = values.split(',').map(str::trim).filter(|value| !value.is_empty());
            (name.trim_matches('`').to_owned(), values.map(str::to_owned).collect())
        });
        let metric = Metric { kind: (*kind).to_owned(), labels: labels.collect() };
        (name.trim_matches('`').to_owned(), metric)
    })
    .collect()
}

/// The metric that a name in an expression means: a histogram's has an ending.
fn metric<'a>(all: &'a BTreeMap<String, Metric>, name: &str) -> Option<&'a Metric> {
    let ended = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
    let of = |name: &str, histogram: bool| {
        all.get(name).filter(|metric| (metric.kind == "histogram") == histogram)
    };
    of(name, false).or_else(|| of(ended?, true))
}

/// What is wrong with an expression, as far as names go; and how many metrics it names.
fn wrong(all: &BTreeMap<String, Metric>, expr: &str) -> Result<usize, String> {
    let (mut count, mut last, mut labels) = (0, None, None::<String>);
    let mut rest = expr;
    let mut depth = 0;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = rest.find(|c| !word(c)).unwrap_or(rest.len()).max(first.len_utf8());
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '{' => labels = Some(last.take().ok_or("labels of nothing")?),
            '}' => drop(labels.take()),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if labels.is_some() && word(first) => {
                let name = labels.as_deref().unwrap_or_default();
                let metric = metric(all, name).ok_or_else(|| format!("no metric {name}"))?;
                let value = rest.strip_prefix("=\"").and_then(|rest| rest.split_once('"'));
                let (value, after) = value.ok_or_else(|| format!("no value of {token}"))?;
                rest = after;
                let bucket = token == "le" && metric.kind == "histogram";
                let known = metric.labels.get(token);
                if !bucket && known.is_none_or(|all| !all.is_empty() && !all.contains(value)) {
                    return Err(format!("{name} has no {token}={value:?}"));
                }
            }
            _ if first.is_ascii_alphabetic() && metric(all, token).is_some() => {
                count += 1;
                last = Some(token.to_owned());
            }
            _ if first.is_ascii_alphabetic() => {
                // Those that Prometheus itself gives each series are in no list.
                let own = ["instance", "pod", "le"].contains(&token);
                let label = own || all.values().any(|it| it.labels.contains_key(token));
                if !LANGUAGE.contains(&token) && !label {
                    return Err(format!("{token} is no metric"));
                }
            }
            _ => {}
        }
    }
    if depth == 0 && labels.is_none() { Ok(count) } else { Err("a bracket is open".into()) }
}

#[test]
fn alerts_name_what_is_served() {
    let all = documented();
    assert!(all.len() > 40, "{}", all.len());
    let file: Value = serde_saphyr::from_str(&read("manifests/monitoring/alerts.yaml")).unwrap();
    assert_eq!(file["kind"], "PrometheusRule");
    let groups = file["spec"]["groups"].as_array().unwrap();
    let names: BTreeSet<&str> = groups.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), groups.len(), "each group has a name of its own");
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let alerts: BTreeSet<&str> = rules.iter().map(|it| it["alert"].as_str().unwrap()).collect();
    assert_eq!(alerts.len(), rules.len(), "each alert has a name of its own");
    for rule in rules {
        let (name, expr) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert!(name.starts_with("Tidegate"), "{name}");
        let count = wrong(&all, expr).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(count > 0, "{name} is about no metric");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for text in ["summary", "description"] {
            let text = rule["annotations"][text].as_str().unwrap();
            assert!(text.is_ascii() && text.len() <= 300 && text.ends_with('.'), "{name}: {text}");
        }
        let known = ["alert", "expr", "for", "labels", "annotations"];
        for field in rule.as_object().unwrap().keys() {
            assert!(known.contains(&field.as_str()), "{name}: {field}");
        }
        if let Some(wait) = rule.get("for") {
            let wait = wait.as_str().unwrap();
            let (number, unit) = wait.split_at(wait.len() - 1);
            assert!(number.parse::<u32>().is_ok() && ["s", "m", "h"].contains(&unit), "{wait}");
        }
    }
}

#[test]
fn what_is_not_served_is_told() {
    let all = documented();
    let says = |expr: &str| wrong(&all, expr).unwrap_err();
    assert_eq!(says("rate(tidegate_denials_total[5m])"), "tidegate_denials_total is no metric");
    assert_eq!(says("tidegate_ready_bucket"), "tidegate_ready_bucket is no metric");
    assert_eq!(says("tidegate_admission_seconds > 1"), "tidegate_admission_seconds is no metric");
    let wanted = "tidegate_claims_total has no result=\"failed\"";
    assert_eq!(says("tidegate_claims_total{result=\"failed\"}"), wanted);
    assert_eq!(says("sum(tidegate_ready"), "a bracket is open");
    assert_eq!(wrong(&all, "tidegate_ready == 0 or tidegate_barred > 5"), Ok(2));
}
