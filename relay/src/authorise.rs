//! The one place that says whether a login user's channel may be opened (invariant 1): policy,
//! its age, and the limits of this replica.

use tidegate_policy::decide::{Allow, Decision, Request, decide};

use crate::admission::Refused;
use crate::clock;
use crate::gate::Gate;
use crate::sentences;
use crate::ssh::{DirectOpen, Refusal};
use crate::staff::StaffLink;

/// Decides under the policy and at the instant of now.
pub fn authorise(gate: &Gate, staff: &StaffLink, open: &DirectOpen) -> Result<Allow, Refused> {
    let now = clock::now();
    if gate.is_draining() {
        return Err(Refused::new(Refusal::ConnectFailed, "Draining", sentences::draining()));
    }
    let policy = gate.policy();
    let request = Request { staff: &staff.who, host: &open.host, port: open.port, agent: false };
    let allow = match decide(&policy.snapshot, &request, now.wall) {
        Decision::Allow(allow) => allow,
        Decision::Deny(deny) => {
            return Err(Refused::new(Refusal::Prohibited, deny.reason.code(), deny.to_string()));
        }
    };
    let stale = |sentence| Refused::new(Refusal::Prohibited, "PolicyTooOld", sentence);
    policy.fresh(now).map_err(|error| stale(error.to_string()))?;
    let limit = gate.settings().sessions_per_user;
    let target = (allow.terminal.meta.key.name.clone(), allow.service.name.clone());
    if staff.session(&target).is_none() && gate.sessions.of_user(&staff.who.login) >= limit {
        let sentence = sentences::too_many_sessions(&staff.who.login, limit);
        return Err(Refused::new(Refusal::ResourceShortage, "TooManySessions", sentence));
    }
    Ok(allow)
}
