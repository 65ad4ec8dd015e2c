//! The view as a person reads it, at 80 columns.

use std::fmt::Write as _;

use jiff::Timestamp;
use tidegate_commands::text::bytes;
use tidegate_policy::model::Label;

use super::command::WORDS;
use super::facts::{Input, Presence};
use super::format::{LONGEST, clean, utc, wrap};
use super::select::{self, SeenTerminal, SeenWindow};
use super::why::{Answer, Verdict};
use crate::history::{Entry, Kind};

pub(super) fn everything(input: &Input<'_>) -> String {
    let (windows, more) = select::windows(input);
    let (soon, rest): (Vec<_>, Vec<_>) =
        windows.into_iter().partition(|seen| !seen.occurrences.is_empty());
    let rest = rest.len() + more;
    let mut out = whoami(input);
    out.push_str("\nYour windows, now and in the next 7 days:\n\n");
    out.push_str(&match (soon.is_empty(), rest) {
        (true, 0) => "no support window names you\n".to_owned(),
        (true, _) => "none\n".to_owned(),
        (false, _) => blocks(&soon, 0, input.now),
    });
    if rest > 0 {
        let _ = writeln!(out, "\n{rest} more open later, are over or are suspended; see: windows");
    }
    let _ = write!(out, "\nTheir terminals:\n\n{}", terminals(input));
    let _ = write!(out, "\n{}", help(input));
    out
}

pub(super) fn whoami(input: &Input<'_>) -> String {
    let mut out = String::new();
    let staff = input.staff;
    let domain = &input.snapshot.mesh().domain;
    let _ = writeln!(
        out,
        "You are {} from {}, on relay {} of {domain}.",
        staff.login,
        staff.source,
        clean(input.relay)
    );
    let _ = writeln!(out, "Your key is {}.", staff.key.fingerprint());
    if let Some(user) = input.snapshot.user(&staff.login) {
        if !user.groups.is_empty() {
            let groups: Vec<_> = user.groups.iter().map(Label::as_str).collect();
            wrap(&mut out, "Your groups: ", &groups.join(", "));
        }
        if let Some(until) = user.valid_until {
            let _ = writeln!(out, "Your access ends {}.", utc(until));
        }
        for flaw in select::flaws(input, "LoginUser", &user.meta.key) {
            let _ = writeln!(out, "Problem: {flaw}; the version before stays in force.");
        }
    }
    if let Some(closed) = input.closed {
        let _ = writeln!(out, "Nobody is admitted now: {}.", clean(closed).trim_end_matches('.'));
    }
    out
}

pub(super) fn windows(input: &Input<'_>) -> String {
    let (seen, more) = select::windows(input);
    if seen.is_empty() {
        return "no support window names you\n".to_owned();
    }
    blocks(&seen, more, input.now)
}

fn blocks(seen: &[SeenWindow<'_>], beyond: usize, now: Timestamp) -> String {
    let mut out = String::new();
    for (index, window) in seen.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        window_block(&mut out, window, now);
    }
    omitted(&mut out, beyond);
    out
}

fn window_block(out: &mut String, seen: &SeenWindow<'_>, now: Timestamp) {
    let window = &seen.window;
    let _ = write!(out, "{}", window.meta.key);
    if let Some(case) = &window.case {
        let _ = write!(out, "  case {}", clean(&case.number));
    }
    out.push('\n');
    if window.suspended {
        out.push_str("  suspended: admits nobody\n");
    }
    // `Tue 24 Nov 22:00 Europe/Berlin`: the zone is said once, at the end.
    let opens = |opens: Timestamp, closes: Timestamp| {
        let (opens, closes) =
            (window.schedule.human_from(opens, now), window.schedule.human_from(closes, now));
        let start = opens.rsplit_once(' ').map_or(opens.as_str(), |(start, _)| start);
        format!("  opens    {start} to {closes}\n")
    };
    for occurrence in &seen.occurrences {
        if occurrence.open {
            let closes = window.schedule.human_from(occurrence.closes, now);
            let _ = writeln!(out, "  open     until {closes}");
        } else {
            out.push_str(&opens(occurrence.opens, occurrence.closes));
        }
    }
    if seen.further {
        out.push_str("           and more often in the next 7 days\n");
    }
    if seen.occurrences.is_empty() && !window.suspended {
        match seen.later {
            Some(later) => out.push_str(&opens(later.opens, later.closes)),
            None => out.push_str("  over     it does not open again\n"),
        }
    }
    let terminals: Vec<_> = seen.terminals.iter().map(Label::as_str).collect();
    let reached = if terminals.is_empty() { "no terminal".to_owned() } else { listed(&terminals) };
    wrap(out, "  reaches  ", &reached);
    let services: Vec<_> = window.services.iter().map(Label::as_str).collect();
    wrap(out, "  services ", &services.join(", "));
    let terms = select::terms(window);
    if !terms.is_empty() {
        wrap(out, "  terms    ", &terms.join(", "));
    }
    for flaw in &seen.flaws {
        let _ = writeln!(out, "  problem  {flaw}; the version before stays in force");
    }
}

/// At most 40 names, and how many more there are.
fn listed(names: &[&str]) -> String {
    const NAMES: usize = 40;
    let shown = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub(super) fn terminals(input: &Input<'_>) -> String {
    let (seen, more) = select::terminals(input);
    if seen.is_empty() {
        return "no support window gives you a terminal\n".to_owned();
    }
    let name = |t: &SeenTerminal| t.terminal.meta.key.name.as_str().len();
    let width = seen.iter().map(name).max().unwrap_or(0).clamp(8, 24);
    let mut out = String::new();
    for seen in &seen {
        let services: Vec<_> = seen.services.iter().map(|s| s.name.as_str()).collect();
        let state = if seen.terminal.suspended {
            format!("suspended; {}", presence(&seen.presence))
        } else {
            presence(&seen.presence)
        };
        let name = seen.terminal.meta.key.name.as_str();
        let head = format!("{name:<width$}  ");
        wrap(&mut out, &head, &format!("{state} ({})", services.join(", ")));
        for flaw in &seen.flaws {
            let _ = writeln!(out, "{:1$}problem: {flaw}", "", head.len());
        }
    }
    omitted(&mut out, more);
    out
}

fn presence(presence: &Presence) -> String {
    match presence {
        Presence::Connected { since, from, contended, .. } => {
            let fight =
                if *contended { "; contended: two connections fight for its name" } else { "" };
            format!("connected since {} from {}{fight}", utc(*since), from.ip().to_canonical())
        }
        Presence::LastSeen { at, from } => {
            format!("last seen {} from {}", utc(*at), from.ip().to_canonical())
        }
        Presence::Never => "never seen".to_owned(),
    }
}

pub(super) fn sessions(input: &Input<'_>) -> String {
    let (sessions, more) = select::sessions(input);
    if sessions.is_empty() {
        return "you have no session\n".to_owned();
    }
    let mut out = String::new();
    for session in sessions {
        let _ = writeln!(out, "{}", clean(&session.name));
        let _ = writeln!(out, "  target   {}/{}", session.terminal, session.service);
        let case = session.case.as_deref().map(|case| format!("  case {}", clean(case)));
        let _ = writeln!(
            out,
            "  window   {}/{}{}",
            session.window.namespace,
            session.window.name,
            case.unwrap_or_default()
        );
        let _ = writeln!(out, "  since    {} from {}", utc(session.opened_at), session.source);
        let _ = writeln!(out, "  until    {}", select::human(input, session));
        let _ = writeln!(
            out,
            "  bytes    {} to the terminal, {} back",
            bytes(session.bytes_in),
            bytes(session.bytes_out)
        );
    }
    omitted(&mut out, more);
    out
}

pub(super) fn help(input: &Input<'_>) -> String {
    let relay = relay_host(input);
    let port = port(input, "-p ");
    let login = &input.staff.login;
    let mut out = String::from("To reach a terminal inside a window:\n");
    let _ = writeln!(out, "  {}", reach(input, "USER"));
    let _ = writeln!(out, "To ask this relay: ssh {port}{login}@{relay} COMMAND");
    out.push_str(
        "  whoami               who you are here\n\
         \x20 windows              the windows that name you\n\
         \x20 terminals            their terminals, and which are connected\n\
         \x20 sessions             what you have open\n\
         \x20 why TERMINAL         whether you may reach it now, and if not, why not\n\
         \x20 why TERMINAL/SERVICE the same for one service\n\
         \x20 help                 this\n\
         Each takes --json.\n",
    );
    out
}

fn relay_host(input: &Input<'_>) -> String {
    format!("relay.{}", input.snapshot.mesh().domain)
}

fn port(input: &Input<'_>, before: &str) -> String {
    match input.port {
        22 => String::new(),
        port if before.starts_with('-') => format!("{before}{port} "),
        port => format!("{before}{port}"),
    }
}

/// The command that reaches a terminal: one of hers where there is one.
fn reach(input: &Input<'_>, user: &str) -> String {
    let domain = &input.snapshot.mesh().domain;
    let terminal = select::example(input).map_or("TERMINAL".to_owned(), |name| name.to_string());
    let relay = relay_host(input);
    let login = &input.staff.login;
    format!("ssh -J {login}@{relay}{} {user}@{terminal}.{domain}", port(input, ":"))
}

pub(super) fn not_here(input: &Input<'_>) -> String {
    let reach = reach(input, "user");
    let sentence = format!("this relay has no shell and no files; reach a terminal with: {reach}");
    if sentence.len() <= LONGEST {
        return sentence;
    }
    format!("this relay has no shell and no files; it answers: {WORDS}")
}

/// Sentences stay on one line each, as the channel's refusal does: people search for them.
pub(super) fn why(answer: &Answer) -> String {
    let mut out = String::new();
    for one in &answer.verdicts {
        let _ = write!(out, "{}: ", one.target);
        match &one.verdict {
            Verdict::Admitted { window, until, case, .. } => {
                let _ = write!(out, "admitted now by window {window} until {until}");
                if let Some(case) = case {
                    let _ = write!(out, " (case {})", clean(case));
                }
            }
            Verdict::Refused { sentence, .. } => {
                let _ = write!(out, "refused: {}", clean(sentence));
            }
        }
        out.push('\n');
    }
    for note in &answer.notes {
        let _ = writeln!(out, "note: {}", clean(note));
    }
    if !answer.past.is_empty() {
        out.push_str("\nWhat happened before, latest first:\n");
        for past in &answer.past {
            past_line(&mut out, past);
        }
    }
    out
}

fn past_line(out: &mut String, past: &Entry) {
    let _ = write!(out, "  {}  ", utc(past.time));
    if !past.terminal.is_empty() {
        out.push_str(&clean(&past.terminal));
        if !past.service.is_empty() {
            let _ = write!(out, "/{}", clean(&past.service));
        }
        out.push(' ');
    }
    match past.kind {
        Kind::Refused => out.push_str("refused"),
        Kind::Ended => {
            let _ = write!(out, "ended by {}", clean(&past.code));
        }
    }
    if past.count > 1 {
        let _ = write!(out, " {} times", past.count);
    }
    let _ = writeln!(out, ": {}", clean(&past.sentence));
}

pub(super) fn attached_as(terminal: &Label, granted: &[Label], domain: &str) -> String {
    let mut out = String::new();
    let services: Vec<_> = granted.iter().map(Label::as_str).collect();
    let offering = match services.as_slice() {
        [] => "nothing yet".to_owned(),
        some => some.join(", "),
    };
    wrap(
        &mut out,
        "",
        &format!("attached to {} as {terminal}, offering {offering}", clean(domain)),
    );
    wrap(
        &mut out,
        "",
        "This connection stays open; support staff reach it only inside support windows. There is \
         no shell here: start ssh with -N to be spared this text.",
    );
    out
}

fn omitted(out: &mut String, count: usize) {
    if count > 0 {
        let _ = writeln!(out, "... and {count} more; ask with: why TERMINAL");
    }
}
