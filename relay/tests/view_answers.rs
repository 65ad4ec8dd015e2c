//! What the view says, as whole texts, and what it keeps to itself.
//!
//! `INSTA_UPDATE=always cargo test -p tidegate-relay --test view_answers` rewrites the snapshots.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use insta::assert_snapshot;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;
use tidegate_draw::cases;
use tidegate_policy::cron::Cron;
use tidegate_policy::decide::{Candidate, Decision, Request, Staff, decide};
use tidegate_policy::model::{
    Attach, Case, KeyBlob, Label, Limits, Login, LoginUser, Mesh, Meta, Need, ObjectKey, Recording,
    Service, Terminal, TerminalSelector, UserSelector, Window,
};
use tidegate_policy::schedule::{Once, Recurring, Schedule, Zone};
use tidegate_policy::snapshot::Snapshot;
use tidegate_relay::history::{Entry, Kind};
use tidegate_relay::view::{
    Asked, Command, Flaw, Input, Output, Presence, SessionView, WindowRef, answer, attached_as,
    refused,
};

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn meta(namespace: &str, name: &str) -> Meta {
    Meta {
        key: ObjectKey { namespace: label(namespace), name: label(name) },
        uid: format!("uid-{name}").into(),
        generation: 1,
        created: at("2026-01-01T00:00:00Z"),
    }
}

fn key(name: &str) -> KeyBlob {
    KeyBlob::new(name.as_bytes().to_vec())
}

fn user(name: &str) -> LoginUser {
    let meta = meta("tidegate", name);
    LoginUser {
        login: Login::of(&meta.key, &label("tidegate")),
        public_keys: vec![key(name)],
        groups: BTreeSet::from([label("tier2")]),
        valid_until: Some(at("2026-12-31T23:00:00Z")),
        source_ranges: Vec::new(),
        suspended: false,
        meta,
    }
}

fn terminal(name: &str, listen_port: u16) -> Terminal {
    let service = |name, port, listen_port| Service { name: label(name), port, listen_port };
    Terminal {
        meta: meta("acme", name),
        labels: BTreeMap::new(),
        public_keys: vec![key(name)],
        host_keys: Vec::new(),
        services: vec![
            service("ssh", 22, Some(listen_port)),
            service("web", 443, None),
            service("vnc", 5900, None),
        ],
        owner: None,
        attach: Attach::Always,
        suspended: false,
        relays: None,
    }
}

fn weekly() -> Schedule {
    let cron = Cron::parse("0 22 * * TUE,THU").unwrap();
    let zone = Zone::parse("Europe/Berlin").unwrap();
    Schedule::Recurring(Box::new(
        Recurring::new(cron, zone, SignedDuration::from_hours(2)).unwrap(),
    ))
}

fn once(start: &str, end: &str) -> Schedule {
    let offset = jiff::tz::offset(1);
    Schedule::Once(Once::new(at(start), at(end), offset).unwrap())
}

fn window(name: &str, users: &[&str], terminals: &[&str], schedule: Schedule) -> Window {
    Window {
        meta: meta("acme", name),
        case: Some(Case { number: "48213".into(), url: None }),
        users: UserSelector {
            names: users.iter().map(|user| Login::parse(user).unwrap()).collect(),
            groups: BTreeSet::new(),
        },
        terminals: TerminalSelector {
            names: terminals.iter().map(|name| label(name)).collect(),
            selector: None,
        },
        services: BTreeSet::from([label("ssh"), label("web")]),
        schedule,
        consent: Need::NotRequired,
        code: Need::NotRequired,
        recording: Recording::None,
        one_time: false,
        limits: Limits::default(),
        suspended: false,
    }
}

/// Tuesday, half an hour into the weekly window.
const NOW: &str = "2026-11-24T21:30:00Z";

struct World {
    snapshot: Arc<Snapshot>,
    staff: Staff,
    now: Timestamp,
    sessions: Vec<SessionView>,
    history: Vec<Entry>,
    findings: Vec<Flaw>,
    full: Option<&'static str>,
    closed: Option<&'static str>,
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::new(Mesh {
        meta: meta("tidegate", "prod"),
        domain: "support.example.com".into(),
        max_policy_age: SignedDuration::from_mins(5),
        session_retention: SignedDuration::from_hours(168),
        host_keys: tidegate_policy::model::HostKeys::default(),
    });
    snapshot.put_user(user("alice"));
    snapshot.put_user(user("bob"));
    snapshot.put_user(user("carol"));
    for (index, name) in ["kiosk-17", "kiosk-18", "kiosk-19", "vault"].into_iter().enumerate() {
        snapshot.put_terminal(terminal(name, 20017 + u16::try_from(index).unwrap()));
    }
    let mut maintenance = window("berlin-maint", &["alice"], &["kiosk-17", "kiosk-18"], weekly());
    maintenance.limits = Limits {
        max_sessions: Some(2),
        max_session_duration: Some(SignedDuration::from_mins(45)),
        idle_timeout: Some(SignedDuration::from_mins(10)),
    };
    snapshot.put_window(maintenance);
    let (start, end) = ("2027-11-23T08:00:00Z", "2027-11-23T10:00:00Z");
    let mut later = window("inspection", &["alice"], &["kiosk-19"], once(start, end));
    later.one_time = true;
    later.case = None;
    snapshot.put_window(later);
    let (start, end) = ("2026-11-20T08:00:00Z", "2026-11-20T10:00:00Z");
    snapshot.put_window(window("old", &["alice"], &["kiosk-17"], once(start, end)));
    let mut paused = window("paused", &["alice"], &["kiosk-18"], weekly());
    paused.suspended = true;
    snapshot.put_window(paused);
    snapshot.put_window(window("secret", &["bob"], &["vault", "kiosk-17"], weekly()));
    snapshot
}

fn session(user: &str, terminal: &str) -> SessionView {
    SessionView {
        name: format!("ss-0199b3c0-0000-7000-8000-{:0>12}", terminal.len()),
        window: WindowRef {
            namespace: "acme".to_owned(),
            name: "berlin-maint".to_owned(),
            uid: "uid-berlin-maint".to_owned(),
        },
        opens_at: at("2026-11-24T21:00:00Z"),
        user: user.to_owned(),
        terminal: terminal.to_owned(),
        service: "ssh".to_owned(),
        case: Some("48213".to_owned()),
        relay_pod: "relay-0".to_owned(),
        opened_at: at("2026-11-24T21:05:00Z"),
        deadline: at("2026-11-24T21:50:00Z"),
        source: "203.0.113.9".parse().unwrap(),
        bytes_in: 812,
        bytes_out: 1_500_000,
    }
}

fn world(login: &str) -> World {
    let refusal = "no open support window for alice on kiosk-17/ssh";
    let mut refusal =
        Entry::refused(at("2026-11-24T20:50:00Z"), "KIOSK-17", "ssh", "NotOpen", refusal);
    refusal.count = 3;
    let ended = Entry {
        kind: Kind::Ended,
        code: "Deadline".to_owned(),
        sentence: "support window acme/berlin-maint closed".to_owned(),
        session: Some("ss-0199b3c0-0000-7000-8000-000000000001".to_owned()),
        time: at("2026-11-19T23:00:00Z"),
        terminal: "kiosk-17".to_owned(),
        count: 1,
        ..refusal.clone()
    };
    let x11 = Entry::refused(at("2026-11-24T20:51:00Z"), "", "", "NotServed", "x11 is not served");
    World {
        snapshot: Arc::new(snapshot()),
        staff: Staff {
            login: Login::parse(login).unwrap(),
            key: key(login),
            source: "203.0.113.9".parse().unwrap(),
        },
        now: at(NOW),
        sessions: vec![session("alice", "kiosk-17"), session("bob", "vault")],
        history: vec![ended, refusal, x11],
        findings: vec![
            Flaw {
                kind: "SupportWindow".to_owned(),
                namespace: "acme".to_owned(),
                name: "berlin-maint".to_owned(),
                message: "spec.suspnd: strict decoding error: unknown field".to_owned(),
            },
            Flaw {
                kind: "SupportWindow".to_owned(),
                namespace: "acme".to_owned(),
                name: "secret".to_owned(),
                message: "SECRET spec.users".to_owned(),
            },
        ],
        full: None,
        closed: None,
    }
}

impl World {
    fn answer(&self, asked: &Asked) -> Output {
        let from: SocketAddr = "198.51.100.7:40222".parse().unwrap();
        let presence = |name: &Label| match name.as_str() {
            "kiosk-17" => Presence::Connected {
                since: at("2026-11-24T20:58:00Z"),
                from,
                services: vec![label("ssh")],
                client: "SSH-2.0-OpenSSH_9.2".to_owned(),
                contended: false,
            },
            "kiosk-18" => Presence::LastSeen { at: at("2026-11-23T20:58:00Z"), from },
            "vault" => panic!("asked about a terminal that alice may not know of"),
            _ => Presence::Never,
        };
        let claimable = |_: &Candidate| self.full.map_or(Ok(()), |full| Err(full.to_owned()));
        let input = Input {
            snapshot: &self.snapshot,
            staff: &self.staff,
            now: self.now,
            relay: "eu",
            port: 5938,
            presence: &presence,
            claimable: &claimable,
            sessions: &self.sessions,
            history: &self.history,
            findings: &self.findings,
            policy_age: SignedDuration::from_secs(12),
            closed: self.closed,
        };
        answer(&input, asked)
    }

    fn exec(&self, line: &str) -> Output {
        self.answer(&Asked::exec(line, false))
    }

    /// Status and both streams, as one text.
    fn shown(&self, line: &str) -> String {
        let Output { stdout, stderr, exit } = self.exec(line);
        let stderr = if stderr.is_empty() { stderr } else { format!("stderr: {stderr}") };
        format!("$ {line}\n{stdout}{stderr}exit {exit}\n")
    }
}

#[test]
fn the_whole_view() {
    let output = world("alice").answer(&Asked::shell(false));
    assert_eq!((output.exit, output.stderr.as_str()), (0, ""));
    assert_snapshot!(output.stdout);
    assert_eq!(world("alice").exec("").stdout, output.stdout);
}

#[test]
fn each_command() {
    let world = world("alice");
    let lines = ["whoami", "windows", "terminals", "sessions", "help"];
    assert_snapshot!(lines.map(|line| world.shown(line)).join("\n"));
}

#[test]
fn each_command_as_json() {
    let world = world("alice");
    let lines =
        ["whoami", "windows", "terminals", "sessions", "help", "why kiosk-17", "why kiosk-19/ssh"];
    let shown = lines.map(|line| {
        let output = world.exec(&format!("{line} --json"));
        let value: Value = serde_json::from_str(&output.stdout).unwrap();
        assert!(value.is_object());
        format!("$ {line} --json\n{}", output.stdout)
    });
    assert_snapshot!(shown.join("\n"));
}

#[test]
fn why_each_way() {
    let mut world = world("alice");
    let lines = [
        "why kiosk-17",
        "why KIOSK-17.support.example.com./web",
        "why kiosk-17/vnc",
        "why kiosk-17/nosuch",
        "why kiosk-18/ssh",
        "why kiosk-19",
        "why nosuch",
        "why a,b*",
    ];
    let mut shown = lines.map(|line| world.shown(line)).join("\n");
    world.full = Some("support window acme/berlin-maint is full: its 2 sessions are held by bob");
    shown += &world.shown("why kiosk-17/ssh");
    world.full = None;
    world.closed = Some("this relay is shutting down and admits no new session");
    shown += &world.shown("why kiosk-17/ssh");
    assert_snapshot!(shown);
}

#[test]
fn misuse_and_what_is_not_here() {
    let world = world("alice");
    let lines = [
        "scp -t /tmp",
        "rsync --server -vlogDtpre.iLsfxCIvu . x",
        "bash -i",
        "window",
        "why",
        "why a b",
        "why --help",
        "windows all",
        "--json",
        "help --json",
    ];
    assert_snapshot!(lines.map(|line| world.shown(line)).join("\n"));
    let sftp = world.answer(&Asked::subsystem(false));
    assert_eq!(sftp, world.exec("scp -t /tmp"));
    assert_eq!(sftp.exit, 2);
}

#[test]
fn the_exit_status_of_why_is_the_verdict() {
    let world = world("alice");
    for (line, exit) in [
        ("why kiosk-17", 0),
        ("why kiosk-17/ssh --json", 0),
        ("why kiosk-19", 1),
        ("why nosuch --json", 1),
        ("why kiosk-17/nosuch", 1),
        ("why", 2),
        ("why a b --json", 2),
    ] {
        assert_eq!(world.exec(line).exit, exit, "{line}");
    }
}

/// A refusal on the channel and the one that `why` gives are the same sentence.
#[test]
fn why_says_what_the_channel_says() {
    let world = world("alice");
    for (line, host, port) in [
        ("why kiosk-19/ssh --json", "kiosk-19", 22),
        ("why kiosk-17/vnc --json", "kiosk-17", 5900),
        ("why nosuch --json", "nosuch", 22),
        ("why vault --json", "vault", 22),
        ("why a,b* --json", "a,b*", 22),
    ] {
        let request = Request { staff: &world.staff, host, port, agent: false, way: None };
        let Decision::Deny(deny) = decide(&world.snapshot, &request, world.now) else {
            panic!("{line} is allowed");
        };
        let said: Value = serde_json::from_str(&world.exec(line).stdout).unwrap();
        assert_eq!(said["services"][0]["message"], deny.to_string(), "{line}");
        assert_eq!(said["services"][0]["reason"], deny.reason.code(), "{line}");
    }
}

/// Section 6: a terminal that no window of hers selects reads the same as one that does not exist.
#[test]
fn others_terminals_windows_and_sessions_stay_unknown() {
    let world = world("alice");
    let vault = ["why vault", "why vault/ssh", "why vault/nosuch"];
    for (line, absent) in vault.iter().zip(["why vaulx", "why vaulx/ssh", "why vaulx/nosuch"]) {
        for json in ["", " --json"] {
            let hers = world.exec(&format!("{line}{json}"));
            let none = world.exec(&format!("{absent}{json}"));
            assert_eq!(hers.stdout.replace("vault", "vaulx"), none.stdout, "{line}");
            assert_eq!((hers.exit, hers.stderr), (none.exit, none.stderr));
        }
    }
    for line in ["", "whoami", "windows", "terminals", "sessions", "why kiosk-17", "help"] {
        for json in ["", " --json"] {
            let said = world.exec(&format!("{line}{json}"));
            for secret in ["vault", "secret", "SECRET", "bob"] {
                assert!(!said.stdout.contains(secret), "{line}{json} says {secret}");
            }
        }
    }
}

#[test]
fn someone_without_windows_is_told_so() {
    let world = World { sessions: Vec::new(), history: Vec::new(), ..world("carol") };
    let output = world.answer(&Asked::shell(false));
    assert!(output.stdout.contains("no support window names you\n"), "{}", output.stdout);
    assert!(output.stdout.contains("no support window gives you a terminal\n"));
    assert_eq!(world.exec("sessions").stdout, "you have no session\n");
    assert_eq!(world.exec("why kiosk-17").exit, 1);
}

#[test]
fn lines_end_as_the_client_needs_them() {
    let world = world("alice");
    let raw = world.answer(&Asked::shell(true)).stdout;
    assert_eq!(raw.matches('\n').count(), raw.matches("\r\n").count());
    assert_eq!(raw.replace("\r\n", "\n"), world.answer(&Asked::shell(false)).stdout);
    let output = refused("login user alice is suspended", true);
    assert_eq!(output.stderr, "login user alice is suspended\r\n");
    assert_eq!((output.stdout.as_str(), output.exit), ("", 1));
    let text = attached_as(&label("kiosk-17"), &[label("ssh")], "support.example.com", true);
    assert!(
        text.starts_with("attached to support.example.com as kiosk-17, offering ssh\r\n"),
        "{text}"
    );
}

#[test]
fn eighty_columns_are_enough() {
    let world = world("alice");
    for line in ["", "whoami", "windows", "terminals", "sessions", "help"] {
        for text in world.exec(line).stdout.lines() {
            // A command to copy and a sentence to search for are never broken.
            let whole = text.contains("ssh -J") || text.contains("problem");
            assert!(text.len() <= 80 || whole, "{line}: {text}");
        }
    }
}

#[test]
fn a_window_that_opens_each_minute_is_shown_in_short() {
    let mut snapshot = snapshot();
    let zone = Zone::parse("Asia/Kathmandu").unwrap();
    let every =
        Recurring::new(Cron::parse("* * * * *").unwrap(), zone, SignedDuration::from_mins(90));
    let schedule = Schedule::Recurring(Box::new(every.unwrap()));
    snapshot.put_window(window("minutes", &["alice"], &["kiosk-17"], schedule));
    let world = World { snapshot: Arc::new(snapshot), ..world("alice") };
    let said = world.exec("windows").stdout;
    assert!(said.contains("and more often in the next 7 days"), "{said}");
    assert!(said.lines().count() < 60, "{said}");
}

#[test]
fn a_long_command_line_is_none_of_ours() {
    let long = format!("why {}", "k".repeat(64 << 10));
    assert_eq!(Asked::exec(&long, false).command, Command::NotHere);
    let output = world("alice").exec(&long);
    assert_eq!(output.exit, 2);
    assert!(output.stderr.len() <= 301);
}

/// Printable ASCII and line ends alone, few bytes.
fn harmless(output: &Output, line: &str) {
    for text in [&output.stdout, &output.stderr] {
        let bad = text.chars().find(|c| !(c.is_ascii_graphic() || matches!(c, ' ' | '\n')));
        assert_eq!(bad, None, "after {line:?}: {text:?}");
        assert!(text.len() < 16 << 10);
    }
    assert!(output.exit <= 2);
}

#[test]
fn hostile_names_forge_nothing() {
    let mut world = world("alice");
    world.history.push(Entry::refused(
        world.now,
        "kiosk-17",
        "ssh\r\nforged",
        "X",
        "a\n\u{1b}]0;title\u{7}forged \u{202e}",
    ));
    world.findings.push(Flaw {
        kind: "SupportWindow".to_owned(),
        namespace: "acme".to_owned(),
        name: "berlin-maint".to_owned(),
        message: "bad\n\u{1b}[2J \u{e9}".to_owned(),
    });
    for line in [
        "why \u{1b}[2J",
        "why kiosk-17\u{7f}/s\u{0}sh",
        "why \u{43a}iosk-17",
        "why kiosk-17/\u{202e}ssh",
        "why k\r\nforged: yes",
        "why /",
        "why //",
        "why .",
        "why kiosk-17/",
        "why ../../etc/passwd",
        "whoami\n",
        "\u{1b}c",
        "why kiosk-17",
        "",
    ] {
        harmless(&world.exec(line), line);
        harmless(&world.answer(&Asked::exec(line, false)), line);
    }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn no_command_line_breaks_the_view(line in "(why |windows |sessions|)\\PC{0,40}[\\x00-\\x20/.]{0,3}\\PC{0,10}( --json)?") {
        let output = world("alice").exec(&line);
        harmless(&output, &line);
    }
}

/// A group that serves every customer: many windows, each with a selector of its own.
#[test]
fn many_windows_are_listed_in_short_and_the_open_ones_first() {
    let mut snapshot = snapshot();
    let zone = Zone::parse("Europe/Berlin").unwrap();
    for index in 0..3000 {
        let cron = Cron::parse(&format!("{} 3 * * MON", index % 60)).unwrap();
        let weekly = Recurring::new(cron, zone.clone(), SignedDuration::from_mins(30)).unwrap();
        let schedule = Schedule::Recurring(Box::new(weekly));
        snapshot.put_window(window(
            &format!("customer-{index}"),
            &["alice"],
            &["kiosk-17"],
            schedule,
        ));
    }
    let world = World { snapshot: Arc::new(snapshot), ..world("alice") };
    let said = world.exec("windows");
    assert!(
        said.stdout.starts_with("acme/berlin-maint  case 48213\n  open "),
        "{}",
        &said.stdout[..200]
    );
    assert!(said.stdout.ends_with("... and 2504 more; ask with: why TERMINAL\n"));
    assert!(said.stdout.len() < 256 << 10);
    let said: Value = serde_json::from_str(&world.exec("windows --json").stdout).unwrap();
    assert_eq!((said["windows"].as_array().unwrap().len(), &said["omitted"]), (500, &2504.into()));
    assert_eq!(world.exec("why kiosk-17").exit, 0);
}
