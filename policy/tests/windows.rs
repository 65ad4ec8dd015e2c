//! The window algebra against a second implementation that walks every minute of real time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use common::policy::recurring;
use common::{Spec, cron};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::prelude::*;
use tidegate_draw::cases;
use tidegate_policy::cron::Cron;
use tidegate_policy::schedule::{BadSchedule, Occurrence, Once, Recurring, Schedule, Zone};

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

/// As many occurrences as are compared from each instant.
const MANY: usize = 200;

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

    /// Every occurrence that opens in `[from - duration, to)`, by walking the minutes from two days earlier.
    fn walk(&self) -> Vec<Occurrence> {
        let zone = TimeZone::get(self.zone).unwrap();
        let begin = self.from - self.duration - 48.hours();
        let mut civil: Vec<(Timestamp, DateTime)> = Vec::new();
        let mut at = begin;
        while at < self.to + 48.hours() {
            civil.push((at, zone.to_datetime(at)));
            at += MINUTE;
        }
        let dates: BTreeSet<Date> = civil.iter().map(|(_, local)| local.date()).collect();
        let mut seen: HashSet<DateTime> = HashSet::new();
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
                if self.spec.matches(local) && seen.insert(local) {
                    opens.insert(at, good);
                }
            }
            before = Some(local);
        }
        opens
            .into_iter()
            .filter(|(opens, good)| {
                *good
                    && *opens >= self.from - self.duration
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
            let expected: Vec<_> =
                walked.iter().copied().filter(|o| o.closes > at).take(MANY).collect();
            let got: Vec<_> = schedule
                .occurrences_from(at)
                .take_while(|o| o.opens < self.to)
                .take(MANY)
                .collect();
            assert_eq!(got, expected, "occurrences from {at} of {self:?}");
            let open = walked.iter().copied().filter(|o| o.opens <= at && at < o.closes);
            let last = open.max_by_key(|o| (o.closes, o.opens));
            assert_eq!(schedule.open_at(at), last, "open at {at} of {self:?}");
            let expected: Vec<_> =
                walked.iter().copied().filter(|o| o.opens >= at).take(MANY).collect();
            let got: Vec<_> =
                schedule.openings_from(at).take_while(|o| o.opens < self.to).take(MANY).collect();
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

/// Around one change, with wall-clock starts within three hours of it.
fn near_change() -> impl Strategy<Value = (Case, Vec<Timestamp>)> {
    let zones: Vec<_> = ZONES.iter().copied().filter(|zone| *zone != "UTC").collect();
    let zone = proptest::sample::select(zones);
    let minutes = proptest::sample::select(
        &["0", "30", "0,30", "0-59/15", "59", "1-58/19", "0-59", "*/20"][..],
    );
    let hours = proptest::collection::btree_set(-3..=3_i64, 1..4);
    let spans = (0..3300_u32, 1..40_i64, 1..40_i64, 1..1500_i64);
    let day = prop_oneof![3 => Just(None), 1 => (-1..=1_i64).prop_map(Some)];
    let except = proptest::option::weighted(0.3, -1..=1_i64);
    let instants = proptest::collection::vec(0..(3 * 86_400_i64), 3);
    (zone, minutes, hours, spans, day, except, instants).prop_map(
        |(zone, minutes, hours, (pick, before, after, minutes_long), weekday, except, instants)| {
            let change = around(zone, pick, 1, 0).0;
            let local = TimeZone::get(zone).unwrap().to_datetime(change);
            let hours: BTreeSet<i8> = hours
                .into_iter()
                .map(|hour| i8::try_from((i64::from(local.hour()) + hour).rem_euclid(24)).unwrap())
                .collect();
            let days = |shift: i64| local.date() + shift.days();
            let weekday = weekday.map(|shift| days(shift).weekday().to_sunday_zero_offset());
            let spec = Spec {
                text: format!(
                    "{minutes} {} * * {}",
                    hours.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                    weekday.map_or("*".to_owned(), |day| day.to_string()),
                ),
                minutes: match minutes {
                    "0" => BTreeSet::from([0]),
                    "30" => BTreeSet::from([30]),
                    "0,30" => BTreeSet::from([0, 30]),
                    "0-59/15" => BTreeSet::from([0, 15, 30, 45]),
                    "59" => BTreeSet::from([59]),
                    "1-58/19" => BTreeSet::from([1, 20, 39, 58]),
                    "*/20" => BTreeSet::from([0, 20, 40]),
                    _ => (0..60).collect(),
                },
                hours,
                days: (1..=31).collect(),
                months: (1..=12).collect(),
                weekdays: weekday.map_or((0..=6).collect(), |day| BTreeSet::from([day])),
                either_day: false,
                any_day: true,
                real_time: minutes.contains('*'),
            };
            let from = change - before.hours();
            let case = Case {
                spec,
                zone,
                duration: SignedDuration::from_mins(minutes_long),
                not_before: None,
                not_after: None,
                except: except.into_iter().map(days).collect(),
                from,
                to: change + after.hours(),
            };
            let instants = instants.into_iter().map(|second| from + second.seconds()).collect();
            (case, instants)
        },
    )
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn agrees_with_a_walk_over_every_minute((case, instants) in case()) {
        case.check(&instants);
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn agrees_with_a_walk_around_changes((case, instants) in near_change()) {
        case.check(&instants);
    }
}

/// The openings in `[from, to)` as people read them, beside the instants in UTC.
fn openings(cron: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let recurring = recurring(cron, zone, SignedDuration::from_hours(2));
    let schedule = Schedule::Recurring(Box::new(recurring));
    let shown = |o: Occurrence| {
        assert_eq!(
            o.closes.duration_since(o.opens),
            SignedDuration::from_hours(2),
            "real duration"
        );
        format!("{} = {}", o.opens, schedule.human(o.opens))
    };
    schedule.openings_from(at(from)).take_while(|o| o.opens < at(to)).map(shown).collect()
}

#[test]
fn a_gap_opens_at_its_end_and_a_fold_once() {
    assert_eq!(
        openings("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"),
        [
            "2026-03-28T01:30:00Z = Sat 28 Mar 02:30 Europe/Berlin",
            "2026-03-29T01:00:00Z = Sun 29 Mar 03:00 Europe/Berlin",
            "2026-03-30T00:30:00Z = Mon 30 Mar 02:30 Europe/Berlin",
        ]
    );
    assert_eq!(
        openings("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z"),
        ["2026-10-25T00:30:00Z = Sun 25 Oct 02:30 Europe/Berlin"]
    );
    // With a `*` in the hour, real time: none in the gap, both in the fold.
    assert_eq!(
        openings("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z"),
        [
            "2026-03-29T00:30:00Z = Sun 29 Mar 01:30 Europe/Berlin",
            "2026-03-29T01:30:00Z = Sun 29 Mar 03:30 Europe/Berlin",
        ]
    );
    assert_eq!(
        openings("30 */2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z"),
        [
            "2026-10-25T00:30:00Z = Sun 25 Oct 02:30 Europe/Berlin",
            "2026-10-25T01:30:00Z = Sun 25 Oct 02:30 Europe/Berlin",
        ]
    );
}

#[test]
fn a_gap_at_midnight_keeps_the_day_that_cron_named() {
    // Beirut's Sunday begins at 01:00.
    assert_eq!(
        openings("0 0 * * SUN", "Asia/Beirut", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z"),
        ["2026-03-28T22:00:00Z = Sun 29 Mar 01:00 Asia/Beirut"]
    );
    // Nuuk's Saturday ends at 23:00, so 23:30 opens as Sunday begins; a Sunday's 23:30 does not.
    assert_eq!(
        openings("30 23 * * SAT", "America/Nuuk", "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z"),
        ["2026-03-29T01:00:00Z = Sun 29 Mar 00:00 America/Nuuk"]
    );
    assert_eq!(
        openings("30 23 * * SUN", "America/Nuuk", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"),
        ["2026-03-30T00:30:00Z = Sun 29 Mar 23:30 America/Nuuk"]
    );
}

/// By the date that cron named and by the one on which it opens, which a gap may part.
#[test]
fn an_exception_takes_the_whole_occurrence() {
    let left = |cron: &str, zone: &str, date: &str, from: &str| {
        let recurring = recurring(cron, zone, SignedDuration::from_hours(3));
        let except = BTreeSet::from([tidegate_policy::text::date(date).unwrap()]);
        let schedule = Schedule::Recurring(Box::new(recurring.except(except)));
        let opens =
            schedule.openings_from(at(from)).take_while(|o| o.opens < at(from) + 24.hours());
        opens.count()
    };
    // Over midnight: the day on which it opens counts, not the one on which it closes.
    assert_eq!(left("0 23 * * *", "UTC", "2026-11-24", "2026-11-24T00:00:00Z"), 0);
    assert_eq!(left("0 23 * * *", "UTC", "2026-11-25", "2026-11-24T00:00:00Z"), 1);
    for (date, count) in
        [("2026-03-27", 1), ("2026-03-28", 0), ("2026-03-29", 0), ("2026-03-30", 1)]
    {
        let nuuk = left("30 23 * * SAT", "America/Nuuk", date, "2026-03-28T12:00:00Z");
        assert_eq!(nuuk, count, "{date}");
    }
}

#[test]
fn a_day_that_was_skipped_has_no_start() {
    let apia =
        |cron| openings(cron, "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z");
    assert_eq!(
        apia("0 12 29-31 12 *"),
        [
            "2011-12-29T22:00:00Z = Thu 29 Dec 12:00 Pacific/Apia",
            "2011-12-30T22:00:00Z = Sat 31 Dec 12:00 Pacific/Apia",
        ]
    );
    assert!(apia("0 12 30 12 *").is_empty());
    assert!(apia("0 0 * * FRI").is_empty());
}

#[test]
fn leap_days_come_across_a_century_without_one() {
    let leap = openings("0 12 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-03-01T00:00:00Z");
    assert_eq!(leap, ["2104-02-29T12:00:00Z = Fri 29 Feb 12:00 UTC"]);
}

#[test]
fn either_day_field_matches_where_both_are_set() {
    assert_eq!(
        openings("0 0 13 * FRI", "UTC", "2026-02-10T00:00:00Z", "2026-02-28T00:00:00Z"),
        [
            "2026-02-13T00:00:00Z = Fri 13 Feb 00:00 UTC",
            "2026-02-20T00:00:00Z = Fri 20 Feb 00:00 UTC",
            "2026-02-27T00:00:00Z = Fri 27 Feb 00:00 UTC",
        ]
    );
    // A day field of `*/2` is other than `*`.
    assert_eq!(
        openings("0 0 */28 * MON", "UTC", "2026-02-24T00:00:00Z", "2026-03-03T00:00:00Z").len(),
        // The 1st (a Sunday), Monday 2 March.
        2
    );
}

#[test]
fn schedules_end() {
    let recurring = |text: &str| recurring(text, "Europe/Berlin", MINUTE);
    let of = |recurring| Schedule::Recurring(Box::new(recurring));
    // By the end of the calendar.
    let late = at("9999-12-30T12:00:00Z");
    assert!(of(recurring("0 12 * * *")).occurrences_from(late).count() <= 2);
    assert_eq!(of(recurring("0 0 29 2 *")).occurrences_from(late).count(), 0);
    // By notAfter, half-open.
    let bound = Some(at("2026-11-24T11:00:00Z"));
    let bounded = of(recurring("0 12 * * *").bounded(None, bound).unwrap());
    let from = at("2026-11-23T00:00:00Z");
    let opens: Vec<_> = bounded.occurrences_from(from).map(|o| o.opens).collect();
    assert_eq!(opens, [at("2026-11-23T11:00:00Z")]);
    assert_eq!(bounded.last_closed(at("2030-01-01T00:00:00Z")).map(|o| o.opens), Some(opens[0]));
    let empty =
        of(recurring("0 12 * * *").bounded(bound, Some(at("2026-11-24T11:00:01Z"))).unwrap());
    let only = empty.occurrences_from(from).next().unwrap();
    assert_eq!(only.closes, at("2026-11-24T11:00:01Z"), "closes at notAfter at the latest");
    assert_eq!(empty.occurrences_from(only.closes).count(), 0);
}

/// The ends of the calendar are instants like others.
#[test]
fn no_instant_makes_a_schedule_fall_over() {
    let (first, last) = (Timestamp::MIN, Timestamp::MAX);
    let mut schedules =
        vec![Schedule::Once(Once::new(first, last, jiff::tz::Offset::constant(-12)).unwrap())];
    for cron in ["* * * * *", "0 0 29 2 *", "0-59 0-23 1 1 *", "30 23 31 12 *"] {
        for zone in ["UTC", "Pacific/Apia", "America/Nuuk"] {
            let week = recurring(cron, zone, SignedDuration::from_hours(168));
            let bounded = week.clone().bounded(Some(first), Some(last)).unwrap();
            schedules.extend([week, bounded].map(|s| Schedule::Recurring(Box::new(s))));
        }
    }
    for schedule in &schedules {
        for at in [first, first + 1.hour(), at("0001-01-01T00:00:00Z"), last - 1.hour(), last] {
            if let Some(open) = schedule.open_at(at) {
                assert!(open.contains(at));
            }
            for occurrence in schedule.occurrences_from(at).take(3) {
                assert!(occurrence.closes > at && occurrence.opens < occurrence.closes);
            }
            assert!(schedule.openings_from(at).take(3).all(|o| o.opens >= at));
            assert!(schedule.last_closed(at).is_none_or(|o| o.closes <= at));
            assert!(schedule.human_from(at, last).is_ascii());
        }
    }
}

#[test]
fn people_read_times_in_the_schedules_own_zone() {
    let (start, offset) =
        tidegate_policy::text::timestamp_and_offset("2026-11-23T09:00:00+01:00").unwrap();
    let once = Once::new(start, start + MINUTE, offset).unwrap();
    let once = Schedule::Once(once);
    assert_eq!(once.human(start), "Mon 23 Nov 09:00 +01:00");
    assert_eq!(once.human_from(start, at("2025-01-01T00:00:00Z")), "Mon 23 Nov 2026 09:00 +01:00");
    assert_eq!(once.human_from(start, at("2026-11-01T00:00:00Z")), "Mon 23 Nov 09:00 +01:00");
    assert!(once.open_at(start).is_some());
    assert!(once.open_at(start - 1.nanosecond()).is_none());
    assert!(once.open_at(start + MINUTE).is_none());
    assert!(once.occurrences_from(start + MINUTE).next().is_none());
    assert_eq!(Once::new(start, start, offset), Err(BadSchedule::EndNotAfterStart));
}

/// An hour's worth of `decide` on the densest schedule there is: each must look at a handful of
/// instants, not at every minute of a week.
#[test]
fn the_densest_schedule_is_not_walked() {
    let cron = Cron::parse("* * * * *").unwrap();
    let zone = Zone::parse("Europe/Berlin").unwrap();
    let week = SignedDuration::from_hours(168);
    let dense = Recurring::new(cron, zone, week).unwrap();
    let start = at("2026-11-23T09:00:00Z");
    let days = (1..7).map(|day| jiff::civil::date(2026, 11, 17 + day)).collect();
    let dense = Schedule::Recurring(Box::new(dense.except(days)));
    for second in 0..3600 {
        let at = start + second.seconds();
        let open = dense.open_at(at).unwrap();
        assert_eq!(
            open.opens,
            at_local("2026-11-17T23:59:00+01:00"),
            "the days between are excepted"
        );
        assert!(dense.occurrences_from(at).next().is_some());
    }
}

fn at_local(text: &str) -> Timestamp {
    tidegate_policy::text::timestamp(text).unwrap()
}
