//! Cron: exactly the five fields of crontab(5), as five bit sets matched on civil time.
//!
//! Pure: text in, sets out. Gaps and folds are `schedule`'s business.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use crate::text::shown;

/// The most bytes that a cron text may have, as the CRD bounds it.
pub const LONGEST: usize = 128;

const MINUTES_OF_DAY: i64 = 24 * 60;
const SECONDS_OF_DAY: i64 = 24 * 60 * 60;

/// A parsed cron expression. `Display` gives the text as it was written; two that are written
/// differently are not equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cron {
    text: Arc<str>,
    /// Bit n set: n matches. Sunday is 0 alone.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
    real_time: bool,
}

/// Why a text is not a cron expression: one clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCron(pub String);

/// A field's name in sentences, its bounds, and the names that stand for its first values.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Field = Field { name: "day of month", low: 1, high: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field = Field {
    name: "day of week",
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Field {
    /// The field's set of values as bits.
    fn parse(&self, text: &str) -> Result<u64, BadCron> {
        let list = text.contains(',');
        let mut bits = 0;
        for element in text.split(',') {
            bits |= self.element(element, list)?;
        }
        Ok(bits)
    }

    fn element(&self, text: &str, list: bool) -> Result<u64, BadCron> {
        if text.is_empty() {
            return Err(self.bad(text, "which is empty; write values between the commas"));
        }
        let (body, step) = match text.split_once('/') {
            None => (text, None),
            Some((body, step)) => match number(step) {
                Some(step) if step > 0 => (body, Some(step)),
                _ => return Err(self.bad(text, "whose step is not a number from 1 to 99")),
            },
        };
        let (low, high) = if body == "*" {
            if list {
                return Err(self.bad(text, "but '*' stands for the whole field, not in a list"));
            }
            (self.low, self.high)
        } else if let Some((low, high)) = body.split_once('-') {
            (self.value(low)?, self.value(high)?)
        } else if step.is_some() {
            let hint =
                format!("but a step needs a range, as in */10 or {}-{}/2", self.low, self.high);
            return Err(self.bad(text, &hint));
        } else {
            let value = self.value(body)?;
            (value, value)
        };
        if low > high {
            return Err(self.bad(text, "which ends before it begins; list its two parts instead"));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((low..=high).step_by(step).fold(0, |bits, value| bits | (1 << value)))
    }

    fn value(&self, text: &str) -> Result<u32, BadCron> {
        let named = || {
            let at = self.names.iter().position(|name| name.eq_ignore_ascii_case(text))?;
            u32::try_from(at).ok().map(|at| at + self.low)
        };
        match number(text).or_else(named) {
            Some(value) if (self.low..=self.high).contains(&value) => Ok(value),
            _ => {
                let (low, high) = (self.low, self.high);
                let names = match self.names.first() {
                    None => String::new(),
                    Some(name) => format!(" or a name such as {}", name.to_ascii_uppercase()),
                };
                Err(self.bad(text, &format!("which is not a number from {low} to {high}{names}")))
            }
        }
    }

    fn bad(&self, text: &str, why: &str) -> BadCron {
        BadCron(format!("the {} field of the cron has '{}', {why}", self.name, shown(text, 40)))
    }
}

/// One or two digits; nothing that cron means needs more.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl Cron {
    /// Takes the five fields; anything outside crontab(5) is refused by name.
    pub fn parse(text: &str) -> Result<Self, BadCron> {
        let bad = |why: &str| Err(BadCron(why.to_owned()));
        if text.len() > LONGEST {
            return bad("the cron is longer than 128 bytes; split it into several windows");
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() && !matches!(c, ' ' | '\t'))
        {
            let odd = shown(&odd.escape_default().to_string(), 12);
            return Err(BadCron(format!(
                "the cron has the character '{odd}'; write it in plain ASCII on one line"
            )));
        }
        if text.starts_with('@') {
            return bad("the cron is a macro such as @daily; write its five fields instead");
        }
        if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
            return bad("the cron begins or ends with a space; write its five fields alone");
        }
        let mut fields = text.split([' ', '\t']).filter(|field| !field.is_empty());
        let five = (fields.next(), fields.next(), fields.next(), fields.next(), fields.next());
        let (Some(minute), Some(hour), Some(day), Some(month), Some(weekday)) = five else {
            return bad(
                "the cron has fewer than five fields; write minute, hour, day of month, month, day of week",
            );
        };
        if fields.next().is_some() {
            return bad(
                "the cron has more than five fields; write minute, hour, day of month, month, day of week",
            );
        }
        Ok(Self {
            text: text.into(),
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            // 0 and 7 are Sunday.
            weekdays: WEEKDAY.parse(weekday).map(|bits| (bits | (bits >> 7)) & 0x7f)?,
            any_day: day == "*",
            any_weekday: weekday == "*",
            real_time: minute.contains('*') || hour.contains('*'),
        })
    }

    /// Whether any date in the 400-year cycle matches: `0 0 30 2 *` never does.
    pub fn can_fire(&self) -> bool {
        // Every month has every day of the week, so a restricted one always comes.
        let by_weekday = !self.any_weekday;
        let longest = |month: u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        by_weekday
            || (1..=12).any(|month| {
                has(self.months, month) && (1..=longest(month)).any(|day| has(self.days, day))
            })
    }

    /// Whether starts follow real time (hour or minute has a `*`): none in a gap, both in a fold.
    /// Otherwise they are wall-clock times, each of which comes once.
    pub fn follows_real_time(&self) -> bool {
        self.real_time
    }

    /// The first matching minute at or after `minute`, both counted from 1970-01-01T00:00 of the same
    /// civil time. `None` where the calendar of jiff ends.
    pub(crate) fn next_match(&self, minute: i64) -> Option<i64> {
        let day = minute.div_euclid(MINUTES_OF_DAY);
        let date = date_of(day)?;
        if self.on(date)
            && let Some(time) = self.time_from(minute.rem_euclid(MINUTES_OF_DAY))
        {
            return Some(day * MINUTES_OF_DAY + time);
        }
        let mut date = date.tomorrow().ok()?;
        while !self.on(date) {
            date = if month_in(self.months, date) {
                date.tomorrow().ok()?
            } else {
                date.last_of_month().tomorrow().ok()?
            };
        }
        Some(day_of(date)? * MINUTES_OF_DAY + self.time_from(0)?)
    }

    /// The last matching minute in `[floor, minute]`.
    pub(crate) fn previous_match(&self, minute: i64, floor: i64) -> Option<i64> {
        let mut date = date_of(minute.div_euclid(MINUTES_OF_DAY))?;
        let mut time = minute.rem_euclid(MINUTES_OF_DAY);
        loop {
            let day = day_of(date)?;
            if (day + 1) * MINUTES_OF_DAY <= floor {
                return None;
            }
            if self.on(date)
                && let Some(time) = self.time_to(time)
            {
                let found = day * MINUTES_OF_DAY + time;
                return (found >= floor).then_some(found);
            }
            time = MINUTES_OF_DAY - 1;
            let month_matches = month_in(self.months, date);
            date = if month_matches { date } else { date.first_of_month() }.yesterday().ok()?;
        }
    }

    /// Whether this civil date has starts; where both day fields are other than `*`, either matches.
    fn on(&self, date: Date) -> bool {
        let day = has(self.days, u32::from(date.day().unsigned_abs()));
        let weekday = date.weekday().to_sunday_zero_offset();
        let weekday = has(self.weekdays, u32::from(weekday.unsigned_abs()));
        let day_matches = match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            // A `*` matches all, so that the other one alone decides.
            _ => day && weekday,
        };
        month_in(self.months, date) && day_matches
    }

    /// The first matching minute of a day at or after `minute` of it.
    fn time_from(&self, minute: i64) -> Option<i64> {
        let (hour, minute) = (u32::try_from(minute / 60).ok()?, u32::try_from(minute % 60).ok()?);
        let within = has(self.hours, hour).then(|| next_bit(self.minutes, minute)).flatten();
        if let Some(minute) = within {
            return Some(i64::from(hour * 60 + minute));
        }
        let hour = next_bit(self.hours, hour + 1)?;
        Some(i64::from(hour * 60 + next_bit(self.minutes, 0)?))
    }

    /// The last matching minute of a day at or before `minute` of it.
    fn time_to(&self, minute: i64) -> Option<i64> {
        let (hour, minute) = (u32::try_from(minute / 60).ok()?, u32::try_from(minute % 60).ok()?);
        let within = has(self.hours, hour).then(|| previous_bit(self.minutes, minute)).flatten();
        if let Some(minute) = within {
            return Some(i64::from(hour * 60 + minute));
        }
        let hour = previous_bit(self.hours, hour.checked_sub(1)?)?;
        Some(i64::from(hour * 60 + previous_bit(self.minutes, 59)?))
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn has(bits: u64, n: u32) -> bool {
    bits.checked_shr(n).unwrap_or(0) & 1 == 1
}

fn month_in(months: u64, date: Date) -> bool {
    has(months, u32::from(date.month().unsigned_abs()))
}

fn next_bit(bits: u64, from: u32) -> Option<u32> {
    let above = bits.checked_shr(from).unwrap_or(0);
    (above != 0).then(|| from + above.trailing_zeros())
}

fn previous_bit(bits: u64, to: u32) -> Option<u32> {
    let below = bits & (u64::MAX >> 63_u32.saturating_sub(to));
    below.checked_ilog2()
}

/// The civil date that is `day` days after 1970-01-01.
pub(crate) fn date_of(day: i64) -> Option<Date> {
    let midnight = Timestamp::from_second(day.checked_mul(SECONDS_OF_DAY)?).ok()?;
    Some(Offset::UTC.to_datetime(midnight).date())
}

/// The days from 1970-01-01 to `date`.
pub(crate) fn day_of(date: Date) -> Option<i64> {
    let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    Some(midnight.as_second().div_euclid(SECONDS_OF_DAY))
}
