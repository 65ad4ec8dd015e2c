//! The one place that says whether a login user's channel may be opened (invariant 1): policy,
//! its age, and the limits and health of this replica.

use std::sync::Arc;

use tidegate_policy::decide::{Allow, Decision, Request, decide};

use crate::admission::{Refused, target};
use crate::clock::{self, Now};
use crate::gate::Gate;
use crate::sentences;
use crate::source::Policy;
use crate::ssh::RefuseCode;
use crate::staff::{StaffLink, Target};

/// Where a staff channel wants to go, as sent: nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub host: String,
    pub port: u32,
}

/// Decides under the policy and at the instant of now.
pub fn authorise(gate: &Gate, staff: &StaffLink, wanted: &Wanted) -> Result<Allow, Refused> {
    let now = clock::now();
    if gate.is_draining() {
        return Err(Refused::new(RefuseCode::ConnectFailed, "Draining", sentences::draining()));
    }
    let policy = gate.policy();
    let request = Request {
        staff: &staff.who,
        host: &wanted.host,
        port: wanted.port,
        agent: false,
        way: Some(staff.peer.way),
    };
    let allow = match decide(&policy.snapshot, &request, now.wall) {
        Decision::Allow(allow) => allow,
        Decision::Deny(deny) => {
            return Err(Refused::new(RefuseCode::Prohibited, deny.reason.code(), deny.to_string()));
        }
    };
    let target = target(&allow);
    here(gate, &policy, staff, &target, allow, now).map_err(|refused| refused.of(target))
}

/// What keeps from this replica what the policy of now allows.
fn here(
    gate: &Gate,
    policy: &Policy,
    staff: &StaffLink,
    target: &Target,
    mut allow: Allow,
    now: Now,
) -> Result<Allow, Refused> {
    // Before anything is claimed: a one-time window must not be used up by a full disk.
    if gate.trail.audit.healthy().is_err() {
        let sentence = sentences::audit_unavailable();
        return Err(Refused::new(RefuseCode::Shortage, "AuditUnavailable", sentence));
    }
    let stale = |sentence| Refused::new(RefuseCode::Prohibited, "PolicyTooOld", sentence);
    // A window, user or terminal whose file has been unreadable for too long admits nobody new.
    let mut why = None;
    let (user, terminal) = (Arc::clone(&allow.user), Arc::clone(&allow.terminal));
    allow.candidates.retain(|candidate| {
        let admits = policy.admits(now, &user, &terminal, &candidate.window);
        admits.map_err(|error| why = Some(error.to_string())).is_ok()
    });
    if allow.candidates.is_empty() {
        return Err(stale(why.unwrap_or_default()));
    }
    let limit = gate.settings().sessions_per_user;
    if staff.session(target).is_none() && gate.sessions.of_user(&staff.who.login) >= limit {
        let sentence = sentences::too_many_sessions(&staff.who.login, limit);
        return Err(Refused::new(RefuseCode::Shortage, "TooManySessions", sentence));
    }
    Ok(allow)
}
