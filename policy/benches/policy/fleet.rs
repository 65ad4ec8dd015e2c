//! Policies of 100,000 windows: one as a support organization has it, and some that are all of a kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use tidegate_policy::cron::Cron;
use tidegate_policy::decide::Staff;
use tidegate_policy::model::{
    Attach, Case, HostKeys, KeyBlob, Label, LabelSelector, Limits, Login, LoginUser, Mesh, Meta,
    Need, ObjectKey, Recording, Service, Terminal, TerminalSelector, UserSelector, Window,
};
use tidegate_policy::schedule::{Once, Recurring, Schedule, Zone};
use tidegate_policy::snapshot::Snapshot;

pub const WINDOWS: usize = 100_000;
const TENANTS: usize = 100;
const TERMINALS: usize = 10_000;
const USERS: usize = 1_000;
const GROUPS: usize = 20;
const SITES: usize = 1_000;

pub fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// A Monday morning on which every other window is open.
pub fn now() -> Timestamp {
    "2026-11-23T08:30:00Z".parse().unwrap()
}

fn meta(namespace: &str, name: &str) -> Meta {
    Meta {
        key: ObjectKey { namespace: label(namespace), name: label(name) },
        uid: format!("0b8a3c1e-{namespace:>8}-{name:>8}").into(),
        generation: 1,
        created: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

pub fn empty() -> Snapshot {
    Snapshot::new(Mesh {
        meta: meta("prod", "mesh"),
        domain: "support.example.com".into(),
        host_keys: HostKeys::default(),
        max_policy_age: SignedDuration::from_mins(5),
        session_retention: SignedDuration::from_hours(168),
    })
}

pub fn staff(name: &str) -> Staff {
    let source = IpAddr::from([203, 0, 113, 7]);
    Staff { login: Login::parse(name).unwrap(), key: blob(name), source }
}

/// As long as an ed25519 key is.
fn blob(name: &str) -> KeyBlob {
    KeyBlob::new(format!("{name:.<51}").into_bytes())
}

/// One of the Mesh's own.
pub fn user(name: &str, groups: &[&str]) -> LoginUser {
    LoginUser {
        meta: meta("prod", name),
        login: Login::parse(name).unwrap(),
        public_keys: vec![blob(name)],
        groups: groups.iter().map(|group| label(group)).collect(),
        valid_until: None,
        source_ranges: Vec::new(),
        suspended: false,
    }
}

pub fn terminal(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Terminal {
    let service = |name, port| Service { name: label(name), port, listen_port: None };
    Terminal {
        meta: meta(namespace, name),
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        public_keys: vec![blob(name)],
        host_keys: Vec::new(),
        services: vec![service("ssh", 22), service("web", 443)],
        owner: None,
        attach: Attach::Always,
        suspended: false,
        relays: None,
    }
}

/// Who may use a window, by name or by group.
pub enum Who<'a> {
    User(&'a str),
    Group(&'a str),
}

/// What it opens, by name or by one label.
pub enum What<'a> {
    Terminal(&'a str),
    Label(&'a str, &'a str),
}

pub fn window(namespace: &str, name: &str, who: &Who<'_>, what: &What<'_>, n: usize) -> Window {
    let mut users = UserSelector::default();
    match who {
        Who::User(name) => drop(users.names.insert(Login::parse(name).unwrap())),
        Who::Group(name) => drop(users.groups.insert(label(name))),
    }
    let mut terminals = TerminalSelector::default();
    match what {
        What::Terminal(name) => drop(terminals.names.insert(label(name))),
        What::Label(key, value) => {
            let match_labels = BTreeMap::from([((*key).into(), (*value).into())]);
            let match_expressions = Vec::new();
            terminals.selector = Some(LabelSelector { match_labels, match_expressions });
        }
    }
    Window {
        meta: meta(namespace, name),
        case: Some(Case { number: format!("{}", 40_000 + n).into(), url: None }),
        users,
        terminals,
        services: BTreeSet::from([label("ssh")]),
        schedule: schedule(n),
        consent: Need::NotRequired,
        code: Need::NotRequired,
        recording: Recording::None,
        one_time: false,
        limits: Limits { max_sessions: Some(2), ..Limits::default() },
        suspended: false,
    }
}

/// Of each four: once, running; once, to come; every working day, open; every night.
fn schedule(n: usize) -> Schedule {
    let once = |from: Timestamp| {
        Schedule::Once(Once::new(from, from + 2.hours(), Offset::constant(1)).unwrap())
    };
    let recurring = |cron: &str, hours| {
        let zone = Zone::parse(["Europe/Berlin", "America/New_York"][n / 4 % 2]).unwrap();
        let duration = SignedDuration::from_hours(hours);
        let every = Recurring::new(Cron::parse(cron).unwrap(), zone, duration).unwrap();
        Schedule::Recurring(Box::new(every))
    };
    match n % 4 {
        0 => once(now() - 1.hour()),
        1 => once(now() + 30.hours()),
        2 => recurring("0 1 * * MON-FRI", 12),
        _ => recurring("0 22 * * *", 1),
    }
}

/// The same for the same number, and otherwise as if by chance.
fn drawn(n: usize) -> usize {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

/// 100 tenants, 10,000 terminals, 1,000 users in 20 groups: two windows of three name a group, one of
/// three selects by label.
pub fn usual() -> Snapshot {
    let mut snapshot = empty();
    for n in 0..USERS {
        snapshot.put_user(user(&format!("user-{n}"), &[&format!("group-{}", n % GROUPS)]));
    }
    for n in 0..TERMINALS {
        let site = format!("site-{}", n % SITES);
        let labels = [("site", &*site), ("model", ["kiosk", "pos"][n % 2])];
        let tenant = format!("tenant-{}", n % TENANTS);
        snapshot.put_terminal(terminal(&tenant, &format!("kiosk-{n}"), &labels));
    }
    for n in 0..WINDOWS {
        let (name, tenant) = (format!("window-{n}"), format!("tenant-{}", n % TENANTS));
        let who = format!("user-{}", drawn(n) % USERS);
        let group = format!("group-{}", drawn(n) % GROUPS);
        let who = if n % 3 == 0 { Who::User(&who) } else { Who::Group(&group) };
        let kiosk = format!("kiosk-{}", n % TERMINALS);
        let site = format!("site-{}", n % SITES);
        let what = if n % 3 == 1 { What::Label("site", &site) } else { What::Terminal(&kiosk) };
        snapshot.put_window(window(&tenant, &name, &who, &what, n));
    }
    // One by name, one by group and label, one that opens tomorrow.
    snapshot.put_user(user("alice", &[]));
    snapshot.put_user(user("bob", &["field"]));
    let (alice, bob) = (Who::User("alice"), Who::Group("field"));
    snapshot.put_window(window("tenant-5", "alice", &alice, &What::Terminal("kiosk-5"), 2));
    snapshot.put_window(window("tenant-5", "bob", &bob, &What::Label("site", "site-5"), 2));
    snapshot.put_window(window("tenant-6", "later", &alice, &What::Terminal("kiosk-6"), 3));
    // A user that 1,000 windows name, and a terminal that 1,000 windows select, at once by 10.
    snapshot.put_user(user("busy", &[]));
    snapshot.put_terminal(terminal("tenant-0", "hub", &[("hub", "yes")]));
    for n in 0..1_000 {
        let (kiosk, own) = (format!("kiosk-{n}"), format!("user-{n}"));
        let both = n % 100 == 0;
        let place = if both { What::Terminal("hub") } else { What::Terminal(&kiosk) };
        let tenant = if both { "tenant-0".into() } else { format!("tenant-{}", n % TENANTS) };
        let by_user = window(&tenant, &format!("busy-{n}"), &Who::User("busy"), &place, n);
        snapshot.put_window(by_user);
        let hub = if n % 2 == 0 { What::Terminal("hub") } else { What::Label("hub", "yes") };
        snapshot.put_window(window("tenant-0", &format!("hub-{n}"), &Who::User(&own), &hub, n));
    }
    // Two that 1,000 windows bring together.
    snapshot.put_user(user("friend", &[]));
    snapshot.put_terminal(terminal("tenant-1", "home", &[]));
    for n in 0..1_000 {
        let (who, what) = (Who::User("friend"), What::Terminal("home"));
        snapshot.put_window(window("tenant-1", &format!("friend-{n}"), &who, &what, n));
    }
    snapshot
}

/// 100,000 windows of one namespace, with 10,000 terminals; `who` and `what` make each from its number.
/// `kiosk-N` is in `site-N` of the one `fleet`; `user-N` in the group `support`.
pub fn alike(one: impl Fn(&str, usize) -> Window) -> Snapshot {
    let mut snapshot = empty();
    for n in 0..USERS {
        snapshot.put_user(user(&format!("user-{n}"), &["support"]));
    }
    for n in 0..TERMINALS {
        let site = format!("site-{n}");
        let labels = [("fleet", "all"), ("site", &*site)];
        snapshot.put_terminal(terminal("acme", &format!("kiosk-{n}"), &labels));
    }
    for n in 0..WINDOWS {
        snapshot.put_window(one(&format!("window-{n}"), n));
    }
    snapshot
}
