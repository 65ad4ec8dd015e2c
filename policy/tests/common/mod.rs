//! What the tests share: crons made from sets rather than parsed, and small policies.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod policy;

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use proptest::prelude::*;

/// A cron as text and, apart from it, the sets that the text means.
#[derive(Clone, Debug)]
pub struct Spec {
    pub text: String,
    pub minutes: BTreeSet<i8>,
    pub hours: BTreeSet<i8>,
    pub days: BTreeSet<i8>,
    pub months: BTreeSet<i8>,
    /// Sunday is 0.
    pub weekdays: BTreeSet<i8>,
    pub either_day: bool,
    pub any_day: bool,
    pub real_time: bool,
}

impl Spec {
    pub fn matches(&self, at: DateTime) -> bool {
        let day = self.days.contains(&at.day());
        let weekday = self.weekdays.contains(&at.date().weekday().to_sunday_zero_offset());
        self.minutes.contains(&at.minute())
            && self.hours.contains(&at.hour())
            && self.months.contains(&at.month())
            && if self.either_day {
                day || weekday
            } else if self.any_day {
                weekday
            } else {
                day
            }
    }
}

type Field = (String, BTreeSet<i8>);

fn element(low: i8, high: i8, names: &'static [&'static str]) -> impl Strategy<Value = Field> {
    let name = move |value: i8, named: u8| {
        let at = usize::try_from(value - low).unwrap();
        match names.get(at) {
            Some(name) if named == 1 => (*name).to_owned(),
            Some(name) if named == 2 => name.to_lowercase(),
            _ => value.to_string(),
        }
    };
    (low..=high, low..=high, 1..=9_i8, 0..4_u8, 0..4_u8).prop_map(
        move |(a, b, step, kind, named)| {
            let (from, to) = (a.min(b), a.max(b));
            match kind {
                0 | 1 => (name(a, named), BTreeSet::from([a])),
                2 => (format!("{}-{}", name(from, named), name(to, named)), (from..=to).collect()),
                _ => (
                    format!("{}-{}/{step}", name(from, named), name(to, named)),
                    (from..=to).step_by(usize::try_from(step).unwrap()).collect(),
                ),
            }
        },
    )
}

fn list(low: i8, high: i8, names: &'static [&'static str]) -> impl Strategy<Value = Field> {
    proptest::collection::vec(element(low, high, names), 1..4).prop_map(|elements| {
        let (texts, sets): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
        (texts.join(","), sets.into_iter().flatten().collect())
    })
}

fn field(low: i8, high: i8, names: &'static [&'static str]) -> impl Strategy<Value = Field> {
    let all = (low..=high).collect::<BTreeSet<i8>>();
    let star = Just(("*".to_owned(), all));
    let steps = (1..=30_i8).prop_map(move |step| {
        let set = (low..=high).step_by(usize::try_from(step).unwrap()).collect();
        (format!("*/{step}"), set)
    });
    prop_oneof![4 => star, 1 => steps, 3 => element(low, high, names), 2 => list(low, high, names)]
}

const MONTHS: &[&str] =
    &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Any cron that crontab(5) knows; half of them with wall-clock times around the hours at which zones
/// change.
pub fn cron() -> impl Strategy<Value = Spec> {
    let hour = prop_oneof![field(0, 23, &[]), element(0, 3, &[]), element(22, 23, &[])];
    let month =
        prop_oneof![3 => Just(("*".to_owned(), (1..=12).collect())), 1 => field(1, 12, MONTHS)];
    let fields = (field(0, 59, &[]), hour, field(1, 31, &[]), month, field(0, 7, WEEKDAYS));
    fields.prop_map(|(minute, hour, day, month, weekday)| Spec {
        text: [&minute.0, &hour.0, &day.0, &month.0, &weekday.0].map(String::as_str).join(" "),
        either_day: day.0 != "*" && weekday.0 != "*",
        any_day: day.0 == "*",
        real_time: minute.0.contains('*') || hour.0.contains('*'),
        minutes: minute.1,
        hours: hour.1,
        days: day.1,
        months: month.1,
        weekdays: weekday.1.into_iter().map(|day| day % 7).collect(),
    })
}
