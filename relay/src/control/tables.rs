//! What `status`, `sessions` and `cut` print for a person.

use std::fmt::Write as _;

use tidegate_commands::text::{bytes, line as plain, table};

use super::protocol::{Cut, FindingView, Status, TerminalStatus};
use crate::view::{SessionView, age, utc};

pub(super) fn status(status: &Status) -> String {
    let mut out = String::new();
    let Status { version, relay, relay_pod, policy, audit, .. } = status;
    let domain = status.domain.as_deref().unwrap_or("no mesh: the policy has no Mesh");
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(out, "{label:<11}{value}");
    };
    line("relay", &format!("{relay} ({relay_pod}), tidegate-relay {version}"));
    line("mesh", domain);
    line("since", &utc(status.since));
    line("listens on", &status.listeners.join(", "));
    if let Some(admin) = &status.admin {
        line("admin port", admin);
    }
    for key in &status.host_keys {
        let accepted = key.accepted;
        let known = match accepted.saturating_add(key.not_accepted) {
            0 => String::new(),
            all => format!(", accepted by {accepted} of {all} clients"),
        };
        let state = if key.serves { "serves" } else { "is announced" };
        line("host key", &format!("{} {state}{known}", key.fingerprint));
    }
    let age = age(policy.age_seconds);
    line(
        "policy",
        &format!(
            "{age} old; {} login users, {} terminals, {} windows ({} open now)",
            policy.login_users, policy.terminals, policy.support_windows, policy.open_windows
        ),
    );
    if let Some(stale) = &policy.stale {
        line("", stale);
    }
    let healthy = audit.problem.as_deref().unwrap_or("healthy");
    line("audit", &format!("{healthy}, line {}", audit.seq));
    match status.not_ready.split_first() {
        None => line("ready", "yes"),
        Some((first, rest)) => {
            line("ready", &format!("no: {first}"));
            for reason in rest {
                line("", reason);
            }
        }
    }
    if status.draining {
        line("draining", "yes: nobody new is admitted");
    }
    findings(&mut out, &status.findings);
    terminals(&mut out, &status.terminals);
    let _ = writeln!(out, "\nSessions: {}", status.sessions.len());
    if !status.sessions.is_empty() {
        out.push_str(&sessions(&status.sessions));
    }
    out
}

fn findings(out: &mut String, findings: &[FindingView]) {
    let _ = writeln!(out, "\nFindings: {}", findings.len());
    for finding in findings {
        let mut place = String::new();
        if let Some(file) = &finding.file {
            place.push_str(file);
            for number in [finding.line, finding.column].into_iter().flatten() {
                let _ = write!(place, ":{number}");
            }
            place.push_str(": ");
        }
        if let Some(object) = &finding.object {
            let _ = write!(place, "{object}: ");
        }
        let note = if finding.severity == "error" { "" } else { "note: " };
        let _ = writeln!(out, "  {}{note}{}", plain(&place), plain(&finding.message));
    }
}

fn terminals(out: &mut String, terminals: &[TerminalStatus]) {
    let connected = terminals.iter().filter(|t| t.connected).count();
    let _ = writeln!(out, "\nTerminals: {connected} of {} connected", terminals.len());
    if terminals.is_empty() {
        return;
    }
    let rows: Vec<_> = terminals
        .iter()
        .map(|t| {
            let from = t.source.map_or_else(|| "-".to_owned(), |source| source.to_string());
            let state = match (t.connected, t.connected_since, t.last_seen) {
                (true, Some(since), _) => format!("connected since {}", utc(since)),
                (true, None, _) => "connected".to_owned(),
                (false, _, Some(at)) => format!("last seen {}", utc(at)),
                (false, _, None) => "never seen".to_owned(),
            };
            let state = if t.contended { format!("{state}, contended") } else { state };
            let services =
                if t.services.is_empty() { "-".to_owned() } else { t.services.join(",") };
            vec![format!("{}/{}", t.namespace, t.name), services, from, state]
        })
        .collect();
    out.push_str(&table(&["TERMINAL", "OFFERS", "FROM", "STATE"], &rows));
}

/// Three lines per session, oldest first: its name alone takes half of 80 columns.
pub(super) fn sessions(sessions: &[SessionView]) -> String {
    if sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut sessions: Vec<_> = sessions.iter().collect();
    sessions.sort_by_key(|session| (session.opened_at, &session.name));
    let mut out = String::new();
    for s in sessions {
        let case = s.case.as_ref().map(|case| format!(", case {}", plain(case)));
        let _ = writeln!(out, "{}  {} on {}/{}", s.name, s.user, s.terminal, s.service);
        let _ = writeln!(
            out,
            "  window {}/{}{}, from {}",
            s.window.namespace,
            s.window.name,
            case.unwrap_or_default(),
            s.source
        );
        let _ = writeln!(
            out,
            "  since {} until {}, {} in, {} out",
            utc(s.opened_at),
            utc(s.deadline),
            bytes(s.bytes_in),
            bytes(s.bytes_out)
        );
    }
    out
}

pub(super) fn cut(cut: &Cut) -> String {
    let Cut { session, user, terminal, service, .. } = cut;
    format!("cut {session}: {user} on {terminal}/{service}\n")
}
