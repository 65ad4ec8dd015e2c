//! The view for programs: the resources' field names, instants in UTC, one JSON object.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_policy::model::{Label, Need, Recording, Window};

use super::facts::{Input, Presence};
use super::select;
use super::why::{Answer, OneService, Verdict};
use crate::history::Kind;

/// Pretty, with a newline at the end. Only strings can hold anything but ASCII; there it is escaped, so
/// that no terminal acts on it.
fn print(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        if c == '\n' || c == ' ' || c.is_ascii_graphic() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// An object without the members that are null.
fn object(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// `{"windows": […]}`, and `omitted` where there are more.
fn listed(what: &str, items: &[Value], more: usize) -> String {
    print(&object(json!({ what: items, "omitted": (more > 0).then_some(more) })))
}

fn instant(at: Timestamp) -> Value {
    Value::String(at.to_string())
}

pub(super) fn whoami(input: &Input<'_>) -> String {
    let staff = input.staff;
    let user = input.snapshot.user(&staff.login);
    print(&object(json!({
        "login": staff.login.to_string(),
        "source": staff.source.to_canonical().to_string(),
        "keyFingerprint": staff.key.fingerprint(),
        "groups": user.map(|u| u.groups.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "validUntil": user.and_then(|u| u.valid_until).map(instant),
        "sourceRanges": user.map(|u| u.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "domain": &*input.snapshot.mesh().domain,
        "relay": input.relay,
        "policyAgeSeconds": input.policy_age.as_secs(),
        "admitsNobody": input.closed,
        "problems": user
            .map(|u| select::flaws(input, "LoginUser", &u.meta.key))
            .filter(|flaws| !flaws.is_empty()),
    })))
}

pub(super) fn windows(input: &Input<'_>) -> String {
    let (windows, more) = select::windows(input);
    let windows: Vec<_> = windows
        .into_iter()
        .map(|seen| {
            let window = seen.window;
            let occurrence =
                |opens, closes| json!({"opensAt": instant(opens), "closesAt": instant(closes)});
            let next: Vec<_> = seen
                .occurrences
                .iter()
                .map(|o| occurrence(o.opens, o.closes))
                .chain(seen.later.map(|later| occurrence(later.opens, later.closes)))
                .collect();
            object(json!({
                "namespace": window.meta.key.namespace.as_str(),
                "name": window.meta.key.name.as_str(),
                "uid": &*window.meta.uid,
                "case": case(window),
                "open": seen.occurrences.iter().any(|o| o.open),
                "nextOccurrences": next,
                "terminals": seen.terminals.iter().map(Label::as_str).collect::<Vec<_>>(),
                "services": window.services.iter().map(Label::as_str).collect::<Vec<_>>(),
                "consent": need(window.consent),
                "code": need(window.code),
                "recording": match window.recording {
                    Recording::None => "None",
                    Recording::Endpoint => "Endpoint",
                },
                "oneTime": window.one_time,
                "limits": limits(window),
                "suspend": window.suspended,
                "problems": (!seen.flaws.is_empty()).then_some(seen.flaws),
            }))
        })
        .collect();
    listed("windows", &windows, more)
}

fn need(need: Need) -> &'static str {
    match need {
        Need::Required => "Required",
        Need::NotRequired => "NotRequired",
    }
}

fn case(window: &Window) -> Option<Value> {
    let case = window.case.as_ref()?;
    Some(object(json!({"number": &*case.number, "url": case.url.as_deref()})))
}

fn limits(window: &Window) -> Option<Value> {
    let limits = &window.limits;
    let value = object(json!({
        "maxSessions": limits.max_sessions,
        "maxSessionDuration": limits.max_session_duration.map(select::duration),
        "idleTimeout": limits.idle_timeout.map(select::duration),
    }));
    value.as_object().is_some_and(|map| !map.is_empty()).then_some(value)
}

pub(super) fn terminals(input: &Input<'_>) -> String {
    let (terminals, more) = select::terminals(input);
    let terminals: Vec<_> = terminals
        .into_iter()
        .map(|seen| {
            let services: Vec<_> = seen
                .services
                .iter()
                .map(|s| object(json!({"name": s.name.as_str(), "port": s.port, "listenPort": s.listen_port})))
                .collect();
            let mut value = json!({
                "namespace": seen.terminal.meta.key.namespace.as_str(),
                "name": seen.terminal.meta.key.name.as_str(),
                "services": services,
                "suspend": seen.terminal.suspended,
                "connected": matches!(seen.presence, Presence::Connected { .. }),
                "problems": (!seen.flaws.is_empty()).then_some(seen.flaws),
            });
            let more = match seen.presence {
                Presence::Connected { since, from, contended, services, client: _ } => json!({
                    "connectedSince": instant(since),
                    "source": from.ip().to_canonical().to_string(),
                    "contended": contended,
                    "offers": services.iter().map(Label::as_str).collect::<Vec<_>>(),
                }),
                Presence::LastSeen { at, from } => json!({
                    "lastSeen": instant(at),
                    "source": from.ip().to_canonical().to_string(),
                }),
                Presence::Never => json!({}),
            };
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
            object(value)
        })
        .collect();
    listed("terminals", &terminals, more)
}

pub(super) fn sessions(input: &Input<'_>) -> String {
    let (sessions, more) = select::sessions(input);
    let sessions: Vec<_> = sessions.into_iter().map(|session| json!(session)).collect();
    listed("sessions", &sessions, more)
}

pub(super) fn help() -> String {
    print(&json!({
        "commands": ["whoami", "windows", "terminals", "sessions", "why TERMINAL", "why TERMINAL/SERVICE", "help"],
        "options": ["--json"],
    }))
}

pub(super) fn why(answer: &Answer) -> String {
    let past: Vec<_> = answer
        .past
        .iter()
        .map(|entry| {
            object(json!({
                "time": instant(entry.time),
                "kind": match entry.kind { Kind::Refused => "Refused", Kind::Ended => "Ended" },
                "service": (!entry.service.is_empty()).then_some(&entry.service),
                "reason": (entry.kind == Kind::Refused).then_some(&entry.code),
                "endedBy": (entry.kind == Kind::Ended).then_some(&entry.code),
                "message": entry.sentence,
                "session": entry.session,
                "count": entry.count,
            }))
        })
        .collect();
    print(&json!({
        "terminal": answer.terminal,
        "admitted": answer.admitted,
        "services": answer.verdicts.iter().map(verdict).collect::<Vec<_>>(),
        "notes": answer.notes,
        "history": past,
    }))
}

fn verdict(one: &OneService) -> Value {
    object(match &one.verdict {
        Verdict::Admitted { window, uid, opens_at, deadline, case, .. } => json!({
            "service": one.service,
            "admitted": true,
            "window": {"namespace": window.namespace.as_str(), "name": window.name.as_str(), "uid": uid},
            "opensAt": instant(*opens_at),
            "deadline": instant(*deadline),
            "case": case,
        }),
        Verdict::Refused { code, sentence, next_opening } => json!({
            "service": one.service,
            "admitted": false,
            "reason": code,
            "message": sentence,
            "nextOpening": next_opening.map(instant),
        }),
    })
}
