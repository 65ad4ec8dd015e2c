//! What happens between a staff channel's request and its first byte, in this order and no other:
//! authorise, locate, claim, record, join (invariants 1, 6 and 7). Whatever fails on the way undoes
//! what came before it, except a claim that may have been made.

use std::sync::Arc;

use tidegate_policy::decide::{Admission, Allow, Candidate};

use crate::audit::AuditError;
use crate::authorise::{Wanted, authorise};
use crate::claim::{Claim, Claimed, Claims as _};
use crate::clock;
use crate::denies::DENIES;
use crate::end;
use crate::failpoint::{Point, reach};
use crate::gate::Gate;
use crate::join::join;
use crate::locate::{DIAL, DialError, Located, TerminalLink};
use crate::metrics::Opened;
use crate::sentences;
use crate::session::{EndedBy, Session, SessionId};
use crate::ssh::{Channel, OpenRequest, RefuseCode};
use crate::staff::{StaffLink, Target};
use crate::warden;

/// The code where the login user went before her channel was opened.
const STAFF_LEFT: &str = "StaffLeft";

/// Why a channel is not opened.
#[derive(Debug)]
pub struct Refused {
    pub why: RefuseCode,
    /// A stable CamelCase word for metrics, the audit and `--json`.
    pub code: &'static str,
    pub sentence: String,
    /// What it was, by whichever name it was asked for; `None` where the policy refuses it.
    pub target: Option<Target>,
}

impl Refused {
    pub fn new(why: RefuseCode, code: &'static str, sentence: String) -> Self {
        Self { why, code, sentence, target: None }
    }

    pub fn of(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }
}

/// Answers one `direct-tcpip` open of a login user, and carries its bytes until it is over.
pub async fn open(gate: &Arc<Gate>, staff: &Arc<StaffLink>, request: OpenRequest) {
    let began = clock::now().boot;
    let wanted = Wanted { host: request.host.clone(), port: request.port };
    match admit(gate, staff, &wanted).await {
        Ok((session, terminal)) => {
            reach(Point::Recorded);
            let _open = session.channels.token();
            let channel = request.accept();
            reach(Point::Accepted);
            gate.metrics.open(Opened::Joined);
            gate.metrics.admission(clock::now().boot.since(began));
            join(&session, channel, terminal).await;
        }
        Err(refused) => {
            gate.metrics.open(Opened::Refused);
            gate.trail.deny(staff, &wanted, &refused).await;
            request.refuse(refused.why, &refused.sentence);
            if staff.peer.denies.too_many() {
                staff.peer.end(&sentences::too_many_refusals(DENIES));
            }
        }
    }
}

/// Runs the steps up to the record; the session is live and written down when this returns.
async fn admit(
    gate: &Arc<Gate>,
    staff: &Arc<StaffLink>,
    wanted: &Wanted,
) -> Result<(Arc<Session>, Channel), Refused> {
    let allow = authorise(gate, staff, wanted)?;
    reach(Point::Authorised);
    let target = target(&allow);
    let admitted = admit_to(gate, staff, wanted, allow, target.clone()).await;
    admitted.map_err(|refused| refused.of(target))
}

/// What is decided about, by its own names.
pub fn target(allow: &Allow) -> Target {
    (allow.terminal.meta.key.name.clone(), allow.service.name.clone())
}

/// `allow` is the first decision, about `target`.
async fn admit_to(
    gate: &Arc<Gate>,
    staff: &Arc<StaffLink>,
    wanted: &Wanted,
    allow: Allow,
    target: Target,
) -> Result<(Arc<Session>, Channel), Refused> {
    // One session is made at a time on one target; parallel channels of a client then join it.
    let making = staff.making(&target);
    let guard = making.lock().await;
    if let Some(session) = staff.session(&target) {
        drop(guard);
        return further(gate, staff, wanted, &session, &allow).await;
    }
    // Time may have passed while another channel of this connection was made.
    let allow = authorise(gate, staff, wanted)?;
    let (link, channel) = locate(gate, staff, &allow).await?;
    reach(Point::Located);
    // A dial may take seconds: the decision has to hold now.
    let allow = authorise(gate, staff, wanted)?;
    // Before the claim, which cannot be taken back where the window admits one session.
    let most = gate.settings().sessions_per_user;
    let place = gate.sessions.reserve(&staff.who.login, most).ok_or_else(|| {
        let sentence = sentences::too_many_sessions(&staff.who.login, most);
        Refused::new(RefuseCode::Shortage, "TooManySessions", sentence)
    })?;
    let (candidate, id, claim) = claim(gate, staff, &allow).await?;
    reach(Point::Claimed);
    let rate = gate.settings().bandwidth_per_session;
    let session = make(staff, allow, candidate, id, &link, claim, rate);
    let _settled = Settled(Arc::clone(&session));
    // The warden sees the session from here on, and so do the ends of its two connections; what came
    // before that is seen here.
    let left = !staff.add(target, Arc::clone(&session));
    place.take(Arc::clone(&session));
    if left {
        end::staff_left(gate, &session);
    }
    warden::review(gate, &session, clock::now());
    if link.is_gone() {
        let reason = sentences::terminal_left(&link.terminal.name);
        end::end(gate, &session, EndedBy::Terminal, reason);
    }
    still_live(&session)?;
    record(gate, &session).await?;
    Ok((session, channel))
}

/// Finds the terminal's connection and opens its channel: a dead terminal burns no claim, nor does a
/// login user who has left by then.
async fn locate(
    gate: &Gate,
    staff: &StaffLink,
    allow: &Allow,
) -> Result<(Arc<TerminalLink>, Channel), Refused> {
    let name = &allow.terminal.meta.key.name;
    let failed = |code, sentence| Refused::new(RefuseCode::ConnectFailed, code, sentence);
    let left = || failed(STAFF_LEFT, sentences::staff_left());
    let (link, forward) = match gate.registry.locate(name, &allow.service.name) {
        Located::Here(link, forward) => (link, forward),
        Located::NotOffered => {
            return Err(failed("NotOffered", sentences::not_offered(name, &allow.service)));
        }
        Located::NotConnected(last_seen) => {
            return Err(failed("NotConnected", sentences::not_connected(name, last_seen)));
        }
    };
    let dialled = tokio::select! {
        biased;
        () = staff.peer.closed() => return Err(left()),
        dialled = link.dial(&forward, &staff.who.login) => dialled,
    };
    match dialled {
        Ok(_) if staff.peer.is_gone() => Err(left()),
        Ok(channel) => Ok((link, channel)),
        Err(DialError::Refused(words)) => {
            let sentence = sentences::service_refused(name, &allow.service, &words);
            Err(failed("ServiceRefused", sentence))
        }
        Err(DialError::Full) => {
            Err(Refused::new(RefuseCode::Shortage, "NoRoom", sentences::no_room()))
        }
        Err(DialError::Gone) => Err(failed("NotConnected", sentences::terminal_gone(name))),
        Err(DialError::Silent) => Err(failed("NoAnswer", sentences::terminal_silent(name, DIAL))),
    }
}

/// Takes the first of the windows that still has room; where none limits, nothing is claimed.
async fn claim(
    gate: &Gate,
    staff: &StaffLink,
    allow: &Allow,
) -> Result<(Candidate, SessionId, Option<Claim>), Refused> {
    let now = clock::now().wall;
    let id = SessionId::generate(now);
    let mut last = None;
    for candidate in &allow.candidates {
        let claimed = gate.claims.claim(candidate, id, &staff.who.login, now).await;
        gate.metrics.claim((&claimed).into());
        match claimed {
            Claimed::Free => return Ok((candidate.clone(), id, None)),
            Claimed::Taken(claim) => return Ok((candidate.clone(), id, Some(claim))),
            full => last = claim_refused(candidate, &full),
        }
    }
    // `decide` allows with one candidate at least, and each that is not had says why.
    Err(last.unwrap_or_else(|| {
        Refused::new(RefuseCode::Shortage, "ClaimUnavailable", sentences::claim_failed())
    }))
}

/// Why a window could not be had; `None` if it could.
pub fn claim_refused(candidate: &Candidate, claimed: &Claimed) -> Option<Refused> {
    let window = &candidate.window.meta.key;
    Some(match claimed {
        Claimed::Free | Claimed::Taken(_) => return None,
        Claimed::Full { holders } => {
            let sentence = sentences::window_full(window, holders);
            Refused::new(RefuseCode::Shortage, "WindowFull", sentence)
        }
        Claimed::Used { holder } => {
            let sentence = sentences::one_time_used(window, holder.as_ref());
            Refused::new(RefuseCode::Prohibited, "OneTimeUsed", sentence)
        }
        Claimed::Unavailable { why } => {
            tracing::error!(%window, %why, "claiming a support window");
            let sentence = sentences::claim_failed();
            Refused::new(RefuseCode::Shortage, "ClaimUnavailable", sentence)
        }
        Claimed::Away { why } => {
            tracing::warn!(%window, %why, "claiming a support window");
            let sentence = sentences::claim_away(window);
            Refused::new(RefuseCode::Shortage, "ClaimUnavailable", sentence)
        }
        Claimed::Uncertain { why } => {
            tracing::error!(%window, %why, "claiming a support window");
            let sentence = sentences::claim_uncertain(window);
            Refused::new(RefuseCode::Prohibited, "ClaimUncertain", sentence)
        }
    })
}

fn make(
    staff: &Arc<StaffLink>,
    allow: Allow,
    candidate: Candidate,
    id: SessionId,
    link: &Arc<TerminalLink>,
    claim: Option<Claim>,
    rate: Option<u64>,
) -> Arc<Session> {
    let now = clock::now();
    let admission = Admission {
        staff: staff.who.clone(),
        terminal: allow.terminal,
        service: allow.service,
        window: candidate.window,
        occurrence: candidate.occurrence,
        opened_at: now.wall,
        deadline: candidate.deadline,
    };
    Session::new(id, admission, Arc::clone(staff), Arc::clone(link), claim, rate, now)
}

/// Says when dropped that a session which has not been written down will not be: however an admission
/// ends, a panic included, nobody waits in vain for it.
struct Settled(Arc<Session>);

impl Drop for Settled {
    fn drop(&mut self) {
        self.0.settle(false);
    }
}

/// Writes the admission down before the first byte; a session that ended meanwhile stays ended.
async fn record(gate: &Arc<Gate>, session: &Arc<Session>) -> Result<(), Refused> {
    if let Err(error) = gate.trail.admitted(session).await {
        tracing::error!(%error, "a session was refused for want of its record");
        let sentence = sentences::audit_unavailable();
        // Not settled yet: the channel is refused, and the connection stays.
        end::end(gate, session, EndedBy::Fault, sentence.clone());
        // A line that is late may come yet, and then its end has to follow.
        session.settle(error == AuditError::Late);
        return Err(Refused::new(RefuseCode::Shortage, "AuditUnavailable", sentence));
    }
    still_live(session)
}

fn still_live(session: &Session) -> Result<(), Refused> {
    let Some(end) = session.end() else { return Ok(()) };
    let code = match end.by {
        EndedBy::Staff => STAFF_LEFT,
        by => by.as_str(),
    };
    Err(Refused::new(RefuseCode::Prohibited, code, end.reason))
}

/// A further channel of a live session: authorised by what `authorise` has just said, counted, and
/// written down like the first.
async fn further(
    gate: &Arc<Gate>,
    staff: &Arc<StaffLink>,
    wanted: &Wanted,
    session: &Arc<Session>,
    allow: &Allow,
) -> Result<(Arc<Session>, Channel), Refused> {
    let (link, channel) = if paced(session).await {
        // It may have waited long.
        let allow = authorise(gate, staff, wanted)?;
        still_live(session)?;
        locate(gate, staff, &allow).await?
    } else {
        locate(gate, staff, allow).await?
    };
    // A dial may take seconds: the decision has to hold now, by this session's own window.
    let allow = authorise(gate, staff, wanted)?;
    warden::review(gate, session, clock::now());
    still_live(session)?;
    let window = &session.admission.window.meta;
    if allow.candidates.iter().all(|candidate| candidate.window.meta.uid != window.uid) {
        let sentence = sentences::revoked(&sentences::window_admits_no_longer(&window.key));
        return Err(Refused::new(RefuseCode::Prohibited, "Revoked", sentence));
    }
    if link.peer.id != session.terminal.peer.id {
        // A newer connection of the terminal has taken over; the session ends with the old one.
        let sentence = sentences::taken_over(&link.terminal.name);
        return Err(Refused::new(RefuseCode::ConnectFailed, "TakenOver", sentence));
    }
    if gate.trail.further(session).await.is_err() {
        let sentence = sentences::audit_unavailable();
        return Err(Refused::new(RefuseCode::Shortage, "AuditUnavailable", sentence));
    }
    still_live(session)?;
    Ok((Arc::clone(session), channel))
}

/// Waits until the session's pace lets one more channel begin, or the session has ended; whether it
/// waited. Its connection's end is one of the session's, too. What it waits for is bounded by the
/// windows of the channels that a connection may have.
async fn paced(session: &Session) -> bool {
    let now = clock::now().boot;
    let Some(at) = session.pace.as_ref().and_then(|pace| pace.begins_at(now)) else { return false };
    tokio::select! {
        biased;
        () = session.ended() => {}
        () = tokio::time::sleep(at.since(now)) => {}
    }
    true
}
