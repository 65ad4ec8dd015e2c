//! The view as a person reads it, at 80 columns.

use std::fmt::Write as _;

use jiff::Timestamp;
use tidegate_policy::model::Label;

use super::command::WORDS;
use super::facts::{Input, Presence};
use super::select::{self, SeenTerminal, SeenWindow};
use super::why::{Answer, Verdict};
use crate::history::{Entry, Kind};

/// The most bytes of a sentence.
const LONGEST: usize = 300;
/// Lines of one list that are printed; how many more there are is said.
const ROWS: usize = 500;
/// Columns of the terminal that is written for.
const WIDTH: usize = 80;

/// Printable ASCII alone, at most 300 bytes: anything else becomes `?`.
pub fn clean(text: &str) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut clean: String = text.chars().map(printable).take(LONGEST + 1).collect();
    if clean.len() > LONGEST {
        clean.truncate(LONGEST - 3);
        clean.push_str("...");
    }
    clean
}

/// One line of any length and script, without what could forge or disturb another.
pub fn line(text: &str) -> String {
    let disturbs = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    text.chars().map(|c| if disturbs(c) { '?' } else { c }).collect()
}

/// `Tue 24 Nov 22:00 UTC`: an instant that belongs to no schedule.
pub fn utc(at: Timestamp) -> String {
    at.strftime("%a %d %b %H:%M UTC").to_string()
}

/// `45s`, `12m`, `3h05m`, `2d04h`: how long ago, in the two largest units.
pub fn age(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let s = seconds.unsigned_abs();
    match s {
        0..60 => format!("{sign}{s}s"),
        60..3600 => format!("{sign}{}m", s / 60),
        3600..86_400 => format!("{sign}{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{sign}{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// `812 B`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Tenths of the unit, in whole numbers.
    let mut tenths = count.saturating_mul(10) / 1024;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Columns of their widest cell, two spaces apart; the last one is not padded.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut put = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    put(&mut heads.iter().copied());
    for row in rows {
        put(&mut row.iter().map(String::as_str));
    }
    out
}

pub(super) fn everything(input: &Input<'_>) -> String {
    let mut out = whoami(input);
    let _ = write!(out, "\nYour windows, now and in the next 7 days:\n\n{}", windows(input));
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
    }
    if let Some(closed) = input.closed {
        let _ = writeln!(out, "Nobody is admitted now: {}.", clean(closed).trim_end_matches('.'));
    }
    out
}

pub(super) fn windows(input: &Input<'_>) -> String {
    let seen = select::windows(input);
    if seen.is_empty() {
        return "no support window names you\n".to_owned();
    }
    let mut out = String::new();
    for (index, window) in seen.iter().take(ROWS).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        window_block(&mut out, window);
    }
    more(&mut out, seen.len());
    out
}

fn window_block(out: &mut String, seen: &SeenWindow<'_>) {
    let window = &seen.window;
    let _ = write!(out, "{}", window.meta.key);
    if let Some(case) = &window.case {
        let _ = write!(out, "  case {}", clean(&case.number));
    }
    out.push('\n');
    if window.suspended {
        out.push_str("  suspended: admits nobody\n");
    }
    for occurrence in &seen.occurrences {
        let closes = window.schedule.human(occurrence.closes);
        if occurrence.open {
            let _ = writeln!(out, "  open     until {closes}");
        } else {
            // `Tue 24 Nov 22:00 Europe/Berlin`: the zone is said once, at the end.
            let opens = window.schedule.human(occurrence.opens);
            let start = opens.rsplit_once(' ').map_or(opens.as_str(), |(start, _)| start);
            let _ = writeln!(out, "  opens    {start} to {closes}");
        }
    }
    if seen.further {
        out.push_str("           and more often in the next 7 days\n");
    }
    if seen.occurrences.is_empty() && !window.suspended {
        match seen.later {
            Some(later) => {
                let _ = writeln!(out, "  opens    {}", window.schedule.human(later.opens));
            }
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
        wrap(out, "  problem  ", &format!("{flaw}; the version before stays in force"));
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
    let seen = select::terminals(input);
    if seen.is_empty() {
        return "no support window gives you a terminal\n".to_owned();
    }
    let name = |t: &SeenTerminal| t.terminal.meta.key.name.as_str().len();
    let width = seen.iter().take(ROWS).map(name).max().unwrap_or(0).clamp(8, 24);
    let mut out = String::new();
    for seen in seen.iter().take(ROWS) {
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
            wrap(&mut out, &" ".repeat(head.len()), &format!("problem: {flaw}"));
        }
    }
    more(&mut out, seen.len());
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
    let sessions = select::sessions(input);
    if sessions.is_empty() {
        return "you have no session\n".to_owned();
    }
    let mut out = String::new();
    for session in sessions.iter().take(ROWS) {
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
    more(&mut out, sessions.len());
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
    let terminal = select::terminals(input)
        .first()
        .map_or_else(|| "TERMINAL".to_owned(), |t| t.terminal.meta.key.name.to_string());
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

pub(super) fn why(answer: &Answer) -> String {
    let mut out = String::new();
    for one in &answer.verdicts {
        match &one.verdict {
            Verdict::Admitted { window, until, case, .. } => {
                let case = case.as_ref().map(|c| format!(" (case {})", clean(c)));
                let text = format!(
                    "admitted now by window {window} until {until}{}",
                    case.unwrap_or_default()
                );
                wrap(&mut out, "", &format!("{}: {text}", one.target));
            }
            Verdict::Refused { sentence, .. } => {
                wrap(&mut out, "", &format!("{}: refused: {}", one.target, clean(sentence)));
            }
        }
    }
    for note in &answer.notes {
        wrap(&mut out, "note: ", &clean(note));
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
    let what = match past.kind {
        Kind::Refused => "refused",
        Kind::Ended => "ended",
    };
    let mut target = clean(&past.terminal);
    if !past.service.is_empty() {
        let _ = write!(target, "/{}", clean(&past.service));
    }
    let head = format!("  {}  ", utc(past.time));
    let by = match past.kind {
        Kind::Refused => String::new(),
        Kind::Ended => format!(" by {}", clean(&past.code)),
    };
    let separator = if target.is_empty() { "" } else { " " };
    let often = if past.count > 1 { format!(" {} times", past.count) } else { String::new() };
    wrap(out, &head, &format!("{target}{separator}{what}{often}{by}: {}", clean(&past.sentence)));
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

fn more(out: &mut String, count: usize) {
    if let Some(more) = count.checked_sub(ROWS).filter(|more| *more > 0) {
        let _ = writeln!(out, "... and {more} more; ask with: why TERMINAL");
    }
}

/// Writes `text` behind `head`, broken at spaces so that no line is wider than the terminal; further
/// lines are indented as far. A word that is too long stands alone.
fn wrap(out: &mut String, head: &str, text: &str) {
    let indent = head.len();
    let mut column = indent;
    out.push_str(head);
    let mut first = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !first && column + 1 + word.len() > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
            first = true;
        }
        if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
        first = false;
    }
    out.push('\n');
}
