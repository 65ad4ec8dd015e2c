//! Ends sessions: takes the liveness, closes what the relay owns, writes the end down and gives the
//! claim back (invariants 2, 3 and 7). Every end of every session comes through [`end`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::claim::Claims as _;
use crate::clock::{self, Boot, Now};
use crate::gate::Gate;
use crate::sentences;
use crate::session::{End, EndedBy, Session};

/// Why a session is to end.
#[derive(Debug)]
pub struct Ending {
    pub by: EndedBy,
    /// What the login user is told.
    pub reason: String,
    /// How long after its deadline.
    pub overrun: Duration,
}

impl Ending {
    /// Before its deadline.
    pub fn early(by: EndedBy, reason: String) -> Self {
        Self { by, reason, overrun: Duration::ZERO }
    }
}

/// How long it may take until the sockets and channels of a session are closed; the promise is 1 s.
const CLOSED: Duration = Duration::from_secs(2);

/// Ends `session` for `reason` unless it has already ended; `true` if this call did it. Nothing of
/// it is forwarded once this returns; a staff connection that is left with no session is told why
/// and closed within 200 ms, otherwise the session's channels are.
pub fn end(gate: &Arc<Gate>, session: &Arc<Session>, by: EndedBy, reason: String) -> bool {
    all(gate, [(Arc::clone(session), Ending::early(by, reason))]) == 1
}

/// Ends all of these at one instant, as [`end`] does one, and says how many had not ended before. The
/// liveness of each is taken before a channel of any is closed: a staff connection that is left with no
/// session by all of them together is told why before that.
pub fn all(gate: &Arc<Gate>, endings: impl IntoIterator<Item = (Arc<Session>, Ending)>) -> usize {
    let at = clock::now().wall;
    let mut taken = Vec::new();
    for (session, Ending { by, reason, overrun }) in endings {
        if session.take(End { by, reason: reason.clone(), at, overrun }) {
            taken.push((session, by, reason));
        }
    }
    let mut parting = Vec::new();
    for (session, by, reason) in taken {
        // A connection that carries other sessions stays; one that is gone needs no word. While a session
        // is being admitted its channel is still to be answered, and the refusal gives the reason.
        let alone = session.staff.forget_ended() && session.is_settled();
        if alone && by != EndedBy::Staff {
            session.staff.peer.end(&reason);
        }
        parting.push((session, alone));
    }
    let count = parting.len();
    for (session, alone) in parting {
        session.part();
        close(gate, session, alone);
    }
    count
}

/// Closes what is left of a session that has ended, writes its end down and gives its claim back.
fn close(gate: &Arc<Gate>, session: Arc<Session>, alone: bool) {
    let gate = Arc::clone(gate);
    gate.tasks.clone().spawn("end of a session", async move {
        let recording = gate.trail.ended(&session);
        let releasing = async {
            if let Some(claim) = session.take_claim() {
                gate.claims.release(claim).await;
            }
        };
        let closing = async {
            session.channels.close();
            session.channels.wait().await;
            if alone {
                session.staff.peer.closed().await;
            }
        };
        let closed = timeout(CLOSED, closing);
        let ((), (), closed) = tokio::join!(recording, releasing, closed);
        if closed.is_err() {
            tracing::error!(session = %session.id, "the channels of a session are not closed yet");
        }
        gate.sessions.remove(session.id);
        gate.trail.records.closed(session.id);
    });
}

/// That one of the session's clocks reached its deadline; `checked` is when it was last seen not to
/// have: a step of the wall clock since then is no overrun.
pub fn deadline(gate: &Gate, session: &Session, now: Now, checked: Boot) -> Ending {
    let deadline = session.deadline();
    let overrun = deadline.overrun(now).min(now.boot.since(checked));
    let policy = gate.policy();
    let own = &session.admission.window;
    let declared = policy.snapshot.window(&own.meta.key);
    let declared = declared.filter(|window| window.meta.uid == own.meta.uid).unwrap_or(own);
    let reason = sentences::deadline(&session.admission, declared, deadline.wall());
    Ending { by: EndedBy::Deadline, reason, overrun }
}

/// Ends a session whose staff connection is gone.
pub fn staff_left(gate: &Arc<Gate>, session: &Arc<Session>) {
    end(gate, session, EndedBy::Staff, sentences::staff_left());
}
