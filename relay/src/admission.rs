//! What happens between a staff channel's request and its first byte, in this order and no other:
//! authorise, locate, claim, record, join (invariants 1, 6 and 7). Whatever fails on the way undoes
//! what came before it, except a claim that may have been made.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::decide::{
    Admitted, Allowed, Candidate, Decision, Request, Target, TerminalKind, decide,
};
use uuid::Uuid;

use crate::claim::{Claim, ClaimError, ClaimRequest, Kind};
use crate::clock;
use crate::failpoint::failpoint;
use crate::end;
use crate::gate::Gate;
use crate::join::join;
use crate::locate::{DIAL, DialError, Forward, Located, TerminalLink};
use crate::sentences;
use crate::session::{AdmittedBy, EndedBy, Session};
use crate::ssh::{Channel, DirectOpen, Pending, Refusal};
use crate::staff::StaffLink;
use crate::target;

/// Why a channel is not opened.
#[derive(Debug)]
struct Refused {
    why: Refusal,
    /// A word for metrics, the trail and `--json`.
    code: &'static str,
    sentence: String,
}

fn refused(why: Refusal, code: &'static str, sentence: String) -> Refused {
    Refused { why, code, sentence }
}

/// Answers one `direct-tcpip` open of a login user, and carries its bytes until it is over.
pub async fn open(gate: &Arc<Gate>, staff: &Arc<StaffLink>, open: &DirectOpen, pending: Pending) {
    match admit(gate, staff, open).await {
        Ok((session, terminal)) => {
            let channel = pending.accept().await;
            failpoint!(Joined);
            join(&session, channel, terminal).await;
        }
        Err(refusal) => {
            let target = target::shown(open);
            gate.trail.deny(staff, &target, refusal.code, &refusal.sentence).await;
            pending.refuse(refusal.why, &refusal.sentence).await;
            if staff.denied_too_often() {
                staff.end(&sentences::too_many_refusals(crate::staff::DENIES)).await;
            }
        }
    }
}

/// Runs the steps up to the record; the session is live and written down when this returns.
async fn admit(
    gate: &Arc<Gate>,
    staff: &Arc<StaffLink>,
    open: &DirectOpen,
) -> Result<(Arc<Session>, Channel), Refused> {
    let allowed = authorise(gate, staff, open)?;
    failpoint!(Decided);
    let key = (allowed.terminal.meta.key.name.clone(), allowed.service.name.clone());
    let making = staff.making(&key);
    let guard = making.lock().await;
    if let Some(session) = staff.session(&key) {
        drop(guard);
        return further(gate, staff, open, &session, &allowed).await;
    }
    // Time may have passed while another channel of this connection was made.
    let allowed = authorise(gate, staff, open)?;
    let (link, channel) = locate(gate, &allowed).await?;
    failpoint!(Located);
    let (candidate, id, claim) = claim(gate, staff, &allowed).await?;
    let session = make(staff, &allowed, &candidate, id, &link, claim);
    gate.sessions.insert(Arc::clone(&session));
    staff.add(key, Arc::clone(&session));
    record(gate, &session).await?;
    Ok((session, channel))
}

/// The decision, under the policy and at the instant of now.
fn authorise(gate: &Gate, staff: &StaffLink, open: &DirectOpen) -> Result<Allowed, Refused> {
    let now = clock::now();
    if gate.is_draining() {
        return Err(refused(Refusal::ConnectFailed, "Draining", sentences::draining()));
    }
    let policy = gate.policy.current();
    let mesh = policy.snapshot.mesh();
    let (host, service) = target::parse(&policy.snapshot, open);
    let request = Request {
        login: &staff.login,
        key: &staff.key,
        source: staff.from.ip(),
        terminal: &host,
        service,
        kind: TerminalKind::Stock,
    };
    let allowed = match decide(&policy.snapshot, &request, now.wall) {
        Decision::Allow(allowed) => allowed,
        Decision::Deny(deny) => {
            return Err(refused(Refusal::Prohibited, deny.code(), deny.to_string()));
        }
    };
    let most = clock::positive(mesh.max_policy_age);
    let age = gate.policy.age(now);
    if age.is_none_or(|age| age > most) {
        let sentence = sentences::policy_too_old(age, most);
        return Err(refused(Refusal::Prohibited, "PolicyTooOld", sentence));
    }
    let limit = gate.settings().sessions_per_user;
    let held = |session: &Arc<Session>| session.is_live() && session.staff.login == staff.login;
    let count = gate.sessions.all().iter().filter(|session| held(session)).count();
    let joins = staff.session(&(allowed.terminal.meta.key.name.clone(), allowed.service.name.clone()));
    if joins.is_none() && u32::try_from(count).unwrap_or(u32::MAX) >= limit {
        let sentence = sentences::too_many_sessions(&staff.login, limit);
        return Err(refused(Refusal::ResourceShortage, "TooManySessions", sentence));
    }
    Ok(allowed)
}

/// Finds the terminal's connection and opens its channel: a dead terminal burns no claim.
async fn locate(
    gate: &Gate,
    allowed: &Allowed,
) -> Result<(Arc<TerminalLink>, Channel), Refused> {
    let name = &allowed.terminal.meta.key.name;
    let (link, forward) = match gate.registry.locate(name, &allowed.service.name) {
        Located::Here(link, forward) => (link, forward),
        Located::NotOffered => {
            let sentence = sentences::not_offered(name, &allowed.service);
            return Err(refused(Refusal::ConnectFailed, "NotOffered", sentence));
        }
        Located::NotConnected(last_seen) => {
            let sentence = sentences::not_connected(name, last_seen);
            return Err(refused(Refusal::ConnectFailed, "NotConnected", sentence));
        }
    };
    let channel = dial(&link, &forward, allowed).await?;
    Ok((link, channel))
}

async fn dial(
    link: &TerminalLink,
    forward: &Forward,
    allowed: &Allowed,
) -> Result<Channel, Refused> {
    let name = &allowed.terminal.meta.key.name;
    link.dial(forward).await.map_err(|error| {
        let (code, sentence) = match error {
            DialError::Refused => {
                ("ServiceRefused", sentences::service_refused(name, &allowed.service))
            }
            DialError::Gone => ("NotConnected", sentences::terminal_gone(name)),
            DialError::Silent => ("NoAnswer", sentences::terminal_silent(name, DIAL)),
        };
        refused(Refusal::ConnectFailed, code, sentence)
    })
}

/// Takes the first of the windows that still has room; where none limits, nothing is claimed.
async fn claim(
    gate: &Gate,
    staff: &StaffLink,
    allowed: &Allowed,
) -> Result<(Candidate, Uuid, Option<Claim>), Refused> {
    let id = Uuid::now_v7();
    let mut last = None;
    for candidate in &allowed.candidates {
        let window = &candidate.window;
        let kind = match (window.one_time, window.limits.max_sessions) {
            (true, _) => Kind::Once,
            (false, Some(max)) => Kind::Slots { max },
            (false, None) => return Ok((candidate.clone(), id, None)),
        };
        let request = ClaimRequest {
            window: window.meta.key.clone(),
            window_uid: window.meta.uid.to_string(),
            opens_at: candidate.occurrence.opens,
            closes_at: candidate.occurrence.closes,
            kind,
            session: id,
            user: staff.login.to_string(),
            relay: gate.name.clone(),
            at: clock::now().wall,
        };
        match gate.claims.claim(&request).await {
            Ok(claim) => return Ok((candidate.clone(), id, Some(claim))),
            Err(error) => last = Some(claim_refused(&error)),
        }
    }
    // `decide` allows with one candidate at least.
    Err(last.unwrap_or_else(|| {
        refused(Refusal::Prohibited, "NoOpenWindow", sentences::draining())
    }))
}

fn claim_refused(error: &ClaimError) -> Refused {
    match error {
        ClaimError::Full { window, max, holders } => {
            let sentence = sentences::window_full(window, *max, holders);
            refused(Refusal::ResourceShortage, "WindowFull", sentence)
        }
        ClaimError::Used { window, by } => {
            let sentence = sentences::one_time_used(window, by.as_ref());
            refused(Refusal::Prohibited, "OneTimeUsed", sentence)
        }
        ClaimError::Uncertain { window, .. } => {
            tracing::error!(%error, "claiming a support window");
            refused(Refusal::Prohibited, "ClaimUncertain", sentences::claim_uncertain(window))
        }
        ClaimError::Io { .. } | ClaimError::Gone(_) => {
            tracing::error!(%error, "claiming a support window");
            refused(Refusal::ResourceShortage, "ClaimFailed", sentences::claim_failed())
        }
    }
}

fn make(
    staff: &Arc<StaffLink>,
    allowed: &Allowed,
    candidate: &Candidate,
    id: Uuid,
    link: &Arc<TerminalLink>,
    claim: Option<Claim>,
) -> Arc<Session> {
    let now = clock::now();
    let window = &candidate.window;
    let admitted = Admitted {
        login: staff.login.clone(),
        key: staff.key.clone(),
        source: staff.from.ip(),
        terminal: allowed.terminal.meta.key.clone(),
        terminal_uid: allowed.terminal.meta.uid.clone(),
        terminal_key: link.key.clone(),
        service: allowed.service.name.clone(),
        service_port: allowed.service.port,
        kind: TerminalKind::Stock,
        window: window.meta.key.clone(),
        window_uid: window.meta.uid.clone(),
        opens_at: candidate.occurrence.opens,
        deadline: candidate.deadline,
        opened_at: now.wall,
    };
    let by = AdmittedBy {
        meta: window.meta.clone(),
        case: window.case.clone(),
        one_time: window.one_time,
        idle_timeout: window.limits.idle_timeout.map(clock::positive),
        deadline_reason: deadline_reason(staff, allowed, candidate),
    };
    Session::new(id, admitted, by, Arc::clone(staff), Arc::clone(link), claim, now)
}

/// Why the session will end at its deadline, if nothing ends it before.
fn deadline_reason(
    staff: &StaffLink,
    allowed: &Allowed,
    candidate: &Candidate,
) -> String {
    let window = &candidate.window;
    if candidate.deadline >= candidate.occurrence.closes {
        let shown = window.schedule.show(candidate.occurrence.closes);
        return sentences::closed(&window.meta.key, &shown);
    }
    if let Some(until) = allowed.user.valid_until
        && candidate.deadline >= until
    {
        return sentences::user_expired(&staff.login, until);
    }
    let longest = window.limits.max_session_duration.map_or(Duration::ZERO, clock::positive);
    sentences::longest_session(&window.meta.key, longest)
}

/// Writes the admission down before the first byte; a session that ended meanwhile stays ended.
async fn record(gate: &Arc<Gate>, session: &Arc<Session>) -> Result<(), Refused> {
    if let Err(error) = gate.trail.admitted(session).await {
        tracing::error!(%error, "a session was refused for want of its record");
        let sentence = sentences::audit_unavailable();
        end::end(gate, session, EndedBy::Fault, sentence.clone(), Duration::ZERO);
        return Err(refused(Refusal::ResourceShortage, "AuditUnavailable", sentence));
    }
    still_live(session)
}

fn still_live(session: &Session) -> Result<(), Refused> {
    match session.end() {
        None => Ok(()),
        Some(end) => Err(refused(Refusal::Prohibited, end.by.as_str(), end.reason)),
    }
}

/// A further channel of a live session: authorised by what `authorise` has just said, counted, and
/// written down like the first.
async fn further(
    gate: &Arc<Gate>,
    staff: &Arc<StaffLink>,
    open: &DirectOpen,
    session: &Arc<Session>,
    allowed: &Allowed,
) -> Result<(Arc<Session>, Channel), Refused> {
    let window = &session.window.meta.key;
    if !allowed.candidates.iter().any(|candidate| candidate.window.meta.key == *window) {
        // Another window admits, this session's does not: it is about to be cut.
        let sentence = sentences::revoked(&format!("support window {window} admits no longer"));
        return Err(refused(Refusal::Prohibited, "Revoked", sentence));
    }
    let (_, channel) = locate(gate, allowed).await?;
    // A dial may take seconds: the decision has to hold now.
    authorise(gate, staff, open)?;
    if gate.trail.further(session).await.is_err() {
        let sentence = sentences::audit_unavailable();
        return Err(refused(Refusal::ResourceShortage, "AuditUnavailable", sentence));
    }
    still_live(session)?;
    Ok((Arc::clone(session), channel))
}
