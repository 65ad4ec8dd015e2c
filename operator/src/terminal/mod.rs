//! Terminal: whether it is accepted, and the keys and ports that are its own. Pure; `world` runs it.

use tidegate_crds::common::Holds;
use tidegate_crds::terminal::{EnforcedBy, TerminalStatus};

use crate::holding::Holding;
pub use crate::holding::status;

impl Holding for TerminalStatus {
    /// Until there is an agent, every terminal is a stock one, where nobody but the relay enforces windows.
    fn of(holds: Option<Holds>) -> Self {
        Self { holds, enforced_by: Some(EnforcedBy::Relay), ..Self::default() }
    }
}
