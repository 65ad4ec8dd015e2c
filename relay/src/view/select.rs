//! What of the policy she may see: the windows that name her, and the terminals that these select.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tidegate_policy::model::{
    Label, LoginUser, Need, ObjectKey, Recording, Service, Terminal, Window,
};
use tidegate_policy::schedule::Occurrence;

use super::facts::{Flaw, Input, Presence, SessionView};
use super::format;

/// How far ahead openings are shown.
const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Openings of one window that are shown; one that opens each minute has 10,080 in a week.
const OCCURRENCES: usize = 8;
/// Windows, terminals and sessions that are listed. Of windows, the open ones, then the next.
const LISTED: usize = 500;
/// Windows that are put into that order, the newest of hers: each costs a look at its schedule.
const RANKED: usize = 10_000;

/// A window that names her.
pub(super) struct SeenWindow<'a> {
    pub window: &'a Arc<Window>,
    /// Running ones first, then those that open within the next 7 days. None while suspended.
    pub occurrences: Vec<SeenOccurrence>,
    /// There are more in the next 7 days than are listed.
    pub further: bool,
    /// The first one after the next 7 days; only where there is none within.
    pub later: Option<Occurrence>,
    pub terminals: Vec<Label>,
    /// Sentences.
    pub flaws: Vec<String>,
}

#[derive(Clone, Copy)]
pub(super) struct SeenOccurrence {
    pub opens: Timestamp,
    pub closes: Timestamp,
    pub open: bool,
}

/// A terminal that one of her windows selects.
pub(super) struct SeenTerminal<'a> {
    pub terminal: &'a Arc<Terminal>,
    /// Declared ones that her windows name, in the order of the declaration.
    pub services: Vec<&'a Service>,
    pub presence: Presence,
    pub flaws: Vec<String>,
}

fn user<'a>(input: &Input<'a>) -> Option<&'a Arc<LoginUser>> {
    input.snapshot.user(&input.staff.login)
}

/// A window and its running or next occurrence.
type Ranked<'a> = (&'a Arc<Window>, Option<Occurrence>);

/// Open ones first, then by the next opening, then those that never open again; suspended ones last.
/// At most [`LISTED`], and how many there are in all.
fn ranked<'a>(input: &Input<'a>) -> (Vec<Ranked<'a>>, usize) {
    let all = user(input).map(|user| input.snapshot.windows_of_user(user)).unwrap_or_default();
    let count = all.len();
    let mut ranked: Vec<_> = all
        .into_iter()
        .rev()
        .take(RANKED)
        .map(|window| {
            let next = || window.schedule.occurrences_from(input.now).next();
            (window, if window.suspended { None } else { next() })
        })
        .collect();
    ranked.sort_by_cached_key(|(window, first)| {
        let when = first.map_or((true, Timestamp::MAX), |first| {
            let open = first.contains(input.now);
            (!open, if open { first.closes } else { first.opens })
        });
        (window.suspended, when, window.meta.key.clone())
    });
    ranked.truncate(LISTED);
    (ranked, count)
}

/// In the order of [`ranked`], and how many more there are.
pub(super) fn windows<'a>(input: &Input<'a>) -> (Vec<SeenWindow<'a>>, usize) {
    let (ranked, count) = ranked(input);
    let more = count.saturating_sub(ranked.len());
    (ranked.into_iter().map(|(window, first)| seen_window(input, window, first)).collect(), more)
}

fn seen_window<'a>(
    input: &Input<'a>,
    window: &'a Arc<Window>,
    first: Option<Occurrence>,
) -> SeenWindow<'a> {
    let end = input.now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
    let later = first.filter(|first| first.opens >= end);
    let mut occurrences = Vec::new();
    let mut further = false;
    if first.is_some() && later.is_none() {
        let soon = window.schedule.occurrences_from(input.now);
        for occurrence in soon.take_while(|occurrence| occurrence.opens < end).take(OCCURRENCES + 1)
        {
            further = occurrences.len() == OCCURRENCES;
            if !further {
                let Occurrence { opens, closes } = occurrence;
                let open = occurrence.contains(input.now);
                occurrences.push(SeenOccurrence { opens, closes, open });
            }
        }
    }
    let mut terminals: Vec<_> = input
        .snapshot
        .terminals_of_window(window)
        .into_iter()
        .map(|terminal| terminal.meta.key.name.clone())
        .collect();
    terminals.sort();
    let flaws = flaws(input, "SupportWindow", &window.meta.key);
    SeenWindow { window, occurrences, further, later, terminals, flaws }
}

/// Those that her listed windows select, by name, and how many more there are.
pub(super) fn terminals<'a>(input: &Input<'a>) -> (Vec<SeenTerminal<'a>>, usize) {
    let reached = services_by_terminal(input);
    let more = reached.len().saturating_sub(LISTED);
    let seen = reached
        .into_values()
        .take(LISTED)
        .map(|(terminal, services)| seen_terminal(input, terminal, &services));
    (seen.collect(), more)
}

/// The terminal of that name, if she may know of it, and the windows of hers that select it.
pub(super) fn terminal<'a>(
    input: &Input<'a>,
    name: &Label,
) -> Option<(SeenTerminal<'a>, Vec<&'a Arc<Window>>)> {
    let terminal = input.snapshot.terminal(name)?;
    let windows = input.snapshot.windows_between(user(input)?, terminal);
    let services = windows.iter().flat_map(|window| &window.services).collect();
    (!windows.is_empty()).then(|| (seen_terminal(input, terminal, &services), windows))
}

/// A terminal of hers, to show in a command.
pub(super) fn example(input: &Input<'_>) -> Option<Label> {
    let mut terminals = ranked(input).0.into_iter().filter_map(|(window, _)| {
        let terminals = input.snapshot.terminals_of_window(window);
        terminals.first().map(|terminal| terminal.meta.key.name.clone())
    });
    terminals.next()
}

type Reached<'a> = BTreeMap<&'a Label, (&'a Arc<Terminal>, BTreeSet<&'a Label>)>;

fn services_by_terminal<'a>(input: &Input<'a>) -> Reached<'a> {
    let mut reached = Reached::new();
    for (window, _) in ranked(input).0 {
        for terminal in input.snapshot.terminals_of_window(window) {
            let name = &terminal.meta.key.name;
            let (_, services) = reached.entry(name).or_insert_with(|| (terminal, BTreeSet::new()));
            services.extend(&window.services);
        }
    }
    reached
}

fn seen_terminal<'a>(
    input: &Input<'a>,
    terminal: &'a Arc<Terminal>,
    services: &BTreeSet<&Label>,
) -> SeenTerminal<'a> {
    let key = &terminal.meta.key;
    SeenTerminal {
        terminal,
        services: terminal.services.iter().filter(|s| services.contains(&s.name)).collect(),
        presence: (input.presence)(&key.name),
        flaws: flaws(input, "Terminal", key),
    }
}

/// Hers, oldest first, and how many more there are.
pub(super) fn sessions<'a>(input: &Input<'a>) -> (Vec<&'a SessionView>, usize) {
    let login = input.staff.login.to_string();
    let mut hers: Vec<_> = input.sessions.iter().filter(|s| s.user == login).collect();
    hers.sort_by_key(|session| (session.opened_at, &session.name));
    let more = hers.len().saturating_sub(LISTED);
    hers.truncate(LISTED);
    (hers, more)
}

/// A session's deadline in its window's own zone, as long as that window is still there.
pub(super) fn human(input: &Input<'_>, session: &SessionView) -> String {
    let window = &session.window;
    let key = Label::parse(&window.namespace).ok().zip(Label::parse(&window.name).ok());
    key.and_then(|(namespace, name)| input.snapshot.window(&ObjectKey { namespace, name }))
        .map_or_else(|| format::utc(session.deadline), |w| w.schedule.human(session.deadline))
}

pub(super) fn flaws(input: &Input<'_>, kind: &str, key: &ObjectKey) -> Vec<String> {
    input
        .findings
        .iter()
        .filter(|flaw| flaw.is_about(kind, key))
        .map(|flaw: &Flaw| format::clean(&flaw.message))
        .collect()
}

/// What the window asks for beyond time, user and terminal.
pub(super) fn terms(window: &Window) -> Vec<String> {
    let mut terms = Vec::new();
    if window.one_time {
        terms.push("admits one session".to_owned());
    }
    let limits = &window.limits;
    if let Some(most) = limits.max_sessions {
        terms.push(format!("at most {most} at once"));
    }
    if let Some(longest) = limits.max_session_duration {
        terms.push(format!("{} at the longest", duration(longest)));
    }
    if let Some(idle) = limits.idle_timeout {
        terms.push(format!("ends when idle for {}", duration(idle)));
    }
    if window.consent == Need::Required {
        terms.push("the customer's consent".to_owned());
    }
    if window.code == Need::Required {
        terms.push("a one-time code".to_owned());
    }
    if window.recording == Recording::Endpoint {
        terms.push("recorded".to_owned());
    }
    terms
}

/// `2h30m`, as the resources write durations.
pub(super) fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().unsigned_abs();
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let mut shown = String::new();
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(shown, "{count}{unit}");
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}
