//! Fifth step: writes the status, where it is not as it should be. Touches the network.

use tidegate_crds::Relay;
use tidegate_crds::relay::RelayStatus;

use super::{Error, MANAGER};
use crate::Context;

/// Writes `wanted` unless it is there already, and an event where people are told something new.
pub async fn update(ctx: &Context, relay: &Relay, wanted: RelayStatus) -> Result<(), Error> {
    if relay.status.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let find = |status: &RelayStatus, kind: &str| {
        status.conditions.iter().find(|condition| condition.type_ == kind).cloned()
    };
    if let Some(stalled) = find(&wanted, "Stalled") {
        let before = relay.status.as_ref().and_then(|status| find(status, "Stalled"));
        if before.is_none_or(|before| before.message != stalled.message) {
            ctx.events.warn(relay, &stalled.reason, &stalled.message, "Deploy");
        }
    }
    match ctx.writer.apply_status(MANAGER, relay, &wanted).await {
        Ok(_) => Ok(()),
        // It has gone, or come anew: the next event tells.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(Error::Status(error)),
    }
}
