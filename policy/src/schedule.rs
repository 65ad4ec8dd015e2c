//! Schedules and their occurrences.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::cron::Cron;

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

/// An IANA zone by its exact name, always from the bundled database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(TimeZone);

/// Why a text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IANA time zone; write it as in Europe/Berlin, in exact case")]
pub struct BadZone(pub String);

impl Zone {
    pub fn parse(_name: &str) -> Result<Self, BadZone> {
        unimplemented!()
    }

    pub fn name(&self) -> &str {
        unimplemented!()
    }

    pub fn time_zone(&self) -> &TimeZone {
        &self.0
    }
}

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
