//! IANA zones, and the stretches of time during which one keeps its offset.
//!
//! Every look at a recurring schedule asks for a stretch, and `decide` may look at thousands: the changes
//! of a zone in this century are found once, for all windows that name it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

use crate::text::shown;

/// An IANA zone by its exact name (links such as EST5EDT among them), always from the bundled
/// database.
#[derive(Clone, Debug)]
pub struct Zone(Arc<Known>);

#[derive(Debug)]
struct Known {
    name: Box<str>,
    zone: TimeZone,
    /// Those from 2000 to 2100, in their order.
    changes: Vec<Change>,
    /// Whether none follows.
    complete: bool,
}

/// An instant at which a zone's offset changes.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Seconds from 1970 in UTC.
    at: i64,
    before: i64,
    offset: i64,
}

/// The instants `[start, end)` during which a zone keeps one offset, and the offset before. In seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    pub start: i64,
    pub end: i64,
    pub offset: i64,
    pub before: i64,
}

/// Zones are equal by name; jiff's own equality takes links for their targets.
impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Zone {}

/// Why a text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not an IANA time zone; write it as in Europe/Berlin, in exact case", shown(.0, 60))]
pub struct BadZone(pub String);

static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The zones that were asked for so far: there are some 600.
static KNOWN: LazyLock<RwLock<HashMap<Box<str>, Zone>>> = LazyLock::new(RwLock::default);

/// 2000-01-01 and 2100-01-01.
const FROM: i64 = 946_684_800;
const TO: i64 = 4_102_444_800;

impl Zone {
    pub fn parse(name: &str) -> Result<Self, BadZone> {
        // The lock is held by nothing that could leave the map half changed.
        if let Some(known) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(known.clone());
        }
        let bad = || BadZone(shown(name, 60));
        let zone = BUNDLED.get(name).map_err(|_| bad())?;
        // jiff finds names in any case, and `Etc/Unknown`, which has no name.
        if zone.iana_name() != Some(name) {
            return Err(bad());
        }
        let (changes, complete) = changes(&zone);
        let zone = Self(Arc::new(Known { name: name.into(), zone, changes, complete }));
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(name.into()).or_insert(zone).clone())
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn time_zone(&self) -> &TimeZone {
        &self.0.zone
    }

    /// The stretch around an instant; `None` out of the calendar.
    pub(crate) fn stretch(&self, instant: i64) -> Option<Stretch> {
        let Known { changes, complete, .. } = &*self.0;
        let after = changes.partition_point(|change| change.at <= instant);
        let last = after.checked_sub(1).and_then(|last| changes.get(last));
        match (last, changes.get(after)) {
            (Some(last), Some(next)) => Some(last.until(next.at)),
            (Some(last), None) if *complete && instant <= TO => Some(last.until(i64::MAX)),
            _ => whole_stretch(&self.0.zone, instant),
        }
    }
}

impl Change {
    fn until(self, end: i64) -> Stretch {
        Stretch { start: self.at, end, offset: self.offset, before: self.before }
    }
}

/// Those from [`FROM`] to [`TO`], and whether none follows.
fn changes(zone: &TimeZone) -> (Vec<Change>, bool) {
    let mut changes = Vec::new();
    let mut at = FROM;
    while let Some(Stretch { start, end, offset, before }) = whole_stretch(zone, at) {
        if start != i64::MIN {
            changes.push(Change { at: start, before, offset });
        }
        if end == i64::MAX || end > TO {
            return (changes, end == i64::MAX);
        }
        at = end;
    }
    (changes, false)
}

/// The database also has changes of a zone's name alone, and jiff gives some that are none.
fn whole_stretch(zone: &TimeZone, instant: i64) -> Option<Stretch> {
    let mut whole = stretch(zone, instant)?;
    while whole.start != i64::MIN && whole.before == whole.offset {
        let earlier = stretch(zone, whole.start.checked_sub(1)?)?;
        (whole.start, whole.before) = (earlier.start, earlier.before);
    }
    while whole.end != i64::MAX
        && let Some(later) = stretch(zone, whole.end)
        && later.offset == whole.offset
    {
        whole.end = later.end;
    }
    Some(whole)
}

fn stretch(zone: &TimeZone, instant: i64) -> Option<Stretch> {
    let at = Timestamp::from_second(instant).ok()?;
    let offset_at = |at: Timestamp| i64::from(zone.to_offset(at).seconds());
    let offset = offset_at(at);
    // `preceding` looks strictly before.
    let begun = zone.preceding(at.saturating_add(1.second()).ok()?).next();
    let (start, before) = match begun.map(|change| change.timestamp()) {
        None => (i64::MIN, offset),
        Some(mut start) => {
            // Where a zone's rule for all years to come begins, jiff looks back by the rule to before that.
            if offset_at(start) != offset {
                let later = zone.following(start).map(|change| change.timestamp());
                start = later.take_while(|change| *change <= at).last().unwrap_or(start);
            }
            let start = start.as_second();
            (start, offset_at(Timestamp::from_second(start.checked_sub(1)?).ok()?))
        }
    };
    let end = zone.following(at).next().map_or(i64::MAX, |change| change.timestamp().as_second());
    Some(Stretch { start, end, offset, before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_once_is_what_the_database_says() {
        let mut asked = 0;
        for name in BUNDLED.available() {
            let Ok(zone) = Zone::parse(name.as_str()) else { continue };
            let own = zone.0.changes.iter().flat_map(|change| [change.at - 1, change.at]);
            let others = [-62_135_596_800, -1, FROM - 1, FROM, TO - 1, TO, TO + 1, 253_402_207_000];
            // Every 71st day of two centuries, at odd hours.
            let days = (0..1_000).map(|n| n * 71 * 86_400 + n * 3_601 - 1_000_000_000);
            for instant in own.chain(others).chain(days) {
                let found = zone.stretch(instant);
                assert_eq!(found, whole_stretch(&zone.0.zone, instant), "{name} {instant}");
                let at = Timestamp::from_second(instant).unwrap();
                let offset = zone.time_zone().to_offset(at).seconds();
                assert_eq!(found.unwrap().offset, i64::from(offset), "{name} {instant}");
                asked += 1;
            }
        }
        assert!(asked > 500_000, "{asked}");
    }
}
