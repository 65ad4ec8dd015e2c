//! What the Relay resource asks of this process.

use std::time::Duration;

use tidegate_crds::compile::RelaySettings;

use crate::accept::Caps;

/// The settings in force; all limits are per replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The Relay's name.
    pub name: String,
    pub caps: Caps,
    /// Sessions that one login user may have.
    pub sessions_per_user: u32,
    /// Bytes a second of one session, each way.
    pub bandwidth_per_session: Option<u64>,
    pub drain: Duration,
}

impl From<&RelaySettings> for Settings {
    fn from(relay: &RelaySettings) -> Self {
        Self {
            name: relay.name.to_string(),
            caps: Caps {
                unauthenticated: places(relay.limits.unauthenticated),
                per_source: places(relay.limits.per_source),
            },
            sessions_per_user: relay.limits.sessions_per_user,
            bandwidth_per_session: relay.limits.bandwidth_per_session,
            drain: relay.drain_timeout.unsigned_abs(),
        }
    }
}

fn places(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
