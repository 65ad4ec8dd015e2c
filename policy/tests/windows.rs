//! The window algebra against a second implementation that walks every minute of real time.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Spec, cron};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::prelude::*;
use tidegate_policy::cron::Cron;
use tidegate_policy::schedule::{Occurrence, Recurring, Schedule, Zone};

const ZONES: &[&str] = &[
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "America/Nuuk",
    "America/Scoresbysund",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Pyongyang",
    "Antarctica/Troll",
    "America/Caracas",
    "Pacific/Chatham",
    "Europe/Dublin",
    "EST5EDT",
    "UTC",
];

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// A schedule as the test states it, and the days of real time in which it is looked at.
#[derive(Clone, Debug)]
struct Case {
    spec: Spec,
    zone: &'static str,
    duration: SignedDuration,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    except: BTreeSet<Date>,
    from: Timestamp,
    to: Timestamp,
}

impl Case {
    fn schedule(&self) -> Schedule {
        let cron = Cron::parse(&self.spec.text).unwrap();
        let recurring =
            Recurring::new(cron, Zone::parse(self.zone).unwrap(), self.duration).unwrap();
        let bounded = Recurring {
            not_before: self.not_before,
            not_after: self.not_after,
            ..recurring.except(self.except.clone())
        };
        Schedule::Recurring(Box::new(bounded))
    }

    /// Every occurrence that opens in `[from - 8 days, to)`, by walking the minutes from a day earlier.
    fn walk(&self) -> Vec<Occurrence> {
        let zone = TimeZone::get(self.zone).unwrap();
        let begin = self.from - 9 * 24.hours();
        let mut civil: Vec<(Timestamp, DateTime)> = Vec::new();
        let mut at = begin;
        while at < self.to + 48.hours() {
            civil.push((at, zone.to_datetime(at)));
            at += MINUTE;
        }
        let dates: BTreeSet<Date> = civil.iter().map(|(_, local)| local.date()).collect();
        let mut seen: BTreeSet<DateTime> = BTreeSet::new();
        let mut opens: BTreeMap<Timestamp, bool> = BTreeMap::new();
        let mut before: Option<DateTime> = None;
        for (at, local) in civil {
            let good = !self.except.contains(&local.date());
            if self.spec.real_time {
                if self.spec.matches(local) {
                    opens.insert(at, good);
                }
            } else {
                let mut skipped = before.map_or(local, |before| before + MINUTE);
                while skipped < local {
                    let named =
                        dates.contains(&skipped.date()) && !self.except.contains(&skipped.date());
                    if named && self.spec.matches(skipped) {
                        opens.insert(at, good);
                    }
                    skipped += MINUTE;
                }
                if seen.insert(local) && self.spec.matches(local) {
                    opens.insert(at, good);
                }
            }
            before = Some(local);
        }
        opens
            .into_iter()
            .filter(|(opens, good)| {
                *good
                    && *opens >= begin + 24.hours()
                    && *opens < self.to
                    && self.not_before.is_none_or(|bound| *opens >= bound)
                    && self.not_after.is_none_or(|bound| *opens < bound)
            })
            .map(|(opens, _)| {
                let closes = opens + self.duration;
                Occurrence {
                    opens,
                    closes: self.not_after.map_or(closes, |bound| closes.min(bound)),
                }
            })
            .collect()
    }

    fn check(&self, instants: &[Timestamp]) {
        let walked = self.walk();
        let schedule = self.schedule();
        let mut asked = vec![self.from, self.to - MINUTE];
        asked.extend(instants);
        for occurrence in walked.iter().take(4).chain(walked.iter().rev().take(4)) {
            for edge in [occurrence.opens, occurrence.closes] {
                asked.extend([edge - 1.nanosecond(), edge, edge + 1.nanosecond()]);
            }
        }
        asked.retain(|at| (self.from..self.to).contains(at));
        for at in asked {
            let expected: Vec<_> = walked.iter().copied().filter(|o| o.closes > at).collect();
            let got: Vec<_> =
                schedule.occurrences_from(at).take_while(|o| o.opens < self.to).collect();
            assert_eq!(got, expected, "occurrences from {at} of {self:?}");
            let open = walked.iter().copied().filter(|o| o.opens <= at && at < o.closes);
            let last = open.max_by_key(|o| (o.closes, o.opens));
            assert_eq!(schedule.open_at(at), last, "open at {at} of {self:?}");
            let expected: Vec<_> = walked.iter().copied().filter(|o| o.opens >= at).collect();
            let got: Vec<_> =
                schedule.openings_from(at).take_while(|o| o.opens < self.to).collect();
            assert_eq!(got, expected, "openings from {at} of {self:?}");
        }
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Around a change of the zone's offset where there is one, else anywhere; month ends come by chance.
fn around(zone: &'static str, pick: u32, days: i64, shift: i64) -> (Timestamp, Timestamp) {
    let begin = at("1985-01-01T00:00:00Z") + (24 * i64::from(pick) * 6).hours();
    let changes = TimeZone::get(zone).unwrap();
    let middle = changes
        .following(begin)
        .next()
        .map_or(begin, |change| change.timestamp())
        .min(at("2060-01-01T00:00:00Z"));
    let from = middle - shift.hours();
    (from, from + (days * 24).hours())
}

fn case() -> impl Strategy<Value = (Case, Vec<Timestamp>)> {
    let minutes = prop_oneof![1..=180_i64, 1..=10_080_i64, Just(10_080_i64), Just(1440_i64)];
    let zone = proptest::sample::select(ZONES);
    let time = (0..3300_u32, 1..12_i64, 0..240_i64);
    let bound = proptest::option::weighted(0.3, 0..(12 * 1440 * 60_i64));
    let except = proptest::collection::btree_set(-1..12_i32, 0..4);
    let instants = proptest::collection::vec(0..(12 * 1440 * 60_i64), 3);
    (cron(), zone, minutes, time, bound.clone(), bound, except, instants)
        .prop_filter("a cron that can fire", |(spec, ..)| {
            Cron::parse(&spec.text).is_ok_and(|cron| cron.can_fire())
        })
        .prop_map(|(spec, zone, minutes, time, before, after, except, instants)| {
            let (pick, days, shift) = time;
            let (from, to) = around(zone, pick, days, shift);
            let local = TimeZone::get(zone).unwrap().to_datetime(from).date();
            let case = Case {
                spec,
                zone,
                duration: SignedDuration::from_mins(minutes),
                not_before: before.map(|seconds| from + seconds.seconds()),
                not_after: after.map(|seconds| from + seconds.seconds()),
                except: except.into_iter().map(|day| local + day.days()).collect(),
                from,
                to,
            };
            let instants = instants.into_iter().map(|second| from + second.seconds()).collect();
            (case, instants)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_walk_over_every_minute((case, instants) in case()) {
        case.check(&instants);
    }
}
