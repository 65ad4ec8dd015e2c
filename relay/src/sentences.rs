//! What the relay tells people, beside the refusals that the policy words itself. Each is one ASCII
//! sentence of at most 300 bytes that names what is wrong and what to do; the golden file
//! `relay/tests/golden/sentences.txt` holds them all.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::model::{Label, Login, ObjectKey, Service, Terminal};

use crate::claim::Holder;
use crate::locate::LastSeen;

/// The most bytes that a sentence may have.
pub const LONGEST: usize = 300;

/// Keeps a sentence printable and within [`LONGEST`], whatever text went into it.
pub fn clean(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut clean: String = text.chars().map(printable).take(LONGEST + 1).collect();
    if clean.len() > LONGEST {
        clean.truncate(LONGEST - 3);
        clean.push_str("...");
    }
    clean
}

/// An instant without a zone of its own: `Tue 24 Nov 22:00 UTC`.
pub fn utc(at: Timestamp) -> String {
    at.strftime("%a %d %b %H:%M UTC").to_string()
}

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

pub fn window_full(window: &ObjectKey, max: u32, holders: &[Holder]) -> String {
    let who: Vec<_> = holders.iter().map(|holder| holder.user.as_str()).collect();
    let who = who.join(", ");
    clean(&format!(
        "support window {window} is full: its {max} {} by {who}",
        if max == 1 { "session is held" } else { "sessions are held" }
    ))
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

pub fn claim_uncertain(window: &ObjectKey) -> String {
    format!(
        "support window {window} could not be claimed for certain, so it counts as used; ask for a \
         new window"
    )
}

pub fn policy_too_old(age: Option<Duration>, most: Duration) -> String {
    let is = age.map_or_else(|| "is of unknown age".to_owned(), |age| format!("is {} old", duration(age)));
    let most = duration(most);
    format!("the relay's policy {is} and new sessions need one of at most {most}; tell whoever runs the relay")
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

pub fn closed(window: &ObjectKey, shown: &str) -> String {
    format!("support window {window} closed at {shown}")
}

pub fn longest_session(window: &ObjectKey, longest: Duration) -> String {
    let longest = duration(longest);
    format!("the session reached {longest}, the longest that support window {window} allows")
}

pub fn user_expired(login: &Login, at: Timestamp) -> String {
    format!("the access of {login} ended at {}", utc(at))
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

pub fn no_shell_here(domain: &str) -> String {
    format!("the relay has no files of its own; to reach a terminal's use scp -J or sftp -J with TERMINAL.{domain}")
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

pub fn unknown_listen_port(terminal: &Label, port: u32) -> String {
    format!("{terminal} declares no service with port {port}")
}

pub fn foreign_bind_host(terminal: &Label, host: &str) -> String {
    clean(&format!("{terminal} may not offer under the name '{}'", host.chars().take(64).collect::<String>()))
}

pub fn all_offered(terminal: &Label) -> String {
    format!("{terminal} already offers every service that it declares")
}

pub fn taken_over(terminal: &Label) -> String {
    format!("a newer connection of {terminal} has taken over")
}

pub fn contended(terminal: &Label) -> String {
    format!("two connections fight for {terminal}; this one is refused for a minute: stop one of the two machines")
}

pub fn terminal_withdrawn(terminal: &Label) -> String {
    format!("{terminal} is no longer declared, is suspended or has another key; tell whoever runs the relay")
}

pub fn attached(terminal: &Label, services: &str, domain: &str) -> String {
    format!("attached to the Tidegate mesh {domain} as {terminal}, offering {services}\nThis connection stays open; support staff reach it only inside support windows.\n")
}
