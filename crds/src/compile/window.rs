//! SupportWindow to policy.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use tidegate_policy::cron::Cron;
use tidegate_policy::model::{
    self, Case, Label, Limits, Login, TerminalSelector, UserSelector, Window,
};
use tidegate_policy::schedule::{
    LONGEST_DURATION, Once, Recurring, SHORTEST_DURATION, Schedule, Zone,
};
use tidegate_policy::text;

use super::{Identity, Refusal, Refusals, reason};
use crate::SupportWindow;
use crate::common::Need;
use crate::support_window as kind;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A SupportWindow.
pub fn window(resource: &SupportWindow, identity: &Identity) -> Result<Window, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    let spec = &resource.spec;
    let meta = refusals.meta(&resource.metadata, identity);
    let case = spec.case.as_ref().and_then(|case| compile_case(&mut refusals, case));
    let namespace = meta.as_ref().map(|meta| &meta.key.namespace);
    let users = compile_users(&mut refusals, &spec.users, namespace);
    let terminals = compile_terminals(&mut refusals, &spec.terminals);
    if spec.services.is_empty() {
        refusals.add("spec.services", reason::REQUIRED, "must name at least one service");
    }
    let services = refusals.labels("spec.services", &spec.services);
    let schedule = compile_schedule(&mut refusals, &spec.schedule);
    if spec.one_time && spec.schedule.once.is_none() {
        refusals.add(
            "spec.oneTime",
            reason::INVALID_SCHEDULE,
            "must be false unless the schedule is once",
        );
    }
    let limits = spec.limits.as_ref().map(|l| compile_limits(&mut refusals, l)).unwrap_or_default();
    let compiled = meta.zip(schedule).map(|(meta, schedule)| Window {
        meta,
        case,
        users,
        terminals,
        services,
        schedule,
        consent: need(spec.consent),
        code: need(spec.code),
        recording: match spec.recording {
            kind::Recording::None => model::Recording::None,
            kind::Recording::Endpoint => model::Recording::Endpoint,
        },
        one_time: spec.one_time,
        limits,
        suspended: spec.suspend,
    });
    refusals.finish(compiled)
}

fn need(need: Need) -> model::Need {
    match need {
        Need::Required => model::Need::Required,
        Need::NotRequired => model::Need::NotRequired,
    }
}

/// Sentences quote the number, so it is printable ASCII.
fn compile_case(refusals: &mut Refusals, case: &kind::Case) -> Option<Case> {
    let number = case.number.as_str();
    let printable = number.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if number.is_empty() || number.len() > 64 || !printable || number.trim() != number {
        refusals.add(
            "spec.case.number",
            reason::INVALID_VALUE,
            "must be 1 to 64 printable ASCII characters, without spaces at its ends",
        );
        return None;
    }
    if let Some(url) = &case.url {
        let web = url.starts_with("https://") || url.starts_with("http://");
        if !web || url.len() > 512 || !url.bytes().all(|b| b.is_ascii_graphic()) {
            refusals.add(
                "spec.case.url",
                reason::INVALID_VALUE,
                "must be an http or https address",
            );
        }
    }
    Some(Case { number: number.into(), url: case.url.as_deref().map(Into::into) })
}

/// References never cross namespaces: beside the Mesh's logins, only those of the window's own.
fn compile_users(
    refusals: &mut Refusals,
    users: &kind::Users,
    namespace: Option<&Label>,
) -> UserSelector {
    if users.names.is_empty() && users.groups.is_empty() {
        refusals.add("spec.users", reason::REQUIRED, "must name at least one user or group");
    }
    let mut names = BTreeSet::new();
    for (i, text) in users.names.iter().enumerate() {
        let at = format!("spec.users.names[{i}]");
        let login = Login::parse(text).map_err(|e| {
            format!("'{}' is no login such as alice or bob.acme: {e}", text::shown(text, 60))
        });
        let Some(login) = refusals.take(at.as_str(), reason::INVALID_NAME, login) else { continue };
        if login.tenant.as_ref().is_some_and(|tenant| Some(tenant) != namespace) {
            refusals.add(
                at,
                reason::INVALID_NAME,
                "names a user of another namespace; a window names users of the Mesh (alice) and of its own namespace (bob.acme)",
            );
            continue;
        }
        if !names.insert(login) {
            refusals.add(at, reason::DUPLICATE, "is listed twice");
        }
    }
    UserSelector { names, groups: refusals.labels("spec.users.groups", &users.groups) }
}

fn compile_terminals(refusals: &mut Refusals, terminals: &kind::Terminals) -> TerminalSelector {
    if terminals.guests.is_some() {
        refusals.not_supported("spec.terminals.guests");
    }
    if terminals.names.is_empty() && terminals.selector.is_none() {
        refusals.add(
            "spec.terminals",
            reason::REQUIRED,
            "must name at least one terminal, or select some",
        );
    }
    TerminalSelector {
        names: refusals.labels("spec.terminals.names", &terminals.names),
        selector: terminals
            .selector
            .as_ref()
            .map(|s| refusals.selector("spec.terminals.selector", s)),
    }
}

fn compile_schedule(refusals: &mut Refusals, schedule: &kind::Schedule) -> Option<Schedule> {
    match (&schedule.once, &schedule.recurring) {
        (Some(once), None) => compile_once(refusals, once).map(Schedule::Once),
        (None, Some(recurring)) => {
            compile_recurring(refusals, recurring).map(|r| Schedule::Recurring(Box::new(r)))
        }
        _ => {
            refusals.add(
                "spec.schedule",
                reason::INVALID_SCHEDULE,
                "must have exactly one of once and recurring",
            );
            None
        }
    }
}

fn compile_once(refusals: &mut Refusals, once: &kind::Once) -> Option<Once> {
    let (start, end) = ("spec.schedule.once.start", "spec.schedule.once.end");
    let from = refusals.take(start, reason::INVALID_TIME, text::timestamp_and_offset(&once.start));
    let to = refusals.take(end, reason::INVALID_TIME, text::timestamp(&once.end));
    let ((from, offset), to) = from.zip(to)?;
    let compiled = refusals.take(end, reason::INVALID_SCHEDULE, Once::new(from, to, offset))?;
    let lasts = to.duration_since(from);
    if !(SHORTEST_DURATION..=LONGEST_DURATION).contains(&lasts) {
        refusals.add(end, reason::INVALID_SCHEDULE, "must be 1m to 168h after start");
        return None;
    }
    Some(compiled)
}

fn compile_recurring(refusals: &mut Refusals, recurring: &kind::Recurring) -> Option<Recurring> {
    let field = |name: &str| format!("spec.schedule.recurring.{name}");
    let cron = refusals.take(field("cron"), reason::INVALID_SCHEDULE, Cron::parse(&recurring.cron));
    if cron.as_ref().is_some_and(|cron| !cron.can_fire()) {
        refusals.add(
            field("cron"),
            reason::INVALID_SCHEDULE,
            "names only dates that never come, such as 30 February",
        );
        return None;
    }
    let zone = refusals.take(
        field("timeZone"),
        reason::INVALID_SCHEDULE,
        Zone::parse(&recurring.time_zone),
    );
    let duration = refusals.duration(
        &field("duration"),
        &recurring.duration,
        SHORTEST_DURATION,
        LONGEST_DURATION,
    );
    let not_before = refusals.timestamp(&field("notBefore"), recurring.not_before.as_ref());
    let not_after = refusals.timestamp(&field("notAfter"), recurring.not_after.as_ref());
    let mut except = BTreeSet::new();
    for (i, date) in recurring.except.iter().enumerate() {
        let at = format!("{}[{i}]", field("except"));
        let Some(date) = refusals.take(at.as_str(), reason::INVALID_TIME, text::date(date)) else {
            continue;
        };
        if !except.insert(date) {
            refusals.add(at, reason::DUPLICATE, "is listed twice");
        }
    }
    let recurring = Recurring::new(cron?, zone?, duration?);
    let recurring = refusals.take(field("cron"), reason::INVALID_SCHEDULE, recurring)?;
    let bounded = recurring.bounded(not_before, not_after);
    let bounded = refusals.take(field("notAfter"), reason::INVALID_SCHEDULE, bounded)?;
    Some(bounded.except(except))
}

fn compile_limits(refusals: &mut Refusals, limits: &kind::SessionLimits) -> Limits {
    let max_sessions = limits.max_sessions.and_then(|most| {
        let most = u32::try_from(most).ok().filter(|most| (1..=1000).contains(most));
        if most.is_none() {
            refusals.add("spec.limits.maxSessions", reason::INVALID_VALUE, "must be 1 to 1000");
        }
        most
    });
    let mut bound = |field: &str, text: Option<&String>| {
        text.and_then(|text| refusals.duration(field, text, SECOND, LONGEST_DURATION))
    };
    Limits {
        max_sessions,
        max_session_duration: bound(
            "spec.limits.maxSessionDuration",
            limits.max_session_duration.as_ref(),
        ),
        idle_timeout: bound("spec.limits.idleTimeout", limits.idle_timeout.as_ref()),
    }
}
