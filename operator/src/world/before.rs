//! What an object's status says already, in a few bytes: enough to know that nothing has changed. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;
use tidegate_crds::common::Holds;
use tidegate_crds::{login_user, support_window, terminal};
use tidegate_policy::schedule::Occurrence;
use tidegate_policy::text;

use super::word::Word;
use crate::support_window::occurrences::Listed;

/// The conditions that the operator writes on windows, users and terminals.
pub const ACCEPTED: &str = "Accepted";
/// Only where it is true, as `kubectl wait` and Flux understand it.
pub const STALLED: &str = "Stalled";
/// Only where it is true.
pub const EXPIRED: &str = "Expired";
const OURS: [&str; 3] = [ACCEPTED, STALLED, EXPIRED];

/// What is kept of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The generation that it speaks of.
    pub observed: Option<i64>,
    /// Of our part, without the times of transitions.
    digest: u64,
    /// Since when Accepted is as it is, and what it says.
    accepted: Option<(bool, Timestamp)>,
    /// A digest of its reason.
    reason: u64,
    stalled: Option<Timestamp>,
    expired: Option<Timestamp>,
    /// The list of occurrences.
    pub listed: Option<Listed>,
    /// What the object has for itself. Boxed: few objects have it, and windows never.
    pub holds: Option<Box<Holds>>,
}

impl Before {
    /// Whether this generation was told `word` already, so that no second event says it.
    pub fn was_told(&self, generation: i64, word: &Word) -> bool {
        self.observed == Some(generation) && self.reason == digest(&word.reason)
    }

    /// Whether the object was ever looked at.
    pub fn is_blank(&self) -> bool {
        self.observed.is_none()
    }

    fn of(observed: Option<i64>, conditions: &[Condition], digest_: u64) -> Self {
        let since = |name: &str| {
            let found = conditions.iter().find(|c| c.type_ == name && c.status == "True");
            found.map(|c| c.last_transition_time.0)
        };
        let accepted = conditions.iter().find(|c| c.type_ == ACCEPTED);
        Self {
            observed,
            digest: digest_,
            accepted: accepted.map(|c| (c.status == "True", c.last_transition_time.0)),
            reason: accepted.map_or(0, |c| digest(&c.reason)),
            stalled: since(STALLED),
            expired: since(EXPIRED),
            listed: None,
            holds: None,
        }
    }

    /// Since when a condition that says `status` now has said so.
    fn since(&self, name: &str, status: bool, now: Timestamp) -> Timestamp {
        let before = match name {
            ACCEPTED => self.accepted.filter(|(was, _)| *was == status).map(|(_, since)| since),
            STALLED => self.stalled,
            _ => self.expired,
        };
        before.unwrap_or(now)
    }
}

/// A kind's status, of which the operator writes a part.
pub trait Status: Serialize + Clone + Default {
    fn conditions(&mut self) -> &mut Vec<Condition>;
    fn observed(&mut self) -> &mut Option<i64>;
    /// Drops the fields that others write; conditions are seen to.
    fn keep_ours(&mut self);
    /// Notes what is to be kept beside the digest.
    fn note(&self, before: &mut Before);
}

/// What is to be kept of a status as the API server has it.
pub fn before<S: Status>(status: &S) -> Before {
    let mut ours = status.clone();
    ours.keep_ours();
    let observed = *ours.observed();
    ours.conditions().retain(|condition| OURS.contains(&condition.type_.as_str()));
    let conditions = ours.conditions().clone();
    let mut before = Before::of(observed, &conditions, timeless(ours));
    status.note(&mut before);
    before
}

/// `status` completed with `word` and the times of transitions; `None` where that is what `before` says.
pub fn change<S: Status>(
    mut status: S,
    word: &Word,
    expired: bool,
    generation: i64,
    before: &Before,
    now: Timestamp,
) -> Option<(S, Before)> {
    *status.observed() = Some(generation);
    let condition = |name: &str, value: bool, reason: &str, message: &str| Condition {
        type_: name.to_owned(),
        status: if value { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: Time(seconds(before.since(name, value, now))),
    };
    let conditions = status.conditions();
    conditions.push(condition(ACCEPTED, word.accepted, word.reason, &word.sentence));
    if word.stalled {
        conditions.push(condition(STALLED, true, word.reason, "the spec is refused, see Accepted"));
    }
    if expired {
        let message = "its last occurrence is over; it admits nobody any more";
        conditions.push(condition(EXPIRED, true, "ScheduleOver", message));
    }
    let conditions = conditions.clone();
    let mut after = Before::of(Some(generation), &conditions, timeless(status.clone()));
    status.note(&mut after);
    (after.digest != before.digest).then_some((status, after))
}

/// The digest of a status but for the times of transitions and the order of conditions.
fn timeless<S: Status>(mut status: S) -> u64 {
    for condition in status.conditions() {
        condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
    }
    status.conditions().sort_by(|a, b| a.type_.cmp(&b.type_));
    digest(&status)
}

/// Sixty-four bits of a value's JSON. A chance match would leave a status as it is until the next change.
fn digest(value: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// The API server keeps whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

impl Status for support_window::SupportWindowStatus {
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }

    fn observed(&mut self) -> &mut Option<i64> {
        &mut self.observed_generation
    }

    fn keep_ours(&mut self) {
        self.grant = None;
    }

    fn note(&self, before: &mut Before) {
        let list: Option<Vec<Occurrence>> = self
            .next_occurrences
            .iter()
            .map(|next| {
                let opens = text::timestamp(&next.opens_at).ok()?;
                Some(Occurrence { opens, closes: text::timestamp(&next.closes_at).ok()? })
            })
            .collect();
        before.listed = list.as_deref().and_then(Listed::of);
    }
}

impl Status for login_user::LoginUserStatus {
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }

    fn observed(&mut self) -> &mut Option<i64> {
        &mut self.observed_generation
    }

    fn keep_ours(&mut self) {}

    fn note(&self, before: &mut Before) {
        before.holds = self.holds.clone().map(Box::new);
    }
}

impl Status for terminal::TerminalStatus {
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }

    fn observed(&mut self) -> &mut Option<i64> {
        &mut self.observed_generation
    }

    fn keep_ours(&mut self) {
        self.agent_version = None;
        self.host_certificate = None;
    }

    fn note(&self, before: &mut Before) {
        before.holds = self.holds.clone().map(Box::new);
    }
}
