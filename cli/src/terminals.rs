//! `terminals`: which are connected, and which a window opens now.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tidegate_commands::known_hosts::terminal_name;
use tidegate_commands::{Answer, Known};
use tidegate_policy::model::{Terminal, Window};
use tidegate_policy::schedule::Occurrence;
use tidegate_policy::text::shown;

use crate::output::{Output, few, structured, table};
use crate::presence::{Connected, Presence};
use crate::source::nothing;

/// List terminals: which are connected, and which a window opens now.
///
/// The window shown is the open one that closes last, else the one that opens next. Windows that want
/// what only an agent can give do not count. Whether a terminal is connected is asked of the relay pods
/// through the API server; where that may not be, it is Unknown, and why goes to stderr. Exit code: 0, also
/// when there is none; 2 when the question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct TerminalsArgs {
    /// Only terminals that a window opens now
    #[arg(long)]
    pub open: bool,
    /// Only terminals that are connected now
    #[arg(long)]
    pub connected: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The terminal that a person names; the error is the answer.
pub fn find<'a>(known: &'a Known, typed: &str) -> Result<&'a Arc<Terminal>, Answer> {
    let name = terminal_name(&known.snapshot, typed);
    name.and_then(|name| known.snapshot.terminal(&name)).ok_or_else(|| {
        let place = &known.place;
        let mut answer =
            Answer::refused(format!("there is no terminal {} in {place}", shown(typed, 80)));
        answer.stderr.push_str(&known.warning);
        answer
    })
}

/// How a terminal stands with its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum State {
    Open,
    Closed,
    Suspended,
}

struct Seen<'a> {
    terminal: &'a Arc<Terminal>,
    connected: Connected<'a>,
    state: State,
    /// The open window that closes last, else the one that opens next.
    window: Option<(&'a Arc<Window>, Occurrence)>,
}

fn seen<'a>(
    known: &'a Known,
    terminal: &'a Arc<Terminal>,
    presence: &'a Presence,
    now: Timestamp,
) -> Seen<'a> {
    let offers = |window: &Window| {
        terminal.services.iter().any(|service| window.services.contains(&service.name))
    };
    let windows = known.snapshot.windows_of_terminal(terminal).into_iter();
    let admitting: Vec<_> = windows
        .filter(|window| !window.suspended && window.wants().is_none() && offers(window))
        .collect();
    let open = admitting
        .iter()
        .filter_map(|window| Some((*window, window.schedule.open_at(now)?)))
        .max_by_key(|(_, occurrence)| occurrence.closes);
    let next = || {
        let next =
            |window: &&'a Arc<Window>| Some((*window, window.schedule.openings_from(now).next()?));
        admitting.iter().filter_map(next).min_by_key(|(_, occurrence)| occurrence.opens)
    };
    let state = match open {
        _ if terminal.suspended => State::Suspended,
        Some(_) => State::Open,
        None => State::Closed,
    };
    Seen {
        terminal,
        connected: presence.of(terminal.meta.key.name.as_str()),
        state,
        window: if terminal.suspended { None } else { open.or_else(next) },
    }
}

/// The answer at an instant; `namespace`: the one that is listed, or all.
pub fn tell(
    known: &Known,
    presence: &Presence,
    args: &TerminalsArgs,
    namespace: Option<&str>,
    now: Timestamp,
) -> Answer {
    let mut seen: Vec<_> = known
        .snapshot
        .terminals()
        .filter(|terminal| namespace.is_none_or(|n| n == terminal.meta.key.namespace.as_str()))
        .map(|terminal| seen(known, terminal, presence, now))
        .filter(|seen| !args.open || seen.state == State::Open)
        .filter(|seen| !args.connected || matches!(seen.connected, Connected::Yes(_)))
        .collect();
    seen.sort_by(|a, b| a.terminal.meta.key.cmp(&b.terminal.meta.key));
    let mut stderr = known.warning.clone();
    let stdout = match args.output {
        Output::Json | Output::Yaml => {
            let terminals = seen.iter().map(Shown::of).collect();
            let connected_unknown = presence.why_unknown().map(ToOwned::to_owned);
            structured(&List { terminals, connected_unknown }, args.output)
        }
        Output::Table | Output::Wide => {
            if let Some(why) = presence.why_unknown() {
                let _ = writeln!(stderr, "note: which terminals are connected is not known: {why}");
            }
            if seen.is_empty() {
                let what = match (args.open, args.connected) {
                    (false, false) => "terminals",
                    (true, false) => "terminals that a window opens now",
                    (false, true) => "terminals known to be connected",
                    (true, true) => "open terminals known to be connected",
                };
                stderr.push_str(&nothing(what, namespace, &known.place));
                String::new()
            } else {
                people(&seen, namespace, args.output, now)
            }
        }
    };
    Answer { stdout, stderr, code: 0 }
}

fn word(connected: Connected<'_>) -> &'static str {
    match connected {
        Connected::Yes(_) => "Yes",
        Connected::No => "No",
        Connected::Unknown => "Unknown",
    }
}

fn people(seen: &[Seen<'_>], namespace: Option<&str>, output: Output, now: Timestamp) -> String {
    let wide = output == Output::Wide;
    let mut heads = vec!["NAME", "CONNECTED", "STATE", "OPENS", "CLOSES", "WINDOW", "SERVICES"];
    if namespace.is_none() {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.extend(["OWNER", "RELAY-POD", "SINCE"]);
    }
    let row = |seen: &Seen<'_>| {
        let terminal = seen.terminal;
        let at = |at: fn(&Occurrence) -> Timestamp| {
            seen.window.as_ref().map_or(String::new(), |(window, occurrence)| {
                window.schedule.human_from(at(occurrence), now)
            })
        };
        let service = |service: &tidegate_policy::model::Service| service.name.to_string();
        let mut cells = vec![
            terminal.meta.key.name.to_string(),
            word(seen.connected).to_owned(),
            format!("{:?}", seen.state),
            at(|occurrence| occurrence.opens),
            at(|occurrence| occurrence.closes),
            seen.window.map_or(String::new(), |(window, _)| window.meta.key.name.to_string()),
            few(terminal.services.iter().map(service), output),
        ];
        if namespace.is_none() {
            cells.insert(0, terminal.meta.key.namespace.to_string());
        }
        if wide {
            cells.push(terminal.owner.as_ref().map_or(String::new(), ToString::to_string));
            let (pod, since) = match seen.connected {
                Connected::Yes(connection) => {
                    let since = connection.since.map(tidegate_policy::schedule::human_utc);
                    (connection.pod.clone(), since.unwrap_or_default())
                }
                Connected::No | Connected::Unknown => (String::new(), String::new()),
            };
            cells.extend([pod, since]);
        }
        cells
    };
    table(&heads, &seen.iter().map(row).collect::<Vec<_>>())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    terminals: Vec<Shown>,
    /// Why `connected` is null where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_unknown: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    namespace: String,
    name: String,
    /// `null`: unknown.
    connected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay_pod: Option<String>,
    state: State,
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Opening>,
    services: Vec<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    suspend: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Opening {
    name: String,
    opens_at: Timestamp,
    closes_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    name: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_port: Option<u16>,
}

impl Shown {
    fn of(seen: &Seen<'_>) -> Self {
        let terminal = seen.terminal;
        let (connected, connection) = match seen.connected {
            Connected::Yes(connection) => (Some(true), Some(connection)),
            Connected::No => (Some(false), None),
            Connected::Unknown => (None, None),
        };
        let service = |service: &tidegate_policy::model::Service| Service {
            name: service.name.to_string(),
            port: service.port,
            listen_port: service.listen_port,
        };
        Self {
            namespace: terminal.meta.key.namespace.to_string(),
            name: terminal.meta.key.name.to_string(),
            connected,
            connected_since: connection.and_then(|connection| connection.since),
            relay_pod: connection.map(|connection| connection.pod.clone()),
            state: seen.state,
            open: seen.state == State::Open,
            window: seen.window.map(|(window, occurrence)| Opening {
                name: window.meta.key.name.to_string(),
                opens_at: occurrence.opens,
                closes_at: occurrence.closes,
            }),
            services: terminal.services.iter().map(service).collect(),
            owner: terminal.owner.as_ref().map(ToString::to_string),
            suspend: terminal.suspended,
        }
    }
}
