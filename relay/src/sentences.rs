//! What the relay tells people, beside the refusals that the policy words itself. Each is one ASCII
//! sentence of at most 300 bytes that names what is wrong and what to do; the golden file
//! `relay/tests/golden/sentences.txt` holds them all.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::decide::Admission;
use tidegate_policy::model::{Label, Login, ObjectKey, Service, Terminal};
use tidegate_policy::snapshot::Snapshot;

use crate::claim::Holder;
use crate::locate::LastSeen;
use crate::view::{clean, utc};

/// `2h30m`, `45m`, `90s`: whole units, the largest first.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = [(h, 'h'), (m, 'm'), (s, 's')];
    let shown: String =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

pub fn not_connected(terminal: &Label, last_seen: Option<LastSeen>) -> String {
    match last_seen {
        Some(LastSeen { at, from }) => {
            format!("{terminal} is not connected; it was last seen {} from {}", utc(at), from.ip())
        }
        None => format!("{terminal} is not connected and has never been seen here"),
    }
}

pub fn not_offered(terminal: &Label, service: &Service) -> String {
    let asks = service.listen_port.unwrap_or(service.port);
    let name = &service.name;
    format!("{terminal} is connected but does not offer {name}; its ssh -R must ask for port {asks}")
}

pub fn service_refused(terminal: &Label, service: &Service) -> String {
    let Service { name, port, .. } = service;
    format!("{terminal} refused to open its service {name}; check that port {port} answers there")
}

pub fn terminal_gone(terminal: &Label) -> String {
    format!("{terminal} has just lost its connection; try again in a moment")
}

pub fn terminal_silent(terminal: &Label, waited: Duration) -> String {
    format!("{terminal} is connected but did not answer within {}", duration(waited))
}

pub fn window_full(window: &ObjectKey, holders: &[Holder]) -> String {
    let who: Vec<_> = holders.iter().map(|holder| holder.user.as_str()).collect();
    let held = if holders.len() == 1 { "session is held" } else { "sessions are held" };
    let (count, who) = (holders.len(), who.join(", "));
    clean(&format!("support window {window} is full: its {count} {held} by {who}; try again later"))
}

pub fn one_time_used(window: &ObjectKey, by: Option<&Holder>) -> String {
    let by = by.map_or_else(String::new, |by| format!(" by {} at {}", by.user, utc(by.since)));
    clean(&format!("support window {window} admits one session and was used{by}; ask for a new window"))
}

pub fn claim_failed() -> String {
    "the relay cannot write its claims and admits nobody to limited windows; tell whoever runs the \
     relay"
        .to_owned()
}

pub fn audit_unavailable() -> String {
    "the relay cannot write its audit log and admits nobody until it can; tell whoever runs the relay"
        .to_owned()
}

pub fn draining() -> String {
    "this relay is shutting down and admits no new session; connect again in a moment".to_owned()
}

pub fn too_many_sessions(login: &Login, limit: u32) -> String {
    format!("{login} has {limit} sessions open, which is the most a login user may have; end one first")
}

pub fn too_many_channels(limit: usize) -> String {
    format!("this connection has {limit} channels open, which is the most it may have; close one first")
}

pub fn too_many_refusals(count: u32) -> String {
    format!("{count} requests on this connection were refused; see 'why TERMINAL' on the relay")
}

/// Why a session ended at its deadline: the window closed, the login user's time was over, or the
/// session reached its longest duration.
pub fn deadline(admission: &Admission, deadline: Timestamp) -> String {
    let window = &admission.window;
    let key = &window.meta.key;
    if deadline >= admission.occurrence.closes {
        return clean(&format!("support window {key} closed at {}", window.schedule.human(deadline)));
    }
    if let Some(longest) = window.limits.max_session_duration
        && deadline == admission.opened_at.saturating_add(longest).unwrap_or(Timestamp::MAX)
    {
        let longest = duration(longest.unsigned_abs());
        return clean(&format!(
            "the session reached {longest}, the longest that support window {key} allows"
        ));
    }
    let login = &admission.staff.login;
    clean(&format!(
        "the time of {login} in support window {key} ended at {}",
        window.schedule.human(deadline)
    ))
}

pub fn idle(window: &ObjectKey, timeout: Duration) -> String {
    let timeout = duration(timeout);
    format!("no byte passed for {timeout}, the longest that support window {window} allows")
}

pub fn revoked(why: &str) -> String {
    clean(&format!("access was withdrawn: {why}"))
}

pub fn cut() -> String {
    "the session was cut by whoever runs the relay".to_owned()
}

pub fn no_such_session(name: &str) -> String {
    clean(&format!("no live session is named {name}; 'sessions' lists those that are"))
}

pub fn drained() -> String {
    "the relay is shutting down; connect again in a moment".to_owned()
}

pub fn staff_left() -> String {
    "the login user's connection ended".to_owned()
}

pub fn terminal_left(terminal: &Label) -> String {
    format!("the connection of {terminal} ended")
}

pub fn relay_crashed() -> String {
    "the relay ended without closing this session".to_owned()
}

pub fn never_done(what: &str) -> String {
    format!("the relay refuses {what}: it opens declared services of terminals and nothing else")
}

pub fn terminals_only_forward() -> String {
    "a terminal may only offer its own services with ssh -R; it opens nothing through the relay".to_owned()
}

pub fn staff_never_forward() -> String {
    "a login user cannot offer services with -R; only terminals do".to_owned()
}

pub fn no_forward(terminal: &Terminal, last_refusal: Option<&str>) -> String {
    let why = last_refusal.map_or_else(|| "no service was offered".to_owned(), ToOwned::to_owned);
    clean(&format!("{why}; {} may offer {}", terminal.meta.key.name, offers(terminal)))
}

/// The `-R` forms that a terminal's declared services allow.
fn offers(terminal: &Terminal) -> String {
    let one = |s: &Service| {
        format!("{} (-R {}:localhost:{})", s.name, s.listen_port.unwrap_or(s.port), s.port)
    };
    terminal.services.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub fn taken_over(terminal: &Label) -> String {
    format!("a newer connection of {terminal} has taken over")
}

pub fn contended(terminal: &Label) -> String {
    format!("two connections fight for {terminal}; this one is refused for a minute: stop one of the two machines")
}

pub fn key_withdrawn(login: &Login) -> String {
    format!("this key is no longer one of {login}'s")
}

pub fn window_admits_no_longer(window: &ObjectKey) -> String {
    clean(&format!("support window {window} no longer admits this"))
}

/// A terminal of `attach: DuringWindow` outside of every window.
pub fn not_attached_now(snapshot: &Snapshot, terminal: &Terminal, now: Timestamp) -> String {
    let name = &terminal.meta.key.name;
    let windows = snapshot.windows_of_terminal(terminal);
    let next = windows
        .iter()
        .filter(|window| !window.suspended)
        .filter_map(|window| {
            let next = window.schedule.occurrences_from(now).find(|o| o.opens > now)?;
            Some((next.opens, window))
        })
        .min_by_key(|(opens, _)| *opens);
    clean(&match next {
        Some((opens, window)) => format!(
            "{name} attaches only during support windows; the next one opens {}, connect from 2 minutes before",
            window.schedule.human(opens)
        ),
        None => format!("{name} attaches only during support windows, and none is declared; ask support staff for one"),
    })
}

pub fn terminal_suspended(terminal: &Label) -> String {
    format!("{terminal} is suspended by support staff's policy; ask them to lift it")
}

pub fn terminal_withdrawn(terminal: &Label) -> String {
    format!("{terminal} is no longer declared, is suspended or has another key; tell whoever runs the relay")
}
