//! The instants at which a recurring schedule opens: cron on civil time, walked in stretches of
//! constant offset, so that gaps and folds are met exactly where they are.
//!
//! Everything is counted in whole seconds: instants from 1970 in UTC, local times likewise in their
//! own civil time. A stretch costs one look-up in the zone, whatever the cron.

use jiff::Timestamp;

use crate::cron::date_of;
use crate::schedule::Recurring;
use crate::zone::Stretch;

const MINUTE: i64 = 60;
const MINUTES_OF_DAY: i64 = 24 * 60;
const DAY: i64 = 24 * 60 * MINUTE;

impl Stretch {
    /// The local times that begin this stretch and have been before: those of a fold, else none.
    fn first_new_local(&self) -> i64 {
        if self.start == i64::MIN {
            return i64::MIN;
        }
        self.start + self.offset.max(self.before)
    }

    /// The local times `[from, to)` that this stretch's beginning skips.
    fn gap(&self) -> Option<(i64, i64)> {
        let gap = self.start != i64::MIN && self.before < self.offset;
        gap.then(|| (self.start + self.before, self.start + self.offset))
    }
}

impl Recurring {
    /// The first start at or after `instant` and before `limit`, leaving out the excepted dates.
    pub(crate) fn next_start(&self, instant: i64, limit: i64) -> Option<i64> {
        let mut at = instant.max(Timestamp::MIN.as_second());
        while at < limit {
            let stretch = self.zone.stretch(at)?;
            if at == stretch.start && self.opens_after_gap(&stretch) {
                return Some(at);
            }
            let from = (at + stretch.offset).max(self.first_local(&stretch));
            if let Some(minute) = self.cron.next_match(ceil_minute(from)) {
                let start = minute * MINUTE - stretch.offset;
                if start < stretch.end {
                    match self.excepted_day(minute) {
                        None => return (start < limit).then_some(start),
                        Some(day) => at = stretch.end.min((day + 1) * DAY - stretch.offset),
                    }
                    continue;
                }
            }
            at = stretch.end;
        }
        None
    }

    /// The last start in `[floor, instant]`, leaving out the excepted dates.
    pub(crate) fn previous_start(&self, instant: i64, floor: i64) -> Option<i64> {
        let mut at = instant.min(Timestamp::MAX.as_second());
        while at >= floor {
            let stretch = self.zone.stretch(at)?;
            let first = self.first_local(&stretch).max(floor.saturating_add(stretch.offset));
            if let Some(minute) = self
                .cron
                .previous_match((at + stretch.offset).div_euclid(MINUTE), ceil_minute(first))
            {
                match self.excepted_day(minute) {
                    None => return Some(minute * MINUTE - stretch.offset),
                    // Not before the stretch: what else begins it may open on that day too.
                    Some(day) if day * DAY - stretch.offset > stretch.start => {
                        at = day * DAY - stretch.offset - 1;
                        continue;
                    }
                    Some(_) => {}
                }
            }
            if stretch.start >= floor && self.opens_after_gap(&stretch) {
                return Some(stretch.start);
            }
            at = stretch.start.checked_sub(1)?;
        }
        None
    }

    /// The first local time of a stretch that may have a start of its own. Wall-clock times that come
    /// a second time have had theirs; real time goes on.
    fn first_local(&self, stretch: &Stretch) -> i64 {
        if self.cron.follows_real_time() {
            stretch.start.saturating_add(stretch.offset)
        } else {
            stretch.first_new_local()
        }
    }

    /// Whether a wall-clock start was skipped by the gap that begins this stretch, and so opens with
    /// it. The date that cron named decides whether it matches; it must exist. It is excepted by that
    /// date and by the one on which it opens, which differ where the gap ends at midnight.
    fn opens_after_gap(&self, stretch: &Stretch) -> bool {
        let Some((from, to)) = stretch.gap() else { return false };
        if self.cron.follows_real_time() || self.excepted_day(to.div_euclid(MINUTE)).is_some() {
            return false;
        }
        let mut minute = ceil_minute(from);
        while let Some(found) = self.cron.next_match(minute).filter(|found| found * MINUTE < to) {
            let day = found.div_euclid(MINUTES_OF_DAY);
            let exists = day * DAY < from || (day + 1) * DAY > to;
            if exists && self.excepted_day(found).is_none() {
                return true;
            }
            minute = (day + 1) * MINUTES_OF_DAY;
        }
        false
    }

    /// The day of a local minute, if it is excepted.
    fn excepted_day(&self, minute: i64) -> Option<i64> {
        let day = minute.div_euclid(MINUTES_OF_DAY);
        (!self.except.is_empty() && self.except.contains(&date_of(day)?)).then_some(day)
    }
}

fn ceil_minute(local: i64) -> i64 {
    local.saturating_add(MINUTE - 1).div_euclid(MINUTE)
}
