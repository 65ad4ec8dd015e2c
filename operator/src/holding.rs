//! What LoginUser and Terminal have in common: each is accepted or not, and has something for itself
//! that no other may have. Pure; `world` runs it.

use jiff::Timestamp;
use tidegate_crds::common::Holds;

use crate::world::before::{self, Before, Status};
use crate::world::word::Word;

/// The status of a kind whose objects have something for themselves.
pub trait Holding: Status {
    /// A status that says what is held, and nothing yet of conditions.
    fn of(holds: Option<Holds>) -> Self;
}

/// What the status of an object is to say. `holds`: what it has for itself then.
pub fn status<S: Holding>(
    holds: Option<Holds>,
    word: &Word,
    generation: i64,
    before: &Before,
    now: Timestamp,
) -> Option<(S, Before)> {
    before::change(S::of(holds), word, false, generation, before, now)
}
