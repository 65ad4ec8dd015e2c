//! Small policies: three namespaces, a handful of each kind, schedules around one week.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tidegate_policy::cron::Cron;
use tidegate_policy::decide::{Request, Staff};
use tidegate_policy::model::*;
use tidegate_policy::schedule::{Once, Recurring, Schedule, Zone};
use tidegate_policy::snapshot::Snapshot;

pub const DOMAIN: &str = "support.example.com";

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Monday morning; every schedule below opens within some days of it.
pub fn monday() -> Timestamp {
    at("2026-11-23T08:00:00Z")
}

pub fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

pub fn login(text: &str) -> Login {
    Login::parse(text).unwrap()
}

pub fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: label(namespace), name: label(name) }
}

pub fn meta(namespace: &str, name: &str) -> Meta {
    let uid = format!("{namespace}/{name}").into();
    Meta { key: key(namespace, name), uid, generation: 1, created: at("2026-01-01T00:00:00Z") }
}

pub fn blob(text: &str) -> KeyBlob {
    KeyBlob::new(text.as_bytes())
}

pub fn mesh() -> Mesh {
    Mesh {
        meta: meta("prod", "mesh"),
        domain: DOMAIN.into(),
        max_policy_age: SignedDuration::from_mins(5),
        session_retention: SignedDuration::from_hours(168),
        host_keys: HostKeys::default(),
    }
}

/// Its key is its login.
pub fn user(namespace: &str, name: &str) -> LoginUser {
    let login = Login::of(&key(namespace, name), &label("prod"));
    LoginUser {
        meta: meta(namespace, name),
        public_keys: vec![blob(&login.to_string())],
        login,
        groups: BTreeSet::new(),
        valid_until: None,
        source_ranges: Vec::new(),
        suspended: false,
    }
}

pub fn service(name: &str, port: u16, listen_port: Option<u16>) -> Service {
    Service { name: label(name), port, listen_port }
}

pub fn terminal(namespace: &str, name: &str) -> Terminal {
    Terminal {
        meta: meta(namespace, name),
        labels: BTreeMap::new(),
        public_keys: vec![blob(name)],
        host_keys: Vec::new(),
        services: vec![service("ssh", 22, None), service("web", 443, None)],
        owner: None,
        attach: Attach::Always,
        suspended: false,
        relays: None,
    }
}

pub fn once(start: Timestamp, end: Timestamp) -> Schedule {
    Schedule::Once(Once::new(start, end, Offset::constant(1)).unwrap())
}

pub fn recurring(cron: &str, zone: &str, duration: SignedDuration) -> Recurring {
    Recurring::new(Cron::parse(cron).unwrap(), Zone::parse(zone).unwrap(), duration).unwrap()
}

/// Names nobody, selects nothing, open on Monday from 9 to 11 in Berlin.
pub fn window(namespace: &str, name: &str) -> Window {
    Window {
        meta: meta(namespace, name),
        case: None,
        users: UserSelector::default(),
        terminals: TerminalSelector::default(),
        services: BTreeSet::from([label("ssh")]),
        schedule: once(monday(), monday() + 2.hours()),
        consent: Need::NotRequired,
        code: Need::NotRequired,
        recording: Recording::None,
        one_time: false,
        limits: Limits::default(),
        suspended: false,
    }
}

/// A window for `users` on `terminals`.
pub fn window_for(namespace: &str, name: &str, users: &[&str], terminals: &[&str]) -> Window {
    let mut window = window(namespace, name);
    window.users.names = users.iter().map(|user| login(user)).collect();
    window.terminals.names = terminals.iter().map(|terminal| label(terminal)).collect();
    window
}

pub fn staff(of: &str) -> Staff {
    Staff { login: login(of), key: blob(of), source: IpAddr::from([203, 0, 113, 7]) }
}

pub fn request<'a>(staff: &'a Staff, host: &'a str, port: u32) -> Request<'a> {
    Request { staff, host, port, agent: false, way: None }
}

/// One change of policy.
#[derive(Clone, Debug)]
pub enum Change {
    User(LoginUser),
    Terminal(Terminal),
    Window(Box<Window>),
    NoUser(ObjectKey),
    NoTerminal(ObjectKey),
    NoWindow(ObjectKey),
}

pub fn apply(snapshot: &mut Snapshot, change: Change) {
    match change {
        Change::User(user) => snapshot.put_user(user),
        Change::Terminal(terminal) => snapshot.put_terminal(terminal),
        Change::Window(window) => snapshot.put_window(*window),
        Change::NoUser(key) => snapshot.remove_user(&key),
        Change::NoTerminal(key) => snapshot.remove_terminal(&key),
        Change::NoWindow(key) => snapshot.remove_window(&key),
    }
}

pub const USERS: &[(&str, &str)] =
    &[("prod", "alice"), ("prod", "bob"), ("acme", "bob"), ("acme", "carol"), ("beta", "dave")];
pub const LOGINS: &[&str] = &["alice", "bob", "bob.acme", "carol.acme", "dave.beta", "nobody"];
pub const TERMINALS: &[(&str, &str)] =
    &[("acme", "kiosk-1"), ("acme", "kiosk-2"), ("beta", "till-1"), ("prod", "lab-1")];
pub const PORTS: &[u32] = &[22, 443, 5900];
const GROUPS: &[&str] = &["tier1", "tier2"];
const SERVICES: &[&str] = &["ssh", "web", "vnc"];
const CRONS: &[&str] =
    &["0 9 * * MON", "30 8-18/3 * * *", "0 22 * * TUE,THU", "*/40 * * * *", "15 6 1,24 * *"];

fn labels(all: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<Label>> {
    subsequence(all, 0..=2.min(all.len())).prop_map(|names| names.into_iter().map(label).collect())
}

/// What terminals here may be labelled with, and selectors may want.
const LABELS: &[(&str, &str)] = &[("site", "berlin"), ("site", "paris"), ("model", "till")];

fn some_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    subsequence(LABELS, 0..=2)
        .prop_map(|all| all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// Of each form; an empty one matches all.
fn any_selector() -> impl Strategy<Value = LabelSelector> {
    let values = subsequence(&["berlin", "paris", "till"][..], 0..=2);
    let expression =
        (select(&["site", "model"]), values, 0..6_u8).prop_map(|(key, values, form)| {
            let values: BTreeSet<String> = values.into_iter().map(str::to_owned).collect();
            match form {
                0 => LabelRequirement::NotIn(key.into(), values),
                1 => LabelRequirement::Exists(key.into()),
                2 => LabelRequirement::DoesNotExist(key.into()),
                _ => LabelRequirement::In(key.into(), values),
            }
        });
    (some_labels(), proptest::collection::vec(expression, 0..3)).prop_map(
        |(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions },
    )
}

fn rarely() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.15)
}

fn soon() -> impl Strategy<Value = Timestamp> {
    (-2880..2880_i64).prop_map(|minutes| monday() + minutes.minutes())
}

pub fn any_user() -> impl Strategy<Value = LoginUser> {
    let until = proptest::option::weighted(0.3, soon());
    let ranges = proptest::option::weighted(0.2, select(&["203.0.113.0/24", "198.51.100.0/24"]));
    (select(USERS), labels(GROUPS), until, ranges, rarely(), rarely()).prop_map(
        |((namespace, name), groups, valid_until, range, suspended, keyless)| {
            let mut user = user(namespace, name);
            if keyless {
                user.public_keys.clear();
            }
            let source_ranges = range.into_iter().map(|range| range.parse().unwrap()).collect();
            LoginUser { groups, valid_until, source_ranges, suspended, ..user }
        },
    )
}

pub fn any_terminal() -> impl Strategy<Value = Terminal> {
    let services = subsequence(&[0_u16, 1, 2][..], 1..=3);
    (select(TERMINALS), some_labels(), services, rarely(), any::<bool>()).prop_map(
        |((namespace, name), labels, services, suspended, during)| {
            let at = TERMINALS.iter().position(|(_, other)| *other == name).unwrap();
            let base = 20_000 + 10 * u16::try_from(at).unwrap();
            let service = |n: u16| {
                let port = [22, 443, 5900][usize::from(n)];
                service(SERVICES[usize::from(n)], port, (n != 1).then_some(base + n))
            };
            Terminal {
                labels,
                services: services.into_iter().map(service).collect(),
                attach: if during { Attach::DuringWindow } else { Attach::Always },
                suspended,
                ..terminal(namespace, name)
            }
        },
    )
}

pub fn any_schedule() -> impl Strategy<Value = Schedule> {
    let once =
        (soon(), 1..2000_i64).prop_map(|(start, minutes)| once(start, start + minutes.minutes()));
    let bounds = (proptest::option::weighted(0.2, soon()), proptest::option::weighted(0.3, soon()));
    let repeated = (select(CRONS), 1..600_i64, bounds).prop_map(|(cron, minutes, (from, to))| {
        let recurring = recurring(cron, "Europe/Berlin", SignedDuration::from_mins(minutes));
        Schedule::Recurring(Box::new(Recurring { not_before: from, not_after: to, ..recurring }))
    });
    prop_oneof![once, repeated]
}

pub fn any_window() -> impl Strategy<Value = Window> {
    let terminals: Vec<&str> = TERMINALS.iter().map(|(_, name)| *name).collect();
    let users = (subsequence(LOGINS, 0..=3), labels(GROUPS));
    let selector = proptest::option::weighted(0.4, any_selector());
    let terminals = (subsequence(terminals, 0..=2), selector);
    let wants = (rarely(), rarely(), rarely(), rarely(), any::<bool>());
    let longest = proptest::option::weighted(0.3, 1..300_i64);
    let named =
        (select(&["acme", "acme", "beta", "prod"]), select(&["w1", "w2", "w3"]), 0..3_i64, 0..2_u8);
    let services = subsequence(SERVICES, 1..=2);
    (named, users, terminals, services, any_schedule(), wants, longest).prop_map(
        |(
            (namespace, name, age, uid),
            users,
            (names, selector),
            services,
            schedule,
            wants,
            longest,
        )| {
            let (consent, code, recording, suspended, one_time) = wants;
            let need = |need| if need { Need::Required } else { Need::NotRequired };
            let mut meta = meta(namespace, name);
            meta.created += age.hours();
            meta.uid = format!("{namespace}/{name}/{uid}").into();
            Window {
                meta,
                users: UserSelector {
                    names: users.0.into_iter().map(login).collect(),
                    groups: users.1,
                },
                terminals: TerminalSelector {
                    names: names.into_iter().map(label).collect(),
                    selector,
                },
                services: services.into_iter().map(label).collect(),
                schedule,
                consent: need(consent),
                code: need(code),
                recording: if recording { Recording::Endpoint } else { Recording::None },
                one_time,
                limits: Limits {
                    max_session_duration: longest.map(SignedDuration::from_mins),
                    ..Limits::default()
                },
                suspended,
                ..window(namespace, name)
            }
        },
    )
}

pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_user().prop_map(Change::User),
        4 => any_terminal().prop_map(Change::Terminal),
        8 => any_window().prop_map(|window| Change::Window(Box::new(window))),
        1 => any_user().prop_map(|user| Change::NoUser(user.meta.key)),
        1 => any_terminal().prop_map(|terminal| Change::NoTerminal(terminal.meta.key)),
        2 => any_window().prop_map(|window| Change::NoWindow(window.meta.key)),
    ]
}

/// A policy in which most requests have something to find.
pub fn any_policy() -> impl Strategy<Value = Snapshot> {
    proptest::collection::vec(change(), 4..40).prop_map(|changes| {
        let mut snapshot = Snapshot::new(mesh());
        for change in changes {
            apply(&mut snapshot, change);
        }
        snapshot
    })
}

/// The same objects put into an empty snapshot.
pub fn fresh(snapshot: &Snapshot) -> Snapshot {
    let mut fresh = Snapshot::new(snapshot.mesh().clone());
    snapshot.windows().for_each(|window| fresh.put_window(Window::clone(window)));
    snapshot.terminals().for_each(|terminal| fresh.put_terminal(Terminal::clone(terminal)));
    snapshot.users().for_each(|user| fresh.put_user(LoginUser::clone(user)));
    fresh
}

pub fn any_staff() -> impl Strategy<Value = Staff> {
    select(LOGINS).prop_map(staff)
}

/// Instants at which something may change: each edge of each occurrence near, the nanosecond before,
/// the users' ends, and some others.
pub fn edges(snapshot: &Snapshot) -> BTreeSet<Timestamp> {
    let from = monday() - 60.hours();
    let mut edges = BTreeSet::from([from, monday()]);
    for window in snapshot.windows() {
        let near =
            window.schedule.occurrences_from(from).take_while(|o| o.opens < monday() + 60.hours());
        for occurrence in near.take(12) {
            edges.extend([occurrence.opens, occurrence.closes]);
        }
    }
    edges.extend(snapshot.users().filter_map(|user| user.valid_until));
    let before: Vec<_> = edges.iter().map(|at| *at - 1.nanosecond()).collect();
    edges.extend(before);
    edges
}

/// The windows that admit, found by looking at everything there is, without an index.
pub fn admitting(
    snapshot: &Snapshot,
    staff: &Staff,
    terminal: &str,
    port: u32,
    agent: bool,
    now: Timestamp,
) -> Vec<Arc<Window>> {
    let user = snapshot.users().find(|user| user.login == staff.login);
    let terminal = snapshot.terminals().find(|other| other.meta.key.name.as_str() == terminal);
    let (Some(user), Some(terminal)) = (user, terminal) else { return Vec::new() };
    let mut ranges = user.source_ranges.iter();
    let may_enter = user.public_keys.contains(&staff.key)
        && !user.suspended
        && user.valid_until.is_none_or(|until| now < until)
        && (user.source_ranges.is_empty() || ranges.any(|range| range.contains(&staff.source)));
    let service = terminal.services.iter().find(|service| u32::from(service.port) == port);
    let Some(service) = service.filter(|_| may_enter && !terminal.suspended) else {
        return Vec::new();
    };
    let admits = |window: &&Arc<Window>| {
        let namespace = &window.meta.key.namespace;
        let group = user.groups.intersection(&window.users.groups).next().is_some();
        let home = &user.meta.key.namespace;
        let named = window.users.names.contains(&user.login) || group;
        let ours = home.as_str() == "prod" || home == namespace;
        let selected = terminal.meta.key.namespace == *namespace
            && (window.terminals.names.contains(&terminal.meta.key.name)
                || window.terminals.selector.as_ref().is_some_and(|s| s.matches(&terminal.labels)));
        let unattended = window.consent == Need::NotRequired
            && window.code == Need::NotRequired
            && window.recording == Recording::None;
        let open =
            window.schedule.occurrences_from(now - 200.hours()).take_while(|o| o.opens <= now);
        named
            && ours
            && selected
            && window.services.contains(&service.name)
            && !window.suspended
            && (agent || unattended)
            && open.into_iter().any(|occurrence| occurrence.contains(now))
    };
    snapshot.windows().filter(admits).cloned().collect()
}
