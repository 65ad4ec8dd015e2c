//! What the operator counts, behind one struct.
//!
//! No label carries an object's name: every label's values are a closed set of words from this code.
//! Touches nothing but memory (and `/proc/self` when rendered).

use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Each metric is registered once, with its help text, here.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leading: IntGauge,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    writes: IntCounterVec,
    objects: IntGaugeVec,
    watch_failures: IntCounterVec,
    events: IntCounterVec,
    supervisor_tasks: IntGauge,
    supervisor_panics: IntCounter,
}

/// What came of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
}

impl Outcome {
    /// The word of a result.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Done } else { Self::Failed }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counters = |name, help, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let leading = gauge("tidegate_operator_leading", "1 while this replica leads.")?;
        let reconciles = counters(
            "tidegate_operator_reconciles_total",
            "Objects that a controller looked at, by what came of it.",
            &["controller", "result"],
        )?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new(
                "tidegate_operator_reconcile_seconds",
                "How long a controller took for one object.",
            )
            .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0]),
            &["controller"],
        )?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        let writes = counters(
            "tidegate_operator_writes_total",
            "Writes that were sent to the API server, by what came of them.",
            &["result"],
        )?;
        let objects = IntGaugeVec::new(
            Opts::new("tidegate_operator_objects", "Objects that the operator knows, by kind."),
            &["kind"],
        )?;
        registry.register(Box::new(objects.clone()))?;
        let watch_failures = counters(
            "tidegate_operator_watch_failures_total",
            "Lists and watches that failed, and were begun again, by kind.",
            &["kind"],
        )?;
        let events = counters(
            "tidegate_operator_events_total",
            "Events for people, by whether they were written, joined to an earlier one, or dropped.",
            &["result"],
        )?;
        let supervisor_tasks = gauge("tidegate_operator_tasks", "Tasks that live.")?;
        let supervisor_panics =
            IntCounter::new("tidegate_operator_panics_total", "Tasks that panicked.")?;
        registry.register(Box::new(supervisor_panics.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            registry,
            leading,
            reconciles,
            reconcile_seconds,
            writes,
            objects,
            watch_failures,
            events,
            supervisor_tasks,
            supervisor_panics,
        })
    }

    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// `controller` is a word such as `mesh`.
    pub fn reconciled(&self, controller: &'static str, outcome: Outcome, took: Duration) {
        self.reconciles.with_label_values(&[controller, outcome.word()]).inc();
        self.reconcile_seconds.with_label_values(&[controller]).observe(took.as_secs_f64());
    }

    pub fn wrote(&self, outcome: Outcome) {
        self.writes.with_label_values(&[outcome.word()]).inc();
    }

    /// `kind` is the kind's own word, such as `SupportWindow`.
    pub fn set_objects(&self, kind: &'static str, count: usize) {
        self.objects.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.with_label_values(&[kind]).inc();
    }

    pub(crate) fn event(&self, result: &'static str) {
        self.events.with_label_values(&[result]).inc();
    }

    /// Brings up to date what the supervisor knows.
    pub fn set_tasks(&self, tasks: usize, panics: u64) {
        self.supervisor_tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        self.supervisor_panics.inc_by(panics.saturating_sub(self.supervisor_panics.get()));
    }

    /// The text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- begin: generated from what the operator serves -->\n";
    const END: &str = "<!-- end of the operator's -->";

    fn served() -> Metrics {
        let metrics = Metrics::new().unwrap();
        metrics.set_leading(true);
        metrics.reconciled("mesh", Outcome::Done, Duration::from_millis(3));
        metrics.wrote(Outcome::Failed);
        metrics.set_objects("Mesh", 1);
        metrics.watch_failed("Mesh");
        metrics.event("written");
        metrics.set_tasks(3, 1);
        metrics.set_tasks(2, 1);
        metrics
    }

    #[test]
    fn every_metric_is_ours_by_name() {
        let text = served().render().unwrap();
        assert!(text.contains("tidegate_operator_leading 1"), "{text}");
        assert!(text.contains("tidegate_operator_panics_total 1"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                line.starts_with("tidegate_operator_") || line.starts_with("process_"),
                "{line}"
            );
        }
    }

    /// `TIDEGATE_BLESS=1` rewrites the list. The process's own metrics are in the relay's.
    #[test]
    fn the_documented_metrics_are_the_served_ones() {
        let mut table =
            String::from("| name | type | labels | what it says |\n|---|---|---|---|\n");
        for family in served().registry.gather() {
            if family.name().starts_with("process_") {
                continue;
            }
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            let pairs = family.get_metric().first().unwrap().get_label();
            let labels: Vec<_> = pairs.iter().map(|pair| format!("`{}`", pair.name())).collect();
            let (name, help) = (family.name(), family.help());
            let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join("; "));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let doc = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = doc.split_once(BEGIN).unwrap();
        let (listed, tail) = rest.split_once(END).unwrap();
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        } else {
            assert_eq!(listed, table, "docs/metrics.md is stale: TIDEGATE_BLESS=1 cargo test");
        }
    }
}
