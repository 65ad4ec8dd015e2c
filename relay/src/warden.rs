//! Watches over the live sessions: deadlines on both clocks, idleness, and every change of policy
//! (invariants 2 and 3). It needs nothing but this process to be right.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::decide::{Review, attach, enter, review};

use crate::clock::{self, Moment};
use crate::end;
use crate::gate::Gate;
use crate::sentences;
use crate::session::{EndedBy, Session};

/// The longest time between two looks at the clocks; the contract allows 250 ms.
const LOOK: Duration = Duration::from_millis(100);

/// Runs for as long as the relay does.
pub async fn watch(gate: Arc<Gate>) {
    let mut changed = gate.policy.subscribe();
    let mut checked = clock::now();
    let mut housekeeping = checked.boot;
    loop {
        let next = gate.sessions.all().iter().map(|s| s.deadline().left(checked)).min();
        let look = next.unwrap_or(LOOK).min(LOOK);
        let policy_changed = tokio::select! {
            () = tokio::time::sleep(look) => false,
            changed = changed.changed() => changed.is_ok(),
        };
        let now = clock::now();
        let sessions = gate.sessions.all();
        for session in &sessions {
            look_at(&gate, session, now, checked.boot);
        }
        // Whether a window has opened or closed is asked once a second; what changed, at once.
        if policy_changed || now.boot.saturating_sub(housekeeping) >= Duration::from_secs(1) {
            housekeeping = now.boot;
            review_all(&gate, &sessions, now);
            review_links(&gate, now);
        }
        checked = now;
    }
}

fn look_at(gate: &Arc<Gate>, session: &Arc<Session>, now: Moment, checked: Duration) {
    if !session.is_live() {
        return;
    }
    if session.deadline().passed(now) {
        end::deadline(gate, session, now, checked);
    } else if let Some(timeout) = session.window.idle_timeout
        && session.idle_for(now) >= timeout
    {
        let reason = sentences::idle(&session.window.meta.key, timeout);
        end::end(gate, session, EndedBy::Idle, reason, Duration::ZERO);
    }
}

/// Decides every live session again, under the policy of now.
fn review_all(gate: &Arc<Gate>, sessions: &[Arc<Session>], now: Moment) {
    let policy = gate.policy.current();
    for session in sessions.iter().filter(|session| session.is_live()) {
        match review(&policy.snapshot, &session.admitted(), now.wall) {
            Review::Keep { deadline } => {
                if deadline < session.deadline().wall {
                    session.move_deadline(deadline, now);
                }
            }
            Review::Cut { reason } => {
                let reason = sentences::revoked(&reason.to_string());
                end::end(gate, session, EndedBy::Revoked, reason, Duration::ZERO);
            }
        }
    }
}

/// Connections whose key, name or time is no longer good are closed; their sessions went before.
fn review_links(gate: &Arc<Gate>, now: Moment) {
    let policy = gate.policy.current();
    let snapshot = &policy.snapshot;
    for link in gate.staff.all() {
        let login = link.login.to_string();
        if let Err(deny) = enter(snapshot, &link.key, &login, link.from.ip(), now.wall) {
            let reason = sentences::revoked(&deny.to_string());
            gate.tasks.spawn("closing a connection", async move { link.end(&reason).await });
        }
    }
    let busy: HashSet<u64> = gate.sessions.all().iter().map(|s| s.terminal.id).collect();
    for link in gate.registry.all() {
        let name = &link.terminal.name;
        let terminal = snapshot.terminal(name).filter(|terminal| {
            terminal.meta.key == link.terminal
                && !terminal.suspended
                && terminal.public_keys.contains(&link.key)
        });
        let Some(terminal) = terminal else {
            let reason = sentences::terminal_withdrawn(name);
            gate.tasks.spawn("closing a connection", async move { link.end(&reason).await });
            continue;
        };
        gate.registry.keep_only(&link, |forward| {
            let service = terminal.service(forward.service.as_str());
            service.is_some_and(|service| service.port == forward.service_port)
        });
        if busy.contains(&link.id) {
            continue;
        }
        if let Err(deny) = attach(snapshot, &terminal, now.wall) {
            let reason = deny.to_string();
            gate.tasks.spawn("closing a connection", async move { link.end(&reason).await });
        }
    }
}
