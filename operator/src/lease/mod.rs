//! Leader election: of several replicas one leads, by a coordination.k8s.io Lease.
//!
//! `state` is the pure part: what to do about a lease that was seen. `keeper` reads and writes the
//! lease. [`Held`] is the local claim that every write is checked against: it expires by this machine's
//! boot clock before another replica may take the lease, whether or not anybody is told.

mod held;
mod keeper;
mod state;

use std::time::Duration;

pub use held::{Held, Pass};
pub use keeper::{Keeper, LeaseError};
pub use state::{Action, Machine, Record};

/// How long others wait after they last saw the lease change.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long the holder itself writes after it sent the renewal that last succeeded: the rest of the
/// duration is for a write that is still on its way.
pub const HOLD: Duration = Duration::from_secs(12);
/// How often the holder renews.
pub const RENEW: Duration = Duration::from_secs(5);
/// How often a standby looks, and a holder whose renewal failed tries again.
pub const LOOK: Duration = Duration::from_secs(2);
