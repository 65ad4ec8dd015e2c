//! What the relay counts, behind one struct. `docs/metrics.md` lists every name; a test compares.
//!
//! No label carries a user, a terminal or an object's name: every label's values are a closed set of
//! words from this code. Touches nothing but memory (and `/proc/self` when rendered).

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use tidegate_crds::manifest;
use tidegate_policy::way::{Transport, Way};

use crate::accept::GaveWay;
use crate::claim::Claimed;
use crate::hostkeys::Count;
use crate::lock::lock;
use crate::ssh::{Cipher, Kex, Negotiated, Shortage};

/// Each metric is registered once, with its help text, here.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections_accepted: IntCounter,
    connections_closed: IntCounterVec,
    connections_unauthenticated: IntGauge,
    evictions: IntCounterVec,
    unproven: IntCounterVec,
    sources: IntGaugeVec,
    barred: IntGauge,
    barred_turned_away: IntCounter,
    opened_too_fast: IntCounter,
    no_room: IntCounterVec,
    authentications: IntCounterVec,
    ways: IntCounterVec,
    key_exchanges: IntCounterVec,
    ciphers: IntCounterVec,
    not_strict: IntCounter,
    host_key_clients: IntGaugeVec,
    /// The labels of its series.
    host_keys: Mutex<BTreeSet<[String; 5]>>,
    terminals_connected: IntGauge,
    terminals_contended: IntGauge,
    opens: IntCounterVec,
    denies: IntCounterVec,
    claims: IntCounterVec,
    sessions_current: IntGauge,
    sessions_opened: IntCounter,
    sessions_ended: IntCounterVec,
    sessions_unpublished: IntGauge,
    bytes: IntCounterVec,
    held_back: IntCounterVec,
    cut_overrun: Histogram,
    admission: Histogram,
    policy_age: IntGauge,
    policy_watch_age: IntGaugeVec,
    policy_events: IntCounterVec,
    policy_lists: IntCounterVec,
    policy_troubles: IntCounterVec,
    policy_objects: IntGaugeVec,
    policy_findings: IntGaugeVec,
    snapshots_applied: IntCounter,
    audit_records: IntCounter,
    audit_fsync: Histogram,
    audit_healthy: IntGauge,
    ready: IntGauge,
    supervisor_tasks: IntGauge,
    supervisor_panics: IntCounter,
}

/// A closed set of label values.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// How a connection ended.
    Closed {
        /// Proved a key and left, or was closed, in good order.
        Served = "served",
        /// A proven key that may not enter now.
        NotAdmitted = "not_admitted",
        /// No key was proved within the login's grace.
        LoginTimeout = "login_timeout",
        /// Left, or was refused every key, before proving one.
        Unauthenticated = "unauthenticated",
        /// Spoke no SSH that we understand.
        Protocol = "protocol",
        /// A proxy looked whether somebody is there.
        HealthCheck = "health_check",
        /// A web client, which got its answer.
        Answered = "answered",
        /// Gave way to a newcomer at a cap.
        GaveWay = "gave_way",
        /// Two keepalives went unanswered.
        Dead = "dead",
        /// The relay closed it: cut, takeover, drain, too many refusals.
        Disconnected = "disconnected",
    }
}

words! {
    /// Whose key it was.
    Role { Staff = "staff", Terminal = "terminal", Unknown = "unknown" }
}

words! {
    /// What came of an authentication.
    Proof {
        Allowed = "allowed",
        /// The key is known, and may not enter now.
        Barred = "barred",
        /// No key was proved that anyone here has.
        Refused = "refused",
    }
}

words! {
    /// Why a connection ended before a key was proven; also the code of its line in the audit.
    Unproven {
        /// It left, or was refused every key.
        UnknownKey = "UnknownKey",
        LoginTimeout = "LoginTimeout",
        NotSsh = "NotSsh",
        GaveWay = "GaveWay",
        TooManyHandshakes = "TooManyHandshakes",
        TooManyKeyProbes = "TooManyKeyProbes",
    }
}

words! {
    /// The tables that are kept of sources.
    Sources {
        Exchanges = "exchanges",
        KeyProbes = "key_probes",
        Refusals = "refusals",
        AtTheDoor = "at_the_door",
    }
}

words! {
    /// What came of a staff channel; `tidegate_denies_total` says why.
    Opened { Joined = "joined", Refused = "refused" }
}

words! {
    /// What came of a claim on a limited window.
    ClaimResult {
        Unlimited = "unlimited",
        Taken = "taken",
        Full = "full",
        Used = "used",
        Unavailable = "unavailable",
    }
}

words! {
    /// Where there was no room for a channel.
    Room {
        /// Its connection has as many as it may.
        Connection = "connection",
        /// The memory of all windows is used up.
        Windows = "windows",
    }
}

words! {
    /// Which cap made a connection give way.
    Cap { Unauthenticated = "unauthenticated", PerSource = "per_source" }
}

words! {
    /// Kinds of policy objects.
    ObjectKind {
        Mesh = "Mesh",
        Relay = "Relay",
        LoginUser = "LoginUser",
        Terminal = "Terminal",
        SupportWindow = "SupportWindow",
    }
}

words! {
    /// How grave a finding is.
    Severity { Error = "error", Note = "note" }
}

words! {
    /// Which way bytes went.
    Direction {
        /// From staff to terminal.
        In = "in",
        Out = "out",
    }
}

/// Values of SupportSession's `status.endedBy`.
const ENDED_BY: &[&str] =
    &["Staff", "Terminal", "Customer", "Deadline", "Revoked", "Cut", "Idle", "Drain", "Fault"];

/// Milliseconds. Invariant 2 promises at most 1000.
const OVERRUN_BUCKETS: &[f64] = &[1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500.];
/// Seconds.
const ADMISSION_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1., 2.5, 10.];
const FSYNC_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1., 5.];

/// The kinds that are watched in a cluster.
fn watched() -> impl Iterator<Item = &'static str> {
    let kinds = manifest::Kind::OWN.into_iter().chain([manifest::Kind::Namespace]);
    kinds.map(manifest::Kind::as_str)
}

/// Registers as it makes.
struct Maker(Registry);

impl Maker {
    fn own<C>(&self, collector: C) -> Result<C, prometheus::Error>
    where
        C: prometheus::core::Collector + Clone + 'static,
    {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.own(IntCounter::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.own(IntGauge::new(name, help)?)
    }

    /// Every value of the label exists from the start, at zero: an absent series alerts nobody.
    fn counters<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let vec = self.own(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in values {
            vec.get_metric_with_label_values(&[value])?;
        }
        Ok(vec)
    }

    fn gauges<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let vec = self.own(IntGaugeVec::new(Opts::new(name, help), &[label])?)?;
        for value in values {
            vec.get_metric_with_label_values(&[value])?;
        }
        Ok(vec)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.own(Histogram::with_opts(options)?)
    }
}

impl Metrics {
    /// Fails only if two metrics have one name, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let m = Maker(registry.clone());
        let build = m.own(IntGaugeVec::new(
            Opts::new("tidegate_build_info", "Always 1; the version is in the label."),
            &["version"],
        )?)?;
        build.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);

        let authentications = m.own(IntCounterVec::new(
            Opts::new(
                "tidegate_authentications_total",
                "Finished authentications, by whose key it was and what came of it.",
            ),
            &["role", "result"],
        )?)?;
        for role in Role::ALL {
            for result in Proof::ALL {
                authentications.get_metric_with_label_values(&[role.word(), result.word()])?;
            }
        }

        let ways = m.own(IntCounterVec::new(
            Opts::new(
                "tidegate_connections_proven_total",
                "Connections that proved a key, by the port that they came to and what they speak there.",
            ),
            &["port", "transport"],
        )?)?;

        Ok(Self {
            registry,
            authentications,
            ways,
            key_exchanges: m.counters(
                "tidegate_ssh_key_exchanges_total",
                "Peers that proved a key, by the method of their first key exchange.",
                "method",
                Kex::ALL.map(Kex::name),
            )?,
            ciphers: m.counters(
                "tidegate_ssh_ciphers_total",
                "Peers that proved a key, by the cipher of what they send.",
                "cipher",
                Cipher::ALL.map(Cipher::name),
            )?,
            not_strict: m.counter(
                "tidegate_ssh_not_strict_total",
                "Peers that proved a key and do not know strict key exchange.",
            )?,
            connections_accepted: m.counter(
                "tidegate_connections_accepted_total",
                "TCP connections accepted on the listeners.",
            )?,
            connections_closed: m.counters(
                "tidegate_connections_closed_total",
                "Connections that ended, by how.",
                "outcome",
                Closed::ALL.iter().map(|w| w.word()),
            )?,
            connections_unauthenticated: m.gauge(
                "tidegate_connections_unauthenticated",
                "Connections that have not proved a key yet.",
            )?,
            evictions: m.counters(
                "tidegate_evictions_total",
                "Connections before authentication that gave way to a newcomer, by the cap.",
                "cap",
                Cap::ALL.iter().map(|w| w.word()),
            )?,
            unproven: m.counters(
                "tidegate_unproven_total",
                "Connections that ended before a key was proven, by why.",
                "reason",
                Unproven::ALL.iter().map(|w| w.word()),
            )?,
            sources: m.gauges(
                "tidegate_sources",
                "Source prefixes, and addresses of them, of which something is kept, by the table.",
                "table",
                Sources::ALL.iter().map(|w| w.word()),
            )?,
            barred: m.gauge(
                "tidegate_barred",
                "Connections of known keys that may not enter now, and are told so.",
            )?,
            barred_turned_away: m.counter(
                "tidegate_barred_turned_away_total",
                "Connections of such keys that were closed at once, since the key had enough.",
            )?,
            opened_too_fast: m.counter(
                "tidegate_opens_too_fast_total",
                "Channels that were refused, since their peer opened them too fast.",
            )?,
            no_room: m.counters(
                "tidegate_opens_without_room_total",
                "Channels that were refused, since there was no room for them, by what there was none of.",
                "room",
                Room::ALL.iter().map(|w| w.word()),
            )?,
            host_key_clients: m.own(IntGaugeVec::new(
                Opts::new(
                    "tidegate_host_key_clients",
                    "Clients of the policy that have logged in, by whether they have accepted a host key that is offered.",
                ),
                &["fingerprint", "offered", "role", "connected", "accepted"],
            )?)?,
            host_keys: Mutex::default(),
            terminals_connected: m.gauge(
                "tidegate_terminals_connected",
                "Terminals that are connected to this replica.",
            )?,
            terminals_contended: m.gauge(
                "tidegate_terminals_contended",
                "Terminals whose name two live connections fight for.",
            )?,
            opens: m.counters(
                "tidegate_opens_total",
                "Channels that staff asked for, by what came of them.",
                "result",
                Opened::ALL.iter().map(|w| w.word()),
            )?,
            denies: m.counters(
                "tidegate_denies_total",
                "Refusals of authenticated peers, by the reason's code.",
                "reason",
                ["NotOpen", "UnknownTerminal"],
            )?,
            claims: m.counters(
                "tidegate_claims_total",
                "Claims on support windows, by what came of them.",
                "result",
                ClaimResult::ALL.iter().map(|w| w.word()),
            )?,
            sessions_current: m
                .gauge("tidegate_sessions_current", "Sessions that live on this replica.")?,
            sessions_opened: m
                .counter("tidegate_sessions_opened_total", "Sessions that were admitted.")?,
            sessions_ended: m.counters(
                "tidegate_sessions_ended_total",
                "Sessions that ended, by who or what ended them.",
                "ended_by",
                ENDED_BY.iter().copied(),
            )?,
            sessions_unpublished: m.gauge(
                "tidegate_sessions_unpublished",
                "In a cluster: sessions whose begin or end the API server has not been told of yet.",
            )?,
            bytes: m.counters(
                "tidegate_session_bytes_total",
                "Bytes forwarded in sessions; in is from staff to terminal.",
                "direction",
                Direction::ALL.iter().map(|w| w.word()),
            )?,
            held_back: m.counters(
                "tidegate_session_bytes_held_back_total",
                "Bytes in sessions whose sender was given window later, for bandwidthPerSession.",
                "direction",
                Direction::ALL.iter().map(|w| w.word()),
            )?,
            cut_overrun: m.histogram(
                "tidegate_cut_overrun_milliseconds",
                "By how much sessions ran past their deadline; 1000 is the promise.",
                OVERRUN_BUCKETS,
            )?,
            admission: m.histogram(
                "tidegate_admission_seconds",
                "From a staff channel's request until it was joined to the terminal's.",
                ADMISSION_BUCKETS,
            )?,
            policy_watch_age: m.gauges(
                "tidegate_policy_watch_age_seconds",
                "In a cluster: since the API server last showed that this kind is as it is known here, by kind.",
                "kind",
                watched(),
            )?,
            policy_events: m.counters(
                "tidegate_policy_events_total",
                "In a cluster: objects that changed or went, by kind.",
                "kind",
                watched(),
            )?,
            policy_lists: m.counters(
                "tidegate_policy_lists_total",
                "In a cluster: lists that were begun, by kind.",
                "kind",
                watched(),
            )?,
            policy_troubles: m.counters(
                "tidegate_policy_watch_failures_total",
                "In a cluster: lists and watches that failed, by kind.",
                "kind",
                watched(),
            )?,
            policy_age: m.gauge(
                "tidegate_policy_age_seconds",
                "Since the last complete look at the policy's source.",
            )?,
            policy_objects: m.gauges(
                "tidegate_policy_objects",
                "Objects in force, by kind.",
                "kind",
                ObjectKind::ALL.iter().map(|w| w.word()),
            )?,
            policy_findings: m.gauges(
                "tidegate_policy_findings",
                "What is wrong with the policy's source now, by severity.",
                "severity",
                Severity::ALL.iter().map(|w| w.word()),
            )?,
            snapshots_applied: m.counter(
                "tidegate_policy_snapshots_applied_total",
                "Snapshots of the policy that came into force.",
            )?,
            audit_records: m
                .counter("tidegate_audit_records_total", "Audit lines that are durable.")?,
            audit_fsync: m.histogram(
                "tidegate_audit_fsync_seconds",
                "How long one group of audit lines took to become durable.",
                FSYNC_BUCKETS,
            )?,
            audit_healthy: m.gauge(
                "tidegate_audit_healthy",
                "1 while audit lines can be written; at 0 nobody new is admitted.",
            )?,
            ready: m.gauge("tidegate_ready", "1 while /readyz says yes.")?,
            supervisor_tasks: m
                .gauge("tidegate_supervisor_tasks", "Tasks that the supervisor looks after.")?,
            supervisor_panics: m.counter(
                "tidegate_supervisor_panics_total",
                "Tasks that ended in a panic; each is a defect to report.",
            )?,
        })
    }

    pub fn connection_accepted(&self) {
        self.connections_accepted.inc();
    }

    pub fn connection_closed(&self, outcome: Closed) {
        self.connections_closed.with_label_values(&[outcome.word()]).inc();
    }

    pub fn set_unauthenticated(&self, now: usize) {
        set(&self.connections_unauthenticated, now);
    }

    pub fn evicted(&self, more: GaveWay) {
        for (cap, more) in
            [(Cap::Unauthenticated, more.unauthenticated), (Cap::PerSource, more.per_source)]
        {
            self.evictions.with_label_values(&[cap.word()]).inc_by(more);
        }
    }

    pub fn unproven(&self, why: Unproven) {
        self.unproven.with_label_values(&[why.word()]).inc();
    }

    pub fn set_sources(&self, table: Sources, count: usize) {
        set(&self.sources.with_label_values(&[table.word()]), count);
    }

    pub fn set_barred(&self, now: usize) {
        set(&self.barred, now);
    }

    pub fn barred_turned_away(&self) {
        self.barred_turned_away.inc();
    }

    pub fn opened_too_fast(&self) {
        self.opened_too_fast.inc();
    }

    pub fn no_room(&self, shortage: Shortage) {
        let room = match shortage {
            Shortage::Channels => Room::Connection,
            Shortage::Memory => Room::Windows,
        };
        self.no_room.with_label_values(&[room.word()]).inc();
    }

    pub fn authenticated(&self, role: Role, result: Proof) {
        self.authentications.with_label_values(&[role.word(), result.word()]).inc();
    }

    /// What is listened on: the values of the label `port`.
    pub fn listens(&self, port: u16) {
        for transport in Transport::ALL {
            self.ways.with_label_values(&[&port.to_string(), transport.as_str()]);
        }
    }

    /// By which way a peer came that proved a key.
    pub fn came(&self, way: Way) {
        self.ways.with_label_values(&[&way.port.to_string(), way.transport.as_str()]).inc();
    }

    /// What a peer that proved a key had agreed on with us.
    pub fn key_exchange(&self, negotiated: &Negotiated) {
        self.key_exchanges.with_label_values(&[negotiated.kex.name()]).inc();
        self.ciphers.with_label_values(&[negotiated.cipher_in.name()]).inc();
        if !negotiated.strict {
            self.not_strict.inc();
        }
    }

    /// All that is to be told of host keys: series of others go.
    pub fn set_host_key_clients(&self, counts: &[Count]) {
        let word = |yes| if yes { "yes" } else { "no" };
        let mut told = lock(&self.host_keys);
        let mut now = BTreeSet::new();
        for count in counts {
            let offered = if count.serves { "served" } else { "announced" };
            let (connected, accepted) = (word(count.connected), word(count.accepted));
            let labels =
                [count.fingerprint.as_str(), offered, count.role.word(), connected, accepted];
            set(&self.host_key_clients.with_label_values(&labels), count.clients);
            now.insert(labels.map(str::to_owned));
        }
        for labels in told.difference(&now) {
            // It was there.
            let _ =
                self.host_key_clients.remove_label_values(&labels.each_ref().map(String::as_str));
        }
        *told = now;
    }

    pub fn set_terminals(&self, connected: usize, contended: usize) {
        set(&self.terminals_connected, connected);
        set(&self.terminals_contended, contended);
    }

    pub fn open(&self, result: Opened) {
        self.opens.with_label_values(&[result.word()]).inc();
    }

    /// `code` is a word of this code, such as `policy::decide::Reason::code`; never made at run time.
    pub fn denied(&self, code: &'static str) {
        self.denies.with_label_values(&[code]).inc();
    }

    pub fn claim(&self, result: ClaimResult) {
        self.claims.with_label_values(&[result.word()]).inc();
    }

    pub fn session_opened(&self) {
        self.sessions_opened.inc();
    }

    /// From the channel's request to its joined channel.
    pub fn admission(&self, took: Duration) {
        self.admission.observe(took.as_secs_f64());
    }

    /// `ended_by` is a value of `status.endedBy`. `overrun` is observed only where a deadline cut.
    pub fn session_ended(&self, ended_by: &'static str, overrun: Duration) {
        self.sessions_ended.with_label_values(&[ended_by]).inc();
        if ended_by == "Deadline" {
            self.cut_overrun.observe(overrun.as_secs_f64() * 1000.0);
        }
    }

    pub fn set_sessions(&self, current: usize) {
        set(&self.sessions_current, current);
    }

    pub fn set_unpublished(&self, records: usize) {
        set(&self.sessions_unpublished, records);
    }

    pub fn bytes(&self, direction: Direction, count: u64) {
        self.bytes.with_label_values(&[direction.word()]).inc_by(count);
    }

    pub fn held_back(&self, direction: Direction, count: u64) {
        self.held_back.with_label_values(&[direction.word()]).inc_by(count);
    }

    /// Of one kind that is watched in a cluster; `None`: not known.
    pub fn set_policy_watch_age(&self, kind: manifest::Kind, age: Option<Duration>) {
        let seconds = age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        self.policy_watch_age.with_label_values(&[kind.as_str()]).set(seconds);
    }

    pub fn policy_event(&self, kind: manifest::Kind) {
        self.policy_events.with_label_values(&[kind.as_str()]).inc();
    }

    pub fn policy_list(&self, kind: manifest::Kind) {
        self.policy_lists.with_label_values(&[kind.as_str()]).inc();
    }

    pub fn policy_trouble(&self, kind: manifest::Kind) {
        self.policy_troubles.with_label_values(&[kind.as_str()]).inc();
    }

    /// Whole seconds; a negative age is a clock that was set back.
    pub fn set_policy_age(&self, seconds: i64) {
        self.policy_age.set(seconds);
    }

    pub fn set_policy_objects(&self, kind: ObjectKind, count: usize) {
        set(&self.policy_objects.with_label_values(&[kind.word()]), count);
    }

    pub fn set_findings(&self, severity: Severity, count: usize) {
        set(&self.policy_findings.with_label_values(&[severity.word()]), count);
    }

    pub fn snapshot_applied(&self) {
        self.snapshots_applied.inc();
    }

    /// One group of `records` lines became durable.
    pub fn audit_written(&self, records: u64, fsync: Duration) {
        self.audit_records.inc_by(records);
        self.audit_fsync.observe(fsync.as_secs_f64());
    }

    pub fn set_audit_healthy(&self, healthy: bool) {
        self.audit_healthy.set(i64::from(healthy));
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// `panics` counts from the process's start.
    pub fn set_supervisor(&self, tasks: usize, panics: u64) {
        set(&self.supervisor_tasks, tasks);
        self.supervisor_panics.inc_by(panics.saturating_sub(self.supervisor_panics.get()));
    }

    /// The text format that Prometheus scrapes.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl From<&Claimed> for ClaimResult {
    fn from(claimed: &Claimed) -> Self {
        match claimed {
            Claimed::Free => Self::Unlimited,
            Claimed::Taken(_) => Self::Taken,
            Claimed::Full { .. } => Self::Full,
            Claimed::Used { .. } => Self::Used,
            Claimed::Unavailable { .. } | Claimed::Away { .. } | Claimed::Uncertain { .. } => {
                Self::Unavailable
            }
        }
    }
}

impl From<manifest::Severity> for Severity {
    fn from(severity: manifest::Severity) -> Self {
        match severity {
            manifest::Severity::Error => Self::Error,
            manifest::Severity::Note => Self::Note,
        }
    }
}

fn set(gauge: &IntGauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
