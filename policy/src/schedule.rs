//! Schedules and their occurrences.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use crate::cron::Cron;
use crate::text::shown;

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
    /// Local dates of opening whose whole occurrence goes.
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

/// An IANA zone by its exact name (links such as EST5EDT among them), always from the bundled
/// database.
#[derive(Clone, Debug)]
pub struct Zone {
    name: Arc<str>,
    zone: TimeZone,
}

/// Zones are equal by name; jiff's own equality takes links for their targets.
impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

/// Why a text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not an IANA time zone; write it as in Europe/Berlin, in exact case", shown(.0, 60))]
pub struct BadZone(pub String);

impl Zone {
    pub fn parse(name: &str) -> Result<Self, BadZone> {
        let bad = || BadZone(shown(name, 60));
        let zone = BUNDLED.get(name).map_err(|_| bad())?;
        // jiff finds names in any case, and `Etc/Unknown`, which has no name.
        if zone.iana_name() != Some(name) {
            return Err(bad());
        }
        Ok(Self { name: name.into(), zone })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }
}

static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

impl Schedule {
    /// Of the occurrences open at `at`, the one that closes last.
    pub fn open_at(&self, _at: Timestamp) -> Option<Occurrence> {
        unimplemented!()
    }

    /// Every occurrence with `closes > at`, in the order of `opens` (then `closes`): the running ones,
    /// then those to come. Ends when nothing can follow.
    pub fn occurrences_from(&self, _at: Timestamp) -> Occurrences<'_> {
        unimplemented!()
    }

    /// An instant as people read it in this schedule's own zone:
    /// `Tue 24 Nov 22:00 Europe/Berlin`, or for `once` `Mon 23 Nov 09:00 +01:00`.
    pub fn human(&self, _at: Timestamp) -> String {
        unimplemented!()
    }
}

/// See [`Schedule::occurrences_from`].
pub struct Occurrences<'a> {
    _schedule: &'a Schedule,
}

impl Iterator for Occurrences<'_> {
    type Item = Occurrence;

    fn next(&mut self) -> Option<Occurrence> {
        unimplemented!()
    }
}
