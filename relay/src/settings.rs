//! What a Relay resource asks of this process; the defaults are those of the resource.

use std::time::Duration;

use crate::accept::Caps;

/// The settings in force; all limits are per replica and count what is open at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The Relay's name.
    pub name: String,
    pub ports: Vec<u16>,
    pub caps: Caps,
    /// Sessions that one login user may have.
    pub sessions_per_user: u32,
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "relay".to_owned(),
            ports: vec![5938, 80],
            caps: Caps { unauthenticated: 1024, per_source: 128 },
            sessions_per_user: 8,
            drain: Duration::from_mins(30),
        }
    }
}
