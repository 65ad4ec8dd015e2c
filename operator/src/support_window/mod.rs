//! SupportWindow: whether it is accepted, and its next occurrences. Pure; `world` runs it.

pub mod occurrences;

use jiff::{SignedDuration, Timestamp};
use tidegate_crds::support_window::{NextOccurrence, SupportWindowStatus};
use tidegate_policy::model::Window;

use crate::world::before::{self, Before};
use crate::world::word::Word;
use occurrences::Plan;

/// What the status of a window is to say, and when it may be otherwise by time alone. `window`: where it
/// is valid and of a Mesh.
pub fn status(
    window: Option<&Window>,
    word: &Word,
    generation: i64,
    before: &Before,
    now: Timestamp,
) -> (Option<(SupportWindowStatus, Before)>, Option<Timestamp>) {
    let nothing = Plan { list: Vec::new(), expired: false, again: None };
    let plan = window.map_or(nothing, |window| {
        let listed = before.listed.filter(|_| before.observed == Some(generation));
        occurrences::plan(&window.schedule, window.suspended, listed, now)
    });
    let next_occurrences = plan.list.iter().map(|occurrence| NextOccurrence {
        opens_at: occurrence.opens.to_string(),
        closes_at: occurrence.closes.to_string(),
    });
    let status = SupportWindowStatus {
        next_occurrences: next_occurrences.collect(),
        ..SupportWindowStatus::default()
    };
    let change = before::change(status, word, plan.expired, generation, before, now);
    (change, plan.again)
}

/// By how much what time alone asks for is put off, so that windows of one schedule are not all written
/// in one second: less than a minute, always the same for one object.
pub fn jitter(uid: &str) -> SignedDuration {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let millis = hasher.finish() % 60_000;
    SignedDuration::from_millis(i64::try_from(millis).unwrap_or(0))
}
