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

/// How long it may take until the sockets and channels of a session are closed; the promise is 1 s.
const CLOSED: Duration = Duration::from_secs(2);

/// Ends `session` for `reason` unless it has already ended; `true` if this call did it. Nothing of
/// it is forwarded once this returns; a staff connection that is left with no session is told why
/// and closed within 200 ms, otherwise the session's channels are.
pub fn end(
    gate: &Arc<Gate>,
    session: &Arc<Session>,
    by: EndedBy,
    reason: &str,
    overrun: Duration,
) -> bool {
    let at = clock::now().wall;
    if !session.take(End { by, reason: reason.to_owned(), at, overrun }) {
        return false;
    }
    // A connection that carries other sessions stays; one that is gone needs no word. While a session
    // is being admitted its channel is still to be answered, and the refusal gives the reason.
    let alone = session.staff.forget_ended() && session.is_settled();
    if alone && by != EndedBy::Staff {
        session.staff.peer.end(reason);
    }
    session.part();
    let (gate, session) = (Arc::clone(gate), Arc::clone(session));
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
    true
}

/// Ends the session because one of its clocks reached the deadline; `checked` is when it was last
/// seen not to have: a step of the wall clock since then is no overrun.
pub fn deadline(gate: &Arc<Gate>, session: &Arc<Session>, now: Now, checked: Boot) {
    let deadline = session.deadline();
    let overrun = deadline.overrun(now).min(now.boot.since(checked));
    let policy = gate.policy();
    let own = &session.admission.window;
    let declared = policy.snapshot.window(&own.meta.key);
    let declared = declared.filter(|window| window.meta.uid == own.meta.uid).unwrap_or(own);
    let reason = sentences::deadline(&session.admission, declared, deadline.wall());
    end(gate, session, EndedBy::Deadline, &reason, overrun);
}

/// Ends everything that hangs on a staff connection that is gone.
pub fn staff_left(gate: &Arc<Gate>, sessions: Vec<Arc<Session>>) {
    for session in sessions {
        end(gate, &session, EndedBy::Staff, &sentences::staff_left(), Duration::ZERO);
    }
}
