//! The view for programs: the resources' field names, instants in UTC, one JSON object.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_policy::model::{Label, Need, Recording, Window};

use super::facts::{Input, Presence};
use super::select;
use super::why::{Answer, OneService, Verdict};
use crate::history::Kind;

/// Pretty, with a newline at the end.
fn print(value: &Value) -> String {
    format!("{value:#}\n")
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
    })))
}

pub(super) fn windows(input: &Input<'_>) -> String {
    let windows: Vec<_> = select::windows(input)
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
    print(&json!({ "windows": windows }))
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
    let terminals: Vec<_> = select::terminals(input)
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
    print(&json!({ "terminals": terminals }))
}

pub(super) fn sessions(input: &Input<'_>) -> String {
    print(&json!({ "sessions": select::sessions(input) }))
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
