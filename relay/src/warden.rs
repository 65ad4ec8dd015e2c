//! Watches over the live sessions: deadlines on both clocks, idleness, and every change of policy
//! (invariants 2 and 3). It needs nothing but this process to be right.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::decide::{Deny, admit_staff, may_attach_until, recheck};

use crate::clock::{self, Boot, Now};
use crate::end::{self, Ending};
use crate::gate::Gate;
use crate::sentences;
use crate::session::{EndedBy, Session};

/// The longest time between two looks at the clocks; the contract allows 250 ms.
const LOOK: Duration = Duration::from_millis(100);
/// Without a look for this long the whole process stood still (suspend, SIGSTOP): whatever was
/// about to be sent is checked first.
const GAP: Duration = Duration::from_millis(500);
/// How often the connections are looked at when nothing changed: windows open and close.
const ROUND: Duration = Duration::from_secs(1);

/// When the warden last looked, and when a writer last did in its place.
#[derive(Debug, Default)]
pub struct LastLook {
    warden: Instant,
    writer: Instant,
}

/// Milliseconds of boot time.
#[derive(Debug, Default)]
struct Instant(AtomicU64);

impl Instant {
    fn set(&self, at: Boot) {
        let millis = u64::try_from(at.since_start().as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Release);
    }

    fn get(&self) -> Boot {
        Boot::from_start(Duration::from_millis(self.0.load(Ordering::Acquire)))
    }
}

impl LastLook {
    /// Marks the start, so that the time before it is no gap.
    pub fn begin(&self) {
        self.warden.set(clock::boot());
    }

    /// Whether a writer has to look before it writes: the warden has not for [`GAP`], nor has another
    /// writer for as long as the warden may take between two looks. Without the second a warden that
    /// is late for want of CPU time had each write look at each session, which makes it later.
    fn is_due(&self, now: Boot) -> bool {
        now.since(self.warden.get()) >= GAP && now.since(self.writer.get()) >= LOOK
    }

    /// A writer has looked at all deadlines, as of `at`.
    fn looked(&self, at: Boot) {
        self.writer.set(at);
    }
}

/// Runs for as long as the relay does.
pub async fn watch(gate: Arc<Gate>) {
    let mut changed = gate.feed();
    let mut checked = clock::now();
    let mut round = checked.boot;
    let mut attached = HashMap::new();
    loop {
        gate.last_look.warden.set(checked.boot);
        // One that has ended may wait for its last line for as long as the disk is full.
        let live = gate.sessions.all().into_iter().filter(|session| session.is_live());
        let next = live.map(|session| session.deadline().remaining(checked)).min();
        let look = next.unwrap_or(LOOK).min(LOOK);
        let policy_changed = tokio::select! {
            () = tokio::time::sleep(look) => false,
            changed = changed.changed() => changed.is_ok(),
        };
        let now = clock::now();
        // After a gap this may be the first to look: what outlived its deadline ends as a writer would
        // end it.
        before_write(&gate);
        let sessions = gate.sessions.all();
        end::all(&gate, due(&sessions, |it| look_at(&gate, it, now, checked.boot)));
        // Whether a window has opened or closed is asked once a second; what changed, at once.
        if policy_changed || now.boot.since(round) >= ROUND {
            round = now.boot;
            end::all(&gate, due(&sessions, |it| decide_again(&gate, it, now)));
            review_links(&gate, now, &mut attached);
        }
        checked = now;
    }
}

/// Asked before each write to any connection, and by the warden itself. After a gap in which the process stood still, every
/// session that outlived its deadline ends before anything is written, and both of its connections
/// are closed without a word: bytes may be sealed and not written yet.
pub fn before_write(gate: &Arc<Gate>) {
    if !gate.last_look.is_due(clock::boot()) {
        return;
    }
    let now = clock::now();
    let checked = gate.last_look.warden.get();
    let sessions = gate.sessions.all();
    let outlived = due(&sessions, |session| {
        session.is_due(now).then(|| end::deadline(gate, session, now, checked))
    });
    end::all(gate, outlived);
    // Those too that another writer is ending at this moment, and has not come to close yet.
    for session in sessions.iter().filter(|session| session.is_due(now)) {
        session.staff.peer.kill();
        session.terminal.peer.kill();
    }
    // Only now: whoever writes meanwhile looks for itself.
    gate.last_look.looked(now.boot);
}

/// The live ones of `sessions` that are to end, and why.
fn due(
    sessions: &[Arc<Session>],
    why: impl Fn(&Session) -> Option<Ending>,
) -> Vec<(Arc<Session>, Ending)> {
    let live = sessions.iter().filter(|session| session.is_live());
    live.filter_map(|session| Some((Arc::clone(session), why(session)?))).collect()
}

fn look_at(gate: &Gate, session: &Session, now: Now, checked: Boot) -> Option<Ending> {
    if session.is_due(now) {
        return Some(end::deadline(gate, session, now, checked));
    }
    let timeout = session.admission.window.limits.idle_timeout?.unsigned_abs();
    (session.idle_for(now) >= timeout).then(|| {
        let reason = sentences::idle(&session.admission.window.meta.key, timeout);
        Ending::early(EndedBy::Idle, reason)
    })
}

/// Decides one session again, as the warden does with all of them, and ends it where it is to be cut.
pub fn review(gate: &Arc<Gate>, session: &Arc<Session>, now: Now) {
    let session = std::slice::from_ref(session);
    end::all(gate, due(session, |session| decide_again(gate, session, now)));
}

/// Decides a live session again, under the policy of now: it goes on, with the same deadline or an
/// earlier one, or is to be cut.
fn decide_again(gate: &Gate, session: &Session, now: Now) -> Option<Ending> {
    let policy = gate.policy();
    // A clock that was set back does not cut what it admitted: the deadline on the boot clock ends it.
    let at = now.wall.max(session.admission.opened_at);
    match recheck(&policy.snapshot, &session.admission, at) {
        Ok(deadline) => {
            session.move_deadline(deadline, now);
            None
        }
        Err(reason) => {
            let why = Deny { reason, next_opening: None }.to_string();
            Some(revoked(&why))
        }
    }
}

fn revoked(why: &str) -> Ending {
    Ending::early(EndedBy::Revoked, sentences::revoked(why))
}

/// A terminal that may be connected for a while, as long as the policy of this serial is in force: some
/// thousand windows may select it, and looking at all of them each second is too much.
struct Attached {
    serial: u64,
    from: Timestamp,
    until: Timestamp,
}

/// Connections whose key, name or time is no longer good are closed, their sessions first. `attached` is
/// what the last round found of terminals' connections, by their ids.
fn review_links(gate: &Arc<Gate>, now: Now, attached: &mut HashMap<u64, Attached>) {
    let policy = gate.policy();
    let mut before = std::mem::take(attached);
    let mut still = |id: u64, find: &dyn Fn() -> Option<Timestamp>| {
        // A clock that was set back is not within it either.
        let known = before.remove(&id).filter(|known| {
            known.serial == policy.serial && known.from <= now.wall && now.wall < known.until
        });
        let found = || Some(Attached { serial: policy.serial, from: now.wall, until: find()? });
        known.or_else(found).map(|known| attached.insert(id, known)).is_some()
    };
    let snapshot = &policy.snapshot;
    for link in gate.staff.all() {
        if let Err(deny) = admit_staff(snapshot, &link.who, now.wall) {
            link.peer.end(&sentences::revoked(&deny.to_string()));
        }
    }
    let live: Vec<_> = gate.sessions.all().into_iter().filter(|s| s.is_live()).collect();
    let busy: HashSet<u64> = live.iter().map(|session| session.terminal.peer.id).collect();
    for link in gate.registry.all() {
        let name = &link.terminal.name;
        let terminal = snapshot.terminal(name).filter(|terminal| {
            terminal.meta.key == link.terminal
                && !terminal.suspended
                && terminal.public_keys.contains(&link.key)
        });
        let Some(terminal) = terminal else {
            let reason = sentences::terminal_withdrawn(name);
            // A key that was taken away is no matter of the session's own decision.
            let of_link = |session: &Session| session.terminal.peer.id == link.peer.id;
            end::all(gate, due(&live, |it| of_link(it).then(|| revoked(&reason))));
            link.peer.end(&reason);
            continue;
        };
        gate.registry.keep_only(&link, |forward| {
            let service = terminal.service(forward.service.as_str());
            service.is_some_and(|service| service.port == forward.service_port)
        });
        let find = || may_attach_until(snapshot, terminal, now.wall);
        if busy.contains(&link.peer.id) || still(link.peer.id, &find) {
            continue;
        }
        let reason = sentences::not_attached_now(snapshot, terminal, now.wall);
        link.peer.end(&reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_look_once_in_a_while_where_the_warden_is_late() {
        let look = LastLook::default();
        let at = |millis| Boot::from_start(Duration::from_millis(millis));
        look.warden.set(at(10_000));
        assert!(!look.is_due(at(10_499)));
        assert!(look.is_due(at(10_500)), "a gap");
        assert!(look.is_due(at(10_501)), "nobody has looked yet");
        look.looked(at(10_500));
        let looks = (10_500..11_500).filter(|millis| {
            let due = look.is_due(at(*millis));
            if due {
                look.looked(at(*millis));
            }
            due
        });
        assert_eq!(looks.count(), 9, "of a write in each millisecond");
        look.warden.set(at(12_000));
        assert!(!look.is_due(at(12_000)));
        assert!(look.is_due(at(20_000)), "it stood still anew");
    }
}
