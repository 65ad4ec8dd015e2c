//! Why she may, or may not, reach a terminal now: what a channel would be told, before she tries.

use jiff::Timestamp;
use tidegate_policy::decide::{Allow, Decision, Deny, Request, decide};
use tidegate_policy::model::{Label, ObjectKey};

use super::facts::{Input, Presence};
use super::format::{clean, utc};
use super::select::{self, SeenTerminal};

use crate::history::Entry;

/// Refusals and endings that are shown for one terminal.
const SHOWN: usize = 10;

/// Notes that are shown.
const NOTES: usize = 20;

/// The port that ssh asks for when it is told none.
const SSH: u32 = 22;

pub(super) struct Answer {
    /// At least one of the services that were asked about.
    pub admitted: bool,
    /// As asked, in the form that policy knows.
    pub terminal: String,
    /// Not empty.
    pub verdicts: Vec<OneService>,
    pub notes: Vec<String>,
    /// Newest first.
    pub past: Vec<Entry>,
}

pub(super) struct OneService {
    /// `kiosk-17/ssh`
    pub target: String,
    pub service: Option<String>,
    pub verdict: Verdict,
}

pub(super) enum Verdict {
    Admitted {
        window: ObjectKey,
        uid: String,
        /// The occurrence, and the session's deadline: as an instant and as people read it.
        opens_at: Timestamp,
        deadline: Timestamp,
        until: String,
        case: Option<String>,
    },
    Refused {
        code: String,
        sentence: String,
        next_opening: Option<Timestamp>,
    },
}

pub(super) fn why(input: &Input<'_>, typed: &str, service: Option<&str>) -> Answer {
    let name = bare(input, typed);
    let known = Label::parse(&name).ok().and_then(|label| select::terminal(input, &label));
    let Some((seen, windows)) = known else {
        // It reads the same whether it does not exist or is not hers.
        let verdict = judge(input, typed, SSH);
        let one = OneService { target: clean(&name), service: None, verdict };
        return answer(input, name, vec![one], Vec::new());
    };
    let verdicts = match service {
        Some(service) => vec![one_service(input, &seen, service)],
        None => seen
            .services
            .iter()
            .map(|service| one_service(input, &seen, service.name.as_str()))
            .collect(),
    };
    // Her windows name services, but the terminal declares none of them: ask for ssh, and say so.
    let verdicts = if verdicts.is_empty() {
        let verdict = judge(input, &name, SSH);
        vec![OneService { target: name.clone(), service: None, verdict }]
    } else {
        verdicts
    };
    let mut notes = notes(&seen, service);
    for key in windows.iter().map(|window| &window.meta.key) {
        let flaws = select::flaws(input, "SupportWindow", key);
        notes.extend(flaws.iter().map(|flaw| format!("SupportWindow {key}: {flaw}")));
    }
    notes.truncate(NOTES);
    answer(input, name, verdicts, notes)
}

fn answer(
    input: &Input<'_>,
    terminal: String,
    verdicts: Vec<OneService>,
    notes: Vec<String>,
) -> Answer {
    let admitted = verdicts.iter().any(|one| matches!(one.verdict, Verdict::Admitted { .. }));
    let mut past: Vec<_> = input
        .history
        .iter()
        // What concerns no terminal (X11, agent) is told with each.
        .filter(|entry| entry.terminal.is_empty() || bare(input, &entry.terminal) == terminal)
        .cloned()
        .collect();
    past.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    past.truncate(SHOWN);
    Answer { admitted, terminal, verdicts, notes, past }
}

/// The name as the policy has it: lower case, without one trailing dot and without the mesh's domain.
fn bare(input: &Input<'_>, typed: &str) -> String {
    let name = typed.strip_suffix('.').unwrap_or(typed).to_ascii_lowercase();
    let domain: &str = &input.snapshot.mesh().domain;
    let inside = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    inside.map(str::to_owned).unwrap_or(name)
}

fn one_service(input: &Input<'_>, seen: &SeenTerminal<'_>, typed: &str) -> OneService {
    let name = seen.terminal.meta.key.name.as_str();
    let declared = seen.terminal.service(typed);
    let verdict = match declared {
        Some(service) => judge(input, name, u32::from(service.port)),
        None => Verdict::Refused {
            code: "UnknownService".to_owned(),
            sentence: undeclared(seen, typed),
            next_opening: None,
        },
    };
    let target = format!("{name}/{}", clean(typed));
    OneService { target, service: Some(clean(typed)), verdict }
}

fn undeclared(seen: &SeenTerminal<'_>, typed: &str) -> String {
    let name = &seen.terminal.meta.key.name;
    let services: Vec<_> = seen.services.iter().map(|s| s.name.as_str()).collect();
    let shown: String = typed.chars().take(63).collect();
    clean(&format!("{name} has no service {shown}; yours there: {}", services.join(", ")))
}

/// What a channel to this port would be told now.
fn judge(input: &Input<'_>, host: &str, port: u32) -> Verdict {
    // No terminal runs an agent yet.
    let request = Request { staff: input.staff, host, port, agent: false, way: None };
    match decide(input.snapshot, &request, input.now) {
        Decision::Allow(allow) => claimable(input, &allow),
        Decision::Deny(deny) => denied(&deny),
    }
}

fn denied(deny: &Deny) -> Verdict {
    Verdict::Refused {
        code: deny.reason.code().to_owned(),
        sentence: deny.to_string(),
        next_opening: deny.next_opening.as_ref().map(|next| next.at),
    }
}

/// The first candidate that could be claimed, as the core would take it.
fn claimable(input: &Input<'_>, allow: &Allow) -> Verdict {
    let refused = |code: &str, sentence: String| Verdict::Refused {
        code: code.to_owned(),
        sentence,
        next_opening: None,
    };
    if let Some(closed) = input.closed {
        return refused("Unavailable", closed.to_owned());
    }
    let mut first_refusal = None;
    for candidate in &allow.candidates {
        match (input.claimable)(candidate) {
            Ok(()) => {
                let window = &candidate.window;
                return Verdict::Admitted {
                    window: window.meta.key.clone(),
                    uid: window.meta.uid.to_string(),
                    opens_at: candidate.occurrence.opens,
                    deadline: candidate.deadline,
                    until: window.schedule.human(candidate.deadline),
                    case: window.case.as_ref().map(|case| case.number.to_string()),
                };
            }
            Err(sentence) => {
                first_refusal.get_or_insert(sentence);
            }
        }
    }
    let sentence = first_refusal.unwrap_or_else(|| "no window admits".to_owned());
    refused("WindowFull", sentence)
}

fn notes(seen: &SeenTerminal<'_>, asked: Option<&str>) -> Vec<String> {
    let name = &seen.terminal.meta.key.name;
    let mut notes = Vec::new();
    match &seen.presence {
        Presence::Connected { services, contended, .. } => {
            let missing: Vec<_> = seen
                .services
                .iter()
                .filter(|service| asked.is_none_or(|asked| asked == service.name.as_str()))
                .filter(|service| !services.contains(&service.name))
                .map(|service| service.name.as_str())
                .collect();
            if !missing.is_empty() {
                notes
                    .push(format!("{name} is connected but does not offer {}", missing.join(", ")));
            }
            if *contended {
                notes.push(format!("two connections fight for the name {name}"));
            }
        }
        Presence::LastSeen { at, from } => notes.push(format!(
            "{name} is not connected; it was last seen {} from {}",
            utc(*at),
            from.ip().to_canonical()
        )),
        Presence::Never => notes.push(format!("{name} is not connected and was never seen here")),
    }
    notes.extend(seen.flaws.iter().map(|flaw| format!("Terminal {name}: {flaw}")));
    notes
}
