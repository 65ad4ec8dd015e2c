//! Schedules and their occurrences.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use crate::cron::Cron;
pub use crate::zone::{BadZone, Zone};

/// One interval of a window's schedule: `[opens, closes)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Occurrence {
    pub opens: Timestamp,
    pub closes: Timestamp,
}

impl Occurrence {
    /// Half-open: open at `opens`, shut at `closes`.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.opens <= at && at < self.closes
    }
}

/// One agreed interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Once {
    pub occurrence: Occurrence,
    /// The offset in which `start` was written, in which people read it.
    pub offset: Offset,
}

/// A recurring schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recurring {
    pub cron: Cron,
    pub zone: Zone,
    /// 1 minute to 168 hours, whole seconds.
    pub duration: SignedDuration,
    /// An occurrence counts if it opens in `[not_before, not_after)`, and closes at `not_after` at the latest.
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    /// Local dates of opening whose whole occurrence goes. Where a gap moves an opening to the next day,
    /// either of the two dates takes it.
    pub except: BTreeSet<Date>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Schedule {
    Once(Once),
    Recurring(Box<Recurring>),
}

/// Why values do not make a schedule: one clear sentence each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    #[error("end must be after start")]
    EndNotAfterStart,
    #[error("the cron names only dates that never come, such as 30 February")]
    NeverFires,
    #[error("duration must be whole seconds, from 1m to 168h")]
    DurationOutOfRange,
    #[error("notAfter must be after notBefore")]
    NotAfterNotAfterNotBefore,
}

/// The shortest and the longest duration of a recurring occurrence.
pub const SHORTEST_DURATION: SignedDuration = SignedDuration::from_mins(1);
pub const LONGEST_DURATION: SignedDuration = SignedDuration::from_hours(168);

impl Once {
    /// `[start, end)`, read by people in `offset`.
    pub fn new(start: Timestamp, end: Timestamp, offset: Offset) -> Result<Self, BadSchedule> {
        if end <= start {
            return Err(BadSchedule::EndNotAfterStart);
        }
        Ok(Self { occurrence: Occurrence { opens: start, closes: end }, offset })
    }
}

impl Recurring {
    /// A schedule without bounds or exceptions; see [`Recurring::bounded`] and `except`.
    pub fn new(cron: Cron, zone: Zone, duration: SignedDuration) -> Result<Self, BadSchedule> {
        if !cron.can_fire() {
            return Err(BadSchedule::NeverFires);
        }
        let range = SHORTEST_DURATION..=LONGEST_DURATION;
        if !range.contains(&duration) || duration.subsec_nanos() != 0 {
            return Err(BadSchedule::DurationOutOfRange);
        }
        let (not_before, not_after, except) = (None, None, BTreeSet::new());
        Ok(Self { cron, zone, duration, not_before, not_after, except })
    }

    /// The same schedule within `[not_before, not_after)`. Bounds that leave nothing are accepted, an
    /// end at or before its beginning is not.
    pub fn bounded(
        self,
        not_before: Option<Timestamp>,
        not_after: Option<Timestamp>,
    ) -> Result<Self, BadSchedule> {
        match (not_before, not_after) {
            (Some(from), Some(to)) if to <= from => Err(BadSchedule::NotAfterNotAfterNotBefore),
            _ => Ok(Self { not_before, not_after, ..self }),
        }
    }

    /// The same schedule without the occurrences that open on these local dates.
    pub fn except(self, except: BTreeSet<Date>) -> Self {
        Self { except, ..self }
    }
}

impl Recurring {
    /// The first whole second at which an occurrence may open, from `from` on.
    fn lower(&self, from: i64) -> i64 {
        self.not_before.map_or(from, |bound| from.max(ceil_second(bound)))
    }

    /// The first whole second at which none may open any more.
    fn upper(&self) -> i64 {
        self.not_after.map_or(i64::MAX, ceil_second)
    }

    fn occurrence(&self, start: i64) -> Option<Occurrence> {
        let opens = Timestamp::from_second(start).ok()?;
        let closes = match (opens.checked_add(self.duration), self.not_after) {
            (Ok(closes), bound) => bound.map_or(closes, |bound| closes.min(bound)),
            (Err(_), Some(bound)) => bound,
            // It would not close within the calendar.
            (Err(_), None) => return None,
        };
        Some(Occurrence { opens, closes })
    }

    /// The first second at which an occurrence may open that is still open just after `at`.
    fn first_open_after(&self, at: Timestamp) -> i64 {
        floor_second(at).saturating_add(1).saturating_sub(self.duration.as_secs())
    }
}

impl Schedule {
    /// Of the occurrences open at `at`, the one that closes last; of several that `notAfter` closes
    /// together, the one that opened last.
    pub fn open_at(&self, at: Timestamp) -> Option<Occurrence> {
        let last = match self {
            Self::Once(once) => Some(once.occurrence),
            Self::Recurring(recurring) => {
                let latest = floor_second(at).min(recurring.upper().saturating_sub(1));
                let floor = recurring.lower(recurring.first_open_after(at));
                recurring
                    .previous_start(latest, floor)
                    .and_then(|start| recurring.occurrence(start))
            }
        };
        last.filter(|occurrence| occurrence.contains(at))
    }

    /// Every occurrence with `closes > at`, in the order of `opens` (then `closes`): the running ones,
    /// then those to come. Ends when nothing can follow.
    pub fn occurrences_from(&self, at: Timestamp) -> Occurrences<'_> {
        let next = match self {
            Self::Once(once) => (once.occurrence.closes > at).then_some(i64::MIN),
            Self::Recurring(recurring) => {
                let ended = recurring.not_after.is_some_and(|bound| bound <= at);
                (!ended).then(|| recurring.lower(recurring.first_open_after(at)))
            }
        };
        Occurrences { schedule: self, next }
    }

    /// Every occurrence with `opens >= at`, in that order.
    pub fn openings_from(&self, at: Timestamp) -> Occurrences<'_> {
        let next = match self {
            Self::Once(once) => (once.occurrence.opens >= at).then_some(i64::MIN),
            Self::Recurring(recurring) => Some(recurring.lower(ceil_second(at))),
        };
        Occurrences { schedule: self, next }
    }

    /// The occurrence that closed last at or before `at`, of those that opened in the year before.
    pub fn last_closed(&self, at: Timestamp) -> Option<Occurrence> {
        let last = match self {
            Self::Once(once) => Some(once.occurrence),
            Self::Recurring(recurring) => {
                // Of those that are cut by notAfter, all closed together.
                let ended = recurring.not_after.is_some_and(|bound| bound <= at);
                let back = if ended { 0 } else { recurring.duration.as_secs() };
                let latest = floor_second(at).min(recurring.upper().saturating_sub(1));
                let latest = latest.saturating_sub(back);
                let year = SignedDuration::from_hours(366 * 24).as_secs();
                let floor = recurring.lower(latest.saturating_sub(year));
                recurring
                    .previous_start(latest, floor)
                    .and_then(|start| recurring.occurrence(start))
            }
        };
        last.filter(|occurrence| occurrence.closes <= at)
    }

    /// An instant as people read it in this schedule's own zone:
    /// `Tue 24 Nov 22:00 Europe/Berlin`, or for `once` `Mon 23 Nov 09:00 +01:00` (`UTC` at zero).
    pub fn human(&self, at: Timestamp) -> String {
        self.written(at, "%a %d %b %H:%M")
    }

    /// As [`Schedule::human`], with the year where `at` is more than 300 days from `now`.
    pub fn human_from(&self, at: Timestamp, now: Timestamp) -> String {
        let far = at.duration_since(now).abs() > SignedDuration::from_hours(300 * 24);
        self.written(at, if far { "%a %d %b %Y %H:%M" } else { "%a %d %b %H:%M" })
    }

    fn written(&self, at: Timestamp, format: &str) -> String {
        match self {
            Self::Once(Once { offset, .. }) => {
                let at = offset.to_datetime(at).strftime(format);
                let seconds = offset.seconds();
                let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
                match seconds {
                    0 => format!("{at} UTC"),
                    1.. => format!("{at} +{hours:02}:{minutes:02}"),
                    _ => format!("{at} -{hours:02}:{minutes:02}"),
                }
            }
            Self::Recurring(recurring) => {
                let zone = &recurring.zone;
                format!("{} {}", zone.time_zone().to_datetime(at).strftime(format), zone.name())
            }
        }
    }
}

/// An instant in UTC as people read it: `Tue 24 Nov 22:00 UTC`.
pub fn human_utc(at: Timestamp) -> String {
    format!("{} UTC", Offset::UTC.to_datetime(at).strftime("%a %d %b %H:%M"))
}

/// See [`Schedule::occurrences_from`].
#[derive(Clone, Debug)]
pub struct Occurrences<'a> {
    schedule: &'a Schedule,
    /// The second from which to look on; `None` when nothing can follow.
    next: Option<i64>,
}

impl Iterator for Occurrences<'_> {
    type Item = Occurrence;

    fn next(&mut self) -> Option<Occurrence> {
        let from = self.next.take()?;
        match self.schedule {
            Schedule::Once(once) => Some(once.occurrence),
            Schedule::Recurring(recurring) => {
                let start = recurring.next_start(from, recurring.upper())?;
                self.next = start.checked_add(1);
                recurring.occurrence(start)
            }
        }
    }
}

fn floor_second(at: Timestamp) -> i64 {
    // Before 1970 jiff's fraction is negative.
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

fn ceil_second(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}
