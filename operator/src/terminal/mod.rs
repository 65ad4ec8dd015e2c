//! Terminal: whether it is accepted, and the keys and ports that are its own. Pure; `world` runs it.

use jiff::Timestamp;
use tidegate_crds::common::Holds;
use tidegate_crds::terminal::{EnforcedBy, TerminalStatus};

use crate::world::before::{self, Before};
use crate::world::word::Word;

/// What the status of a terminal is to say. `holds`: what it has for itself once accepted; a refused
/// terminal keeps what it had, for when its spec is good again. Until there is an agent, every terminal
/// is a stock one, where nobody but the relay enforces windows.
pub fn status(
    holds: Option<Holds>,
    word: &Word,
    generation: i64,
    before: &Before,
    now: Timestamp,
) -> Option<(TerminalStatus, Before)> {
    let enforced_by = Some(EnforcedBy::Relay);
    let status = TerminalStatus { holds, enforced_by, ..TerminalStatus::default() };
    before::change(status, word, false, generation, before, now)
}
