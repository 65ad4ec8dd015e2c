//! LoginUser: whether it is accepted, and the keys that are its own. Pure; `world` runs it.

use jiff::Timestamp;
use tidegate_crds::common::Holds;
use tidegate_crds::login_user::LoginUserStatus;

use crate::world::before::{self, Before};
use crate::world::word::Word;

/// What the status of a user is to say. `holds`: what it has for itself then.
pub fn status(
    holds: Option<Holds>,
    word: &Word,
    generation: i64,
    before: &Before,
    now: Timestamp,
) -> Option<(LoginUserStatus, Before)> {
    let status = LoginUserStatus { holds, ..LoginUserStatus::default() };
    before::change(status, word, false, generation, before, now)
}
