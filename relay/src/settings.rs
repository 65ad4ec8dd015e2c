//! What the Relay resource asks of this process.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tidegate_crds::compile::RelaySettings;

use crate::accept::Caps;
use crate::sources::Rate;

/// As many seconds' key exchanges may begin at once: a whole site that dials again after an outage.
const BURST: u32 = 8;

/// The settings in force; all limits are per replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The Relay's name.
    pub name: String,
    pub caps: Caps,
    /// Handshakes of SSH and TLS that peers of one source prefix may begin. Each costs us up to a millisecond.
    pub exchanges: Rate,
    /// Connections that one login user may have.
    pub connections_per_user: u32,
    /// Sessions that one login user may have.
    pub sessions_per_user: u32,
    /// Bytes a second of one session, each way.
    pub bandwidth_per_session: Option<u64>,
    pub drain: Duration,
    /// Where proxies are, which must send a PROXY header.
    proxies: Vec<IpNet>,
}

impl Settings {
    /// Whether a connection from there must begin with a PROXY header; any other must not.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|range| range.contains(&peer))
    }
}

impl From<&RelaySettings> for Settings {
    fn from(relay: &RelaySettings) -> Self {
        Self {
            name: relay.name.to_string(),
            caps: Caps {
                unauthenticated: places(relay.limits.unauthenticated),
                per_source: places(relay.limits.per_source),
            },
            exchanges: Rate {
                per_second: relay.limits.handshakes_per_source,
                burst: relay.limits.handshakes_per_source.saturating_mul(BURST),
            },
            connections_per_user: relay.limits.connections_per_user,
            sessions_per_user: relay.limits.sessions_per_user,
            bandwidth_per_session: relay.limits.bandwidth_per_session,
            drain: relay.drain_timeout.unsigned_abs(),
            proxies: relay.proxies.clone(),
        }
    }
}

fn places(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
