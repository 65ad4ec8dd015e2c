//! The state against a small API server in memory: in whatever order news comes and writes are answered,
//! the statuses come out the same, and then nothing is written any more.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_crds::index::Remains;
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_draw::cases;
use tidegate_process::clock::{Boot, Now};

use super::before;
use super::news::{Arrival, News};
use super::state::{AnyStatus, FRAME, State, WRITTEN, Write, Written};

const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEBBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5f",
];

fn start() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn reference(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Objects by name, with all that an API server adds; each change is a new version.
#[derive(Clone, Default)]
struct Server {
    objects: BTreeMap<ObjectRef, Value>,
    version: u64,
    writes: usize,
}

impl Server {
    fn apply(&mut self, object: &ObjectRef, labels: &Value, spec: &Value) -> Option<Arrival> {
        self.version += 1;
        let version = self.version;
        let entry = self.objects.entry(object.clone()).or_insert_with(|| {
            let created = start() + SignedDuration::from_secs(i64::try_from(version).unwrap());
            json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": object.kind.as_str(),
                "metadata": {"name": object.name, "namespace": object.namespace,
                    "uid": format!("uid-{version}"), "generation": 0,
                    "creationTimestamp": created.to_string()},
            })
        });
        if entry.get("spec") == Some(spec) && entry["metadata"].get("labels") == Some(labels) {
            return None;
        }
        if entry.get("spec") != Some(spec) {
            let generation = entry["metadata"]["generation"].as_i64().unwrap();
            entry["metadata"]["generation"] = json!(generation + 1);
        }
        entry["spec"] = spec.clone();
        entry["metadata"]["labels"] = labels.clone();
        entry["metadata"]["resourceVersion"] = json!(version.to_string());
        Some(self.arrival(object))
    }

    fn delete(&mut self, object: &ObjectRef) -> bool {
        self.version += 1;
        self.objects.remove(object).is_some()
    }

    fn write(&mut self, write: &Write) -> (Written, Option<Arrival>) {
        let Some(object) = self.objects.get_mut(&*write.key) else { return (Written::Gone, None) };
        if object["metadata"]["uid"] != json!(write.uid) {
            return (Written::Gone, None);
        }
        let status = match &write.status {
            AnyStatus::Window(status) => serde_json::to_value(status),
            AnyStatus::User(status) => serde_json::to_value(status),
            AnyStatus::Terminal(status) => serde_json::to_value(status),
        };
        self.version += 1;
        self.writes += 1;
        object["status"] = status.unwrap();
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        (Written::As(self.version), Some(self.arrival(&write.key)))
    }

    fn arrival(&self, object: &ObjectRef) -> Arrival {
        let value = &self.objects[object];
        let metadata = &value["metadata"];
        let status = value.get("status").cloned();
        let before = match (object.kind, status) {
            (Kind::SupportWindow, Some(status)) => {
                let status: tidegate_crds::support_window::SupportWindowStatus =
                    serde_json::from_value(status).unwrap();
                before::before(&status)
            }
            (Kind::LoginUser, Some(status)) => {
                let status: tidegate_crds::login_user::LoginUserStatus =
                    serde_json::from_value(status).unwrap();
                before::before(&status)
            }
            (Kind::Terminal, Some(status)) => {
                let status: tidegate_crds::terminal::TerminalStatus =
                    serde_json::from_value(status).unwrap();
                before::before(&status)
            }
            _ => before::Before::default(),
        };
        Arrival {
            reference: object.clone(),
            uid: metadata["uid"].as_str().unwrap().into(),
            generation: metadata["generation"].as_i64().unwrap(),
            version: metadata["resourceVersion"].as_str().unwrap().parse().unwrap(),
            deleting: metadata.get("deletionTimestamp").is_some(),
            object: Object::decode(object.kind, value).map_err(|error| error.to_string()),
            remains: Remains::of(value),
            before,
        }
    }

    /// Statuses but for the times of transitions.
    fn statuses(&self) -> BTreeMap<String, Value> {
        let status = |(object, value): (&ObjectRef, &Value)| {
            let mut status = value.get("status").cloned().unwrap_or_default();
            for condition in status["conditions"].as_array_mut().into_iter().flatten() {
                condition["lastTransitionTime"] = Value::Null;
            }
            (object.to_string(), status)
        };
        let written = self.objects.iter().filter(|(object, _)| WRITTEN.contains(&object.kind));
        written.map(status).collect()
    }

    fn accepted(&self, object: &ObjectRef) -> (bool, String) {
        let conditions = self.objects[object]["status"]["conditions"].as_array().unwrap();
        let accepted = conditions.iter().find(|c| c["type"] == "Accepted").unwrap();
        (accepted["status"] == "True", accepted["reason"].as_str().unwrap().to_owned())
    }
}

/// An operator, and the news on its way to it, in order within each kind.
struct Operator {
    state: State,
    news: BTreeMap<Kind, Vec<News>>,
    answers: Vec<(Write, Written)>,
    now: Now,
    warnings: Vec<(String, &'static str)>,
}

impl Operator {
    fn new(server: &Server, now: Now) -> Self {
        let mut operator = Self {
            state: State::new(),
            news: BTreeMap::new(),
            answers: Vec::new(),
            now,
            warnings: Vec::new(),
        };
        operator.list(server, &FRAME);
        operator
    }

    fn list(&mut self, server: &Server, kinds: &[Kind]) {
        for kind in kinds {
            let mut news = vec![News::Begins];
            let objects = server.objects.keys().filter(|object| object.kind == *kind);
            news.extend(objects.map(|object| News::Listed(Box::new(server.arrival(object)))));
            news.push(News::Ends);
            self.news.insert(*kind, news);
        }
    }

    fn tell(&mut self, kind: Kind, news: News) {
        self.news.entry(kind).or_default().push(news);
    }

    /// One thing that may happen next, by `choice`; `false`: nothing can but the passing of time.
    fn step(&mut self, server: &mut Server, choice: u8) -> bool {
        if self.state.wants_list() {
            self.list(server, &WRITTEN);
            return true;
        }
        let kinds: Vec<Kind> =
            self.news.iter().filter(|(_, news)| !news.is_empty()).map(|(kind, _)| *kind).collect();
        let ways = kinds.len() + usize::from(!self.answers.is_empty()) + 1;
        let way = usize::from(choice) % ways;
        if let Some(kind) = kinds.get(way) {
            let news = self.news.get_mut(kind).unwrap().remove(0);
            self.state.hear(*kind, news, self.now.boot);
            return true;
        }
        if way == kinds.len() && !self.answers.is_empty() {
            let (write, written) = self.answers.remove(0);
            self.state.written(write, written, self.now.boot);
            return true;
        }
        if let Some(write) = self.state.next(100, self.now) {
            let (written, echo) = server.write(&write);
            if let Some((reason, _)) = &write.warning {
                self.warnings.push((write.key.to_string(), reason));
            }
            if let Some(echo) = echo {
                self.tell(write.key.kind, News::Put(Box::new(echo)));
            }
            self.answers.push((write, written));
            return true;
        }
        ways > 1
    }

    /// Until nothing happens any more, also not in the seconds to come.
    fn settle(&mut self, server: &mut Server) {
        for _ in 0..8 {
            let mut choice = 0_u8;
            for _ in 0..20_000 {
                choice = choice.wrapping_add(37);
                let quiet = self.answers.is_empty() && self.news.values().all(Vec::is_empty);
                if !self.step(server, if quiet { 0 } else { choice }) && quiet {
                    break;
                }
            }
            self.pass(Duration::from_secs(2));
        }
        assert!(self.news.values().all(Vec::is_empty) && self.answers.is_empty());
    }

    fn pass(&mut self, time: Duration) {
        self.now.boot = self.now.boot.plus(time);
        self.now.wall += SignedDuration::try_from(time).unwrap();
    }
}

fn begin() -> Now {
    Now { wall: start(), boot: Boot::from_start(Duration::from_secs(1000)) }
}

#[derive(Clone, Debug)]
enum Act {
    Mesh {
        tenants: bool,
    },
    NoMesh,
    Namespace {
        tenant: bool,
    },
    User {
        tenant: bool,
        name: usize,
        key: usize,
        group: bool,
    },
    NoUser {
        tenant: bool,
        name: usize,
    },
    Terminal {
        tenant: bool,
        name: usize,
        key: usize,
        port: Option<u16>,
        label: bool,
    },
    NoTerminal {
        tenant: bool,
        name: usize,
    },
    Window {
        tenant: bool,
        name: usize,
        user: usize,
        terminal: Option<usize>,
        group: bool,
        once: bool,
    },
    NoWindow {
        tenant: bool,
        name: usize,
    },
    Broken {
        name: usize,
    },
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn namespace(tenant: bool) -> &'static str {
    if tenant { "acme" } else { "home" }
}

impl Act {
    fn target(&self) -> ObjectRef {
        match self {
            Self::Mesh { .. } | Self::NoMesh => reference(Kind::Mesh, "home", "prod"),
            Self::Namespace { .. } => reference(Kind::Namespace, "", "acme"),
            Self::User { tenant, name, .. } | Self::NoUser { tenant, name } => {
                reference(Kind::LoginUser, namespace(*tenant), NAMES[*name])
            }
            Self::Terminal { tenant, name, .. } | Self::NoTerminal { tenant, name } => {
                reference(Kind::Terminal, namespace(*tenant), NAMES[*name])
            }
            Self::Window { tenant, name, .. } | Self::NoWindow { tenant, name } => {
                reference(Kind::SupportWindow, namespace(*tenant), NAMES[*name])
            }
            Self::Broken { name } => reference(Kind::SupportWindow, "home", NAMES[*name]),
        }
    }

    /// Labels and spec; `None`: it goes.
    fn content(&self) -> Option<(Value, Value)> {
        let none = json!({});
        Some(match self {
            Self::Mesh { tenants } => {
                let mut spec = json!({"domain": "support.example.com", "maxPolicyAge": "5m",
                    "sessionRetention": "168h"});
                if *tenants {
                    let selector = json!({"matchLabels": {"mesh": "prod"}});
                    spec["tenants"] = json!({"from": "Selector", "selector": selector});
                }
                (none, spec)
            }
            Self::Namespace { tenant } => {
                (if *tenant { json!({"mesh": "prod"}) } else { none }, json!({}))
            }
            Self::User { key, group, .. } => {
                let groups = if *group { json!(["tier2"]) } else { json!([]) };
                (none, json!({"publicKeys": [KEYS[*key]], "groups": groups, "suspend": false}))
            }
            Self::Terminal { key, port, label, .. } => {
                let mut service = json!({"name": "ssh", "port": 22});
                if let Some(port) = port {
                    service["listenPort"] = json!(port);
                }
                let labels = if *label { json!({"site": "berlin"}) } else { none };
                (
                    labels,
                    json!({"publicKeys": [KEYS[*key]], "services": [service],
                    "attach": "Always", "suspend": false}),
                )
            }
            Self::Window { user, terminal, group, once, .. } => {
                let mut users = json!({"names": [NAMES[*user]]});
                if *group {
                    users["groups"] = json!(["tier2"]);
                }
                let terminals = match terminal {
                    Some(terminal) => json!({"names": [NAMES[*terminal]]}),
                    None => json!({"selector": {"matchLabels": {"site": "berlin"}}}),
                };
                let schedule = if *once {
                    json!({"once": {"start": "2026-11-23T13:00:00Z", "end": "2026-11-23T14:00:00Z"}})
                } else {
                    json!({"recurring": {"cron": "0 22 * * *", "timeZone": "Europe/Berlin", "duration": "2h"}})
                };
                (
                    none,
                    json!({"users": users, "terminals": terminals, "services": ["ssh"],
                    "schedule": schedule, "consent": "NotRequired", "code": "NotRequired",
                    "oneTime": false, "recording": "None", "suspend": false}),
                )
            }
            Self::Broken { .. } => (none, json!({"users": "everybody"})),
            Self::NoMesh
            | Self::NoUser { .. }
            | Self::NoTerminal { .. }
            | Self::NoWindow { .. } => {
                return None;
            }
        })
    }

    fn act(&self, server: &mut Server, operator: Option<&mut Operator>) {
        let target = self.target();
        let news = match self.content() {
            Some((labels, spec)) => {
                server.apply(&target, &labels, &spec).map(|arrival| News::Put(Box::new(arrival)))
            }
            None => server.delete(&target).then(|| News::Gone(target.clone())),
        };
        // A kind that is not listed yet will be.
        if let (Some(operator), Some(news)) = (operator, news)
            && (FRAME.contains(&target.kind) || operator.news.contains_key(&target.kind))
        {
            operator.tell(target.kind, news);
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let name = || 0_usize..3;
    prop_oneof![
        1 => any::<bool>().prop_map(|tenants| Act::Mesh { tenants }),
        1 => Just(Act::NoMesh),
        1 => any::<bool>().prop_map(|tenant| Act::Namespace { tenant }),
        5 => (any::<bool>(), name(), name(), any::<bool>())
            .prop_map(|(tenant, name, key, group)| Act::User { tenant, name, key, group }),
        2 => (any::<bool>(), name()).prop_map(|(tenant, name)| Act::NoUser { tenant, name }),
        5 => (any::<bool>(), name(), name(), prop::option::of(1_u16..3), any::<bool>())
            .prop_map(|(tenant, name, key, port, label)| Act::Terminal { tenant, name, key, port, label }),
        2 => (any::<bool>(), name()).prop_map(|(tenant, name)| Act::NoTerminal { tenant, name }),
        6 => (any::<bool>(), name(), name(), prop::option::of(name()), any::<bool>(), any::<bool>())
            .prop_map(|(tenant, name, user, terminal, group, once)| {
                Act::Window { tenant, name, user, terminal, group, once }
            }),
        2 => (any::<bool>(), name()).prop_map(|(tenant, name)| Act::NoWindow { tenant, name }),
        1 => name().prop_map(|name| Act::Broken { name }),
    ]
}

/// A Mesh with one user, one terminal and one window.
fn small() -> Vec<Act> {
    vec![
        Act::Mesh { tenants: true },
        Act::Namespace { tenant: true },
        Act::User { tenant: false, name: 0, key: 0, group: false },
        Act::Terminal { tenant: false, name: 0, key: 1, port: Some(1), label: true },
        Act::Window {
            tenant: false,
            name: 0,
            user: 0,
            terminal: Some(0),
            group: false,
            once: true,
        },
    ]
}

fn run(acts: &[Act]) -> (Server, Operator) {
    let mut server = Server::default();
    for act in acts {
        act.act(&mut server, None);
    }
    let mut operator = Operator::new(&server, begin());
    operator.settle(&mut server);
    (server, operator)
}

#[test]
fn each_is_written_once_and_expired_once() {
    let (mut server, mut operator) = run(&small());
    assert_eq!(
        (server.writes, operator.warnings.as_slice()),
        (3, &[][..]),
        "{:?}",
        server.statuses()
    );
    let shown = serde_json::to_string_pretty(&server.statuses()).unwrap();
    insta::assert_snapshot!("small", shown);
    let window = reference(Kind::SupportWindow, "home", "a");
    // Nothing at the opening, nothing at the closing, Expired within a minute of it.
    for minutes in [61, 58] {
        operator.pass(Duration::from_mins(minutes));
        operator.settle(&mut server);
        assert_eq!(server.writes, 3);
    }
    operator.pass(Duration::from_mins(3));
    operator.settle(&mut server);
    assert_eq!(server.writes, 4);
    let conditions = server.objects[&window]["status"]["conditions"].to_string();
    assert!(conditions.contains("Expired"), "{conditions}");
    assert_eq!(server.objects[&window]["status"].get("nextOccurrences"), None);
    operator.pass(Duration::from_hours(100));
    operator.settle(&mut server);
    assert_eq!(server.writes, 4);
}

#[test]
fn what_is_missing_is_told_once_and_flips_as_soon_as_it_is_there() {
    let (mut server, mut operator) = run(&small());
    let window = reference(Kind::SupportWindow, "home", "a");
    Act::NoUser { tenant: false, name: 0 }.act(&mut server, Some(&mut operator));
    operator.settle(&mut server);
    assert_eq!(server.accepted(&window), (false, "UserNotFound".to_owned()));
    let told = operator.warnings.len();
    assert_eq!(told, 1);
    Act::User { tenant: false, name: 0, key: 0, group: false }
        .act(&mut server, Some(&mut operator));
    operator.settle(&mut server);
    assert_eq!(server.accepted(&window), (true, "Accepted".to_owned()));
    Act::NoUser { tenant: false, name: 0 }.act(&mut server, Some(&mut operator));
    operator.settle(&mut server);
    assert_eq!(operator.warnings.len(), told, "the same reason, the same generation");
    Act::NoTerminal { tenant: false, name: 0 }.act(&mut server, Some(&mut operator));
    operator.settle(&mut server);
    for key in [0, 2] {
        Act::User { tenant: false, name: 0, key, group: false }
            .act(&mut server, Some(&mut operator));
        operator.settle(&mut server);
        Act::NoUser { tenant: false, name: 0 }.act(&mut server, Some(&mut operator));
        operator.settle(&mut server);
    }
    let reasons: Vec<_> = operator.warnings.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, ["UserNotFound", "TerminalNotFound"], "however often it goes to and fro");
}

#[test]
fn the_first_accepted_keeps_what_it_has_also_after_a_restart() {
    let (mut server, mut operator) = run(&small());
    let (first, second) =
        (reference(Kind::LoginUser, "home", "a"), reference(Kind::LoginUser, "home", "b"));
    Act::User { tenant: false, name: 1, key: 2, group: false }
        .act(&mut server, Some(&mut operator));
    operator.settle(&mut server);
    assert!(server.accepted(&second).0);
    // The elder lets its key go, the younger takes it, the elder wants it back.
    for (name, key) in [(0, 2), (1, 0), (0, 0)] {
        Act::User { tenant: false, name, key, group: false }.act(&mut server, Some(&mut operator));
        operator.settle(&mut server);
    }
    let before = server.statuses();
    assert_eq!(server.accepted(&first).0, !server.accepted(&second).0);
    let writes = server.writes;
    let mut operator = Operator::new(&server, operator.now);
    operator.settle(&mut server);
    assert_eq!((server.statuses(), server.writes), (before, writes));
}

#[test]
fn one_that_cannot_be_decoded_is_told_and_stops_nobody() {
    let (mut server, mut operator) = run(&small());
    Act::Broken { name: 1 }.act(&mut server, Some(&mut operator));
    Act::User { tenant: false, name: 1, key: 2, group: false }
        .act(&mut server, Some(&mut operator));
    operator.settle(&mut server);
    let broken = reference(Kind::SupportWindow, "home", "b");
    assert_eq!(server.accepted(&broken), (false, "Unreadable".to_owned()));
    assert!(server.accepted(&reference(Kind::LoginUser, "home", "b")).0);
    assert_eq!(operator.warnings.len(), 1);
}

#[test]
fn what_the_server_refuses_is_not_tried_for_ever() {
    let mut server = Server::default();
    for act in &small() {
        act.act(&mut server, None);
    }
    let mut operator = Operator::new(&server, begin());
    let mut tries = 0;
    for _ in 0..2000 {
        if let Some(write) = operator.state.next(100, operator.now) {
            tries += 1;
            operator.state.written(write, Written::Refused, operator.now.boot);
        } else if !operator.step(&mut server, 0) {
            operator.pass(Duration::from_secs(1));
        }
    }
    assert_eq!((tries, server.writes), (3, 0));
}

#[test]
fn what_fails_is_tried_again_after_a_while() {
    let mut server = Server::default();
    for act in &small() {
        act.act(&mut server, None);
    }
    let mut operator = Operator::new(&server, begin());
    while operator.step(&mut server, 0) && !operator.state.is_complete() {}
    let mut waits = Vec::new();
    for _ in 0..3 {
        while let Some(write) = operator.state.next(100, operator.now) {
            waits.extend(operator.state.written(write, Written::Failed, operator.now.boot));
        }
        operator.pass(Duration::from_secs(5));
    }
    assert_eq!(waits.len(), 9);
    assert!(waits[0] <= Duration::from_secs(1) && waits[8] > Duration::from_secs(2), "{waits:?}");
    operator.settle(&mut server);
    assert_eq!(server.writes, 3);
}

#[test]
fn one_that_was_deleted_while_its_write_failed_stands_in_nobodys_way() {
    let mut server = Server::default();
    for act in &small() {
        act.act(&mut server, None);
    }
    let mut operator = Operator::new(&server, begin());
    while operator.step(&mut server, 0) && !operator.state.is_complete() {}
    let mut writes = Vec::new();
    while let Some(write) = operator.state.next(100, operator.now) {
        writes.push(write);
    }
    assert_eq!(writes.len(), 3);
    for write in &writes {
        let gone = News::Gone((*write.key).clone());
        operator.state.hear(write.key.kind, gone, operator.now.boot);
    }
    let keys: Vec<_> = writes.iter().map(|write| (*write.key).clone()).collect();
    for write in writes {
        let wait = operator.state.written(write, Written::Failed, operator.now.boot);
        assert_eq!(wait, None, "nothing is there to be tried again");
    }
    assert!(operator.state.next(100, operator.now).is_none() && operator.state.is_idle());
    for key in &keys {
        let again = News::Put(Box::new(server.arrival(key)));
        operator.state.hear(key.kind, again, operator.now.boot);
    }
    operator.settle(&mut server);
    assert_eq!(server.writes, 3);
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn any_order_of_events_ends_in_a_still_state_that_a_restart_shares(
        acts in prop::collection::vec((act(), prop::collection::vec(any::<u8>(), 0..12)), 1..30),
    ) {
        let mut server = Server::default();
        let mut operator = Operator::new(&server, begin());
        for (act, choices) in &acts {
            act.act(&mut server, Some(&mut operator));
            for choice in choices {
                operator.step(&mut server, *choice);
            }
            operator.pass(Duration::from_millis(300));
        }
        operator.settle(&mut server);
        let (statuses, writes) = (server.statuses(), server.writes);
        for (object, status) in &statuses {
            prop_assert!(status.get("conditions").is_some(), "{object} was never looked at");
        }
        // Another operator sees all at once and finds nothing to write.
        let mut other = Operator::new(&server, operator.now);
        other.settle(&mut server);
        prop_assert_eq!(server.statuses(), statuses);
        prop_assert_eq!(server.writes, writes);
        // What is accepted is exactly what is in force, so no two have one value.
        let mut held = std::collections::BTreeSet::new();
        for (object, value) in server.objects.iter().filter(|(o, _)| o.kind != Kind::SupportWindow && WRITTEN.contains(&o.kind)) {
            if server.accepted(object).0 {
                let keys = value["spec"]["publicKeys"].as_array().unwrap().iter();
                let ports = value["spec"]["services"].as_array().into_iter().flatten()
                    .filter_map(|service| service.get("listenPort"));
                for one in keys.chain(ports) {
                    prop_assert!(held.insert(one.to_string()), "{object} and another have {one}");
                }
            }
        }
    }

    #[test]
    fn without_contest_the_order_of_events_does_not_matter(
        acts in Just(small()).prop_shuffle(),
        choices in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let (expected, _) = run(&small());
        let mut server = Server::default();
        let mut operator = Operator::new(&server, begin());
        for act in &acts {
            act.act(&mut server, Some(&mut operator));
            for choice in choices.iter().take(choices.len() / acts.len()) {
                operator.step(&mut server, *choice);
            }
        }
        operator.settle(&mut server);
        prop_assert_eq!(server.statuses(), expected.statuses());
    }
}
