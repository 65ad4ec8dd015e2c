//! Which occurrences the status of a window lists, and when to look at it again.
//!
//! Pure. What is listed stays while it is true and enough of it lies ahead, so that nothing is written
//! when a window opens or closes.

use jiff::{SignedDuration, Timestamp};
use tidegate_policy::schedule::{Occurrence, Schedule};

/// How many occurrences are listed. Of 16 that the schema allows: a daily window is rewritten once a
/// week, one of every minute every sixth minute.
pub const LISTED: usize = 8;
/// The list is rewritten once fewer than this many lie ahead and others follow it.
const AHEAD: usize = 2;

/// Where a list began and how long it was: all that has to be kept of it, since the schedule says the
/// rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// When its first occurrence opens.
    pub first: Timestamp,
    pub count: usize,
}

impl Listed {
    /// Of a list as status has it; `None` where it is empty.
    pub fn of(list: &[Occurrence]) -> Option<Self> {
        list.first().map(|first| Self { first: first.opens, count: list.len() })
    }
}

/// What a status says of a window's schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The running occurrence or the next first; none while suspended.
    pub list: Vec<Occurrence>,
    /// Whether the last occurrence is over.
    pub expired: bool,
    /// When another plan may be due, without jitter; `None`: never by time alone.
    pub again: Option<Timestamp>,
}

/// The plan at `now`. `before` is what status lists of this very generation: it stays if it is still
/// true and enough.
pub fn plan(schedule: &Schedule, suspended: bool, before: Option<Listed>, now: Timestamp) -> Plan {
    if schedule.occurrences_from(now).next().is_none() {
        return Plan { list: Vec::new(), expired: true, again: None };
    }
    if suspended {
        return Plan { list: Vec::new(), expired: false, again: end(schedule) };
    }
    let kept = before.and_then(|before| kept(schedule, before, now));
    let list = kept.unwrap_or_else(|| fresh(schedule, now));
    let again = match list.iter().rev().nth(AHEAD - 1) {
        Some(last_but) if !is_whole(schedule, &list) => Some(last_but.opens),
        _ => list.iter().map(|occurrence| occurrence.closes).max(),
    };
    Plan { list, expired: false, again }
}

/// The open occurrence that closes last, if one is open, and those that open after `now`.
fn fresh(schedule: &Schedule, now: Timestamp) -> Vec<Occurrence> {
    let later = now.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX);
    schedule.open_at(now).into_iter().chain(schedule.openings_from(later)).take(LISTED).collect()
}

/// The list that status has, if it still serves.
fn kept(schedule: &Schedule, before: Listed, now: Timestamp) -> Option<Vec<Occurrence>> {
    let list: Vec<_> =
        schedule.openings_from(before.first).take(before.count.min(LISTED)).collect();
    // Else the schedule is another, or the list was not ours.
    if list.len() != before.count || Listed::of(&list) != Some(before) {
        return None;
    }
    let ahead = list.iter().filter(|occurrence| occurrence.opens > now).count();
    let alive = list.iter().any(|occurrence| occurrence.closes > now);
    (ahead >= AHEAD || (alive && is_whole(schedule, &list))).then_some(list)
}

/// Whether nothing follows the list.
fn is_whole(schedule: &Schedule, list: &[Occurrence]) -> bool {
    let Some(last) = list.last() else { return true };
    let later = last.opens.checked_add(SignedDuration::from_nanos(1));
    later.map_or(true, |later| schedule.openings_from(later).next().is_none())
}

/// An instant at which everything is over, if there is one.
fn end(schedule: &Schedule) -> Option<Timestamp> {
    match schedule {
        Schedule::Once(once) => Some(once.occurrence.closes),
        Schedule::Recurring(recurring) => recurring.not_after,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_draw::cases;
    use tidegate_policy::cron::Cron;
    use tidegate_policy::schedule::{Once, Recurring, Zone};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn recurring(cron: &str, minutes: i64) -> Recurring {
        let cron = Cron::parse(cron).unwrap();
        let zone = Zone::parse("Europe/Berlin").unwrap();
        Recurring::new(cron, zone, SignedDuration::from_mins(minutes)).unwrap()
    }

    fn daily() -> Schedule {
        Schedule::Recurring(Box::new(recurring("0 22 * * *", 120)))
    }

    fn once() -> Schedule {
        let (from, to) = (at("2026-11-23T08:00:00Z"), at("2026-11-23T10:00:00Z"));
        Schedule::Once(Once::new(from, to, jiff::tz::Offset::UTC).unwrap())
    }

    #[test]
    fn the_running_one_comes_first_and_stays_until_one_lies_ahead() {
        let schedule = daily();
        let now = at("2026-11-23T21:30:00Z");
        let first = plan(&schedule, false, None, now);
        assert_eq!(first.list.len(), LISTED);
        assert_eq!(first.list[0].opens, at("2026-11-23T21:00:00Z"), "it is open");
        assert_eq!(first.again, Some(at("2026-11-29T21:00:00Z")), "then the seventh opens");
        let before = Listed::of(&first.list);
        for later in ["2026-11-23T23:00:00Z", "2026-11-26T21:00:00Z", "2026-11-29T20:59:59Z"] {
            assert_eq!(plan(&schedule, false, before, at(later)), first, "{later}");
        }
        let next = plan(&schedule, false, before, at("2026-11-29T21:00:00Z"));
        assert_eq!(next.list[0].opens, at("2026-11-29T21:00:00Z"));
        assert_eq!(next.list.len(), LISTED);
    }

    #[test]
    fn a_single_one_is_written_twice_in_its_life() {
        let schedule = once();
        let first = plan(&schedule, false, None, at("2026-11-01T00:00:00Z"));
        assert_eq!((first.list.len(), first.expired), (1, false));
        assert_eq!(first.again, Some(at("2026-11-23T10:00:00Z")));
        let before = Listed::of(&first.list);
        assert_eq!(plan(&schedule, false, before, at("2026-11-23T09:00:00Z")), first);
        let over = Plan { list: Vec::new(), expired: true, again: None };
        assert_eq!(plan(&schedule, false, before, at("2026-11-23T10:00:00Z")), over);
        assert_eq!(plan(&schedule, true, before, at("2026-11-23T10:00:00Z")), over);
    }

    #[test]
    fn nothing_is_listed_while_suspended() {
        let suspended = plan(&daily(), true, None, at("2026-11-23T21:30:00Z"));
        assert_eq!(suspended, Plan { list: Vec::new(), expired: false, again: None });
        let suspended = plan(&once(), true, None, at("2026-11-01T00:00:00Z"));
        assert_eq!(suspended.again, Some(at("2026-11-23T10:00:00Z")));
    }

    #[test]
    fn a_list_of_another_schedule_does_not_stay() {
        let now = at("2026-11-23T12:00:00Z");
        let before = Listed { first: at("2026-11-23T20:00:00Z"), count: LISTED };
        assert_eq!(plan(&daily(), false, Some(before), now), plan(&daily(), false, None, now));
    }

    #[test]
    fn one_of_every_minute_that_lasts_a_week_is_not_rewritten_at_once() {
        let schedule = Schedule::Recurring(Box::new(recurring("* * * * *", 168 * 60)));
        let now = at("2026-11-23T12:00:30Z");
        let first = plan(&schedule, false, None, now);
        assert_eq!(first.list[0].opens, at("2026-11-23T12:00:00Z"));
        assert_eq!(first.again, Some(at("2026-11-23T12:06:00Z")));
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn a_plan_stays_until_it_says_and_then_moves_on(
            cron in prop::sample::select(vec!["* * * * *", "0 * * * *", "30 2 * * SUN", "0 22 29 2 *"]),
            minutes in 1_i64..10_000,
            start in 1_790_000_000_i64..1_890_000_000,
            bound in prop::option::of(60_i64..40_000_000),
            part in 0.0_f64..1.0,
        ) {
            let now = Timestamp::from_second(start).unwrap();
            let bound = bound.map(|s| Timestamp::from_second(start + s).unwrap());
            let schedule = recurring(cron, minutes).bounded(None, bound).unwrap();
            let schedule = Schedule::Recurring(Box::new(schedule));
            let first = plan(&schedule, false, None, now);
            let before = Listed::of(&first.list);
            // The same again is the same: nothing is written.
            prop_assert_eq!(&plan(&schedule, false, before, now), &first);
            let Some(again) = first.again else {
                prop_assert!(first.expired);
                return Ok(());
            };
            prop_assert!(again > now);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a test's own numbers")]
            let between = now + SignedDuration::from_secs(((again.as_second() - start) as f64 * part) as i64);
            prop_assert_eq!(&plan(&schedule, false, before, between), &first);
            let then = plan(&schedule, false, before, again);
            prop_assert_ne!(&then, &first);
            prop_assert!(then.expired || then.again.is_some_and(|next| next > again));
        }
    }
}
