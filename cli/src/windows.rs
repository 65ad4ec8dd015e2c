//! `windows`: which support windows are open now, and when the others open.

use std::sync::Arc;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_commands::{Answer, Known};
use tidegate_policy::model::{Label, Need, Recording, Window};
use tidegate_policy::schedule::Occurrence;
use tidegate_policy::snapshot::Snapshot;
use tidegate_policy::text::show_duration;

use crate::output::{Output, few, structured, table};
use crate::source::nothing;

/// Occurrences that are told to programs: the running one and the next.
const OCCURRENCES: usize = 2;

/// List support windows: which are open now, and when the others open.
///
/// Open ones come first, then those that open next. Times are in each window's own zone. Exit code: 0,
/// also when there is none; 2 when the question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct WindowsArgs {
    /// Only windows that are open now
    #[arg(long)]
    pub open: bool,
    /// Only windows that select this terminal
    #[arg(long, value_name = "TERMINAL")]
    pub terminal: Option<String>,
    /// Only windows that name this login user
    #[arg(long, value_name = "LOGIN")]
    pub user: Option<String>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// How a window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    Open,
    /// It opens again.
    Closed,
    /// It does not open any more.
    Over,
    Suspended,
}

/// A window at an instant.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    pub window: &'a Arc<Window>,
    pub state: State,
    /// The running ones first, then those to come; none while suspended.
    pub occurrences: Vec<Occurrence>,
}

impl<'a> Seen<'a> {
    /// The window at `now`.
    pub fn at(window: &'a Arc<Window>, now: Timestamp) -> Self {
        let occurrences: Vec<_> = if window.suspended {
            Vec::new()
        } else {
            window.schedule.occurrences_from(now).take(OCCURRENCES).collect()
        };
        let state = match occurrences.first() {
            _ if window.suspended => State::Suspended,
            None => State::Over,
            Some(first) if first.contains(now) => State::Open,
            Some(_) => State::Closed,
        };
        Self { window, state, occurrences }
    }

    /// The open one that closes last, by which sessions end, else the next.
    pub fn occurrence(&self, now: Timestamp) -> Option<Occurrence> {
        match self.state {
            State::Open => self.window.schedule.open_at(now),
            _ => self.occurrences.first().copied(),
        }
    }
}

/// The windows that are asked for, in the order of the table.
fn seen<'a>(
    known: &'a Known,
    args: &WindowsArgs,
    namespace: Option<&str>,
    now: Timestamp,
) -> Result<Vec<Seen<'a>>, Answer> {
    let snapshot = &known.snapshot;
    let terminal = match &args.terminal {
        None => None,
        Some(typed) => Some(crate::terminals::find(known, typed)?),
    };
    let user = match &args.user {
        None => None,
        Some(typed) => Some(crate::explain::user(known, typed)?),
    };
    let mut seen: Vec<_> = snapshot
        .windows()
        .filter(|window| namespace.is_none_or(|n| n == window.meta.key.namespace.as_str()))
        .filter(|window| terminal.is_none_or(|terminal| window.selects(terminal)))
        .filter(|window| user.is_none_or(|user| window.names_user(user)))
        .map(|window| Seen::at(window, now))
        .filter(|seen| !args.open || seen.state == State::Open)
        .collect();
    seen.sort_by_cached_key(|seen| {
        let when = seen.occurrence(now).map_or(Timestamp::MAX, |occurrence| match seen.state {
            State::Open => occurrence.closes,
            _ => occurrence.opens,
        });
        (seen.state, when, seen.window.meta.key.clone())
    });
    Ok(seen)
}

/// The answer at an instant; `namespace`: the one that is listed, or all.
pub fn tell(known: &Known, args: &WindowsArgs, namespace: Option<&str>, now: Timestamp) -> Answer {
    let mut seen = match seen(known, args, namespace, now) {
        Ok(seen) => seen,
        Err(answer) => return answer,
    };
    let mut stderr = known.warning.clone();
    let stdout = match args.output {
        Output::Json | Output::Yaml => {
            seen.sort_by(|a, b| a.window.meta.key.cmp(&b.window.meta.key));
            let windows = seen.iter().map(|seen| Shown::of(&known.snapshot, seen)).collect();
            structured(&List { windows }, args.output)
        }
        Output::Table | Output::Wide if seen.is_empty() => {
            let what = if args.open { "open support windows" } else { "support windows" };
            stderr.push_str(&nothing(what, namespace, &known.place));
            String::new()
        }
        Output::Table | Output::Wide => people(&known.snapshot, &seen, namespace, args.output, now),
    };
    Answer { stdout, stderr, code: 0 }
}

fn people(
    snapshot: &Snapshot,
    seen: &[Seen<'_>],
    namespace: Option<&str>,
    output: Output,
    now: Timestamp,
) -> String {
    let wide = output == Output::Wide;
    let mut heads =
        vec!["NAME", "STATE", "OPENS", "CLOSES", "USERS", "TERMINALS", "SERVICES", "CASE"];
    if namespace.is_none() {
        heads.insert(0, "NAMESPACE");
    }
    if wide {
        heads.push("TERMS");
    }
    let row = |seen: &Seen<'_>| {
        let window = seen.window;
        let at = |at: Option<Timestamp>| {
            at.map_or(String::new(), |at| window.schedule.human_from(at, now))
        };
        let occurrence = seen.occurrence(now);
        let terminals = terminals(snapshot, window).into_iter();
        let mut cells = vec![
            window.meta.key.name.to_string(),
            format!("{:?}", seen.state),
            at(occurrence.map(|occurrence| occurrence.opens)),
            at(occurrence.map(|occurrence| occurrence.closes)),
            few(users(window), output),
            few(terminals.map(|name| name.to_string()), output),
            few(window.services.iter().map(ToString::to_string), output),
            window.case.as_ref().map_or(String::new(), |case| case.number.to_string()),
        ];
        if namespace.is_none() {
            cells.insert(0, window.meta.key.namespace.to_string());
        }
        if wide {
            cells.push(terms(window).join(", "));
        }
        cells
    };
    table(&heads, &seen.iter().map(row).collect::<Vec<_>>())
}

/// As written: logins, then groups, marked.
fn users(window: &Window) -> Vec<String> {
    let groups = window.users.groups.iter().map(|group| format!("group:{group}"));
    window.users.names.iter().map(ToString::to_string).chain(groups).collect()
}

fn terminals(snapshot: &Snapshot, window: &Window) -> Vec<Label> {
    let selected = snapshot.terminals_of_window(window).into_iter();
    let mut names: Vec<_> = selected.map(|terminal| terminal.meta.key.name.clone()).collect();
    names.sort();
    names
}

/// What a window asks for beyond time, user and terminal.
pub fn terms(window: &Window) -> Vec<String> {
    let mut terms = Vec::new();
    if window.one_time {
        terms.push("one session".to_owned());
    }
    let limits = &window.limits;
    if let Some(most) = limits.max_sessions {
        terms.push(format!("{most} at once"));
    }
    if let Some(longest) = limits.max_session_duration {
        terms.push(format!("{} at the longest", show_duration(longest)));
    }
    if let Some(idle) = limits.idle_timeout {
        terms.push(format!("idle {}", show_duration(idle)));
    }
    if window.consent == Need::Required {
        terms.push("consent".to_owned());
    }
    if window.code == Need::Required {
        terms.push("code".to_owned());
    }
    if window.recording == Recording::Endpoint {
        terms.push("recorded".to_owned());
    }
    terms
}

#[derive(Serialize)]
struct List {
    windows: Vec<Shown>,
}

/// A window in the resource's own field names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    namespace: String,
    name: String,
    state: State,
    open: bool,
    next_occurrences: Vec<Interval>,
    users: Users,
    terminals: Vec<String>,
    services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    case: Option<Case>,
    consent: &'static str,
    code: &'static str,
    recording: &'static str,
    one_time: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    suspend: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Interval {
    opens_at: Timestamp,
    closes_at: Timestamp,
}

#[derive(Serialize)]
struct Users {
    names: Vec<String>,
    groups: Vec<String>,
}

#[derive(Serialize)]
struct Case {
    number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_sessions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_session_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<String>,
}

impl Limits {
    fn of(window: &Window) -> Option<Self> {
        let limits = &window.limits;
        let text = |duration: Option<SignedDuration>| duration.map(show_duration);
        let shown = Self {
            max_sessions: limits.max_sessions,
            max_session_duration: text(limits.max_session_duration),
            idle_timeout: text(limits.idle_timeout),
        };
        let any = shown.max_sessions.is_some()
            || shown.max_session_duration.is_some()
            || shown.idle_timeout.is_some();
        any.then_some(shown)
    }
}

impl Shown {
    fn of(snapshot: &Snapshot, seen: &Seen<'_>) -> Self {
        let window = seen.window;
        let need = |need| match need {
            Need::Required => "Required",
            Need::NotRequired => "NotRequired",
        };
        let interval = |o: &Occurrence| Interval { opens_at: o.opens, closes_at: o.closes };
        Self {
            namespace: window.meta.key.namespace.to_string(),
            name: window.meta.key.name.to_string(),
            state: seen.state,
            open: seen.state == State::Open,
            next_occurrences: seen.occurrences.iter().map(interval).collect(),
            users: Users {
                names: window.users.names.iter().map(ToString::to_string).collect(),
                groups: window.users.groups.iter().map(ToString::to_string).collect(),
            },
            terminals: terminals(snapshot, window).iter().map(ToString::to_string).collect(),
            services: window.services.iter().map(ToString::to_string).collect(),
            case: window.case.as_ref().map(|case| Case {
                number: case.number.to_string(),
                url: case.url.as_ref().map(ToString::to_string),
            }),
            consent: need(window.consent),
            code: need(window.code),
            recording: match window.recording {
                Recording::None => "None",
                Recording::Endpoint => "Endpoint",
            },
            one_time: window.one_time,
            limits: Limits::of(window),
            suspend: window.suspended,
        }
    }
}
