//! The strict readers: what they take, what they refuse, and that no text makes them fall over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod common;

use common::cron;
use proptest::prelude::*;
use tidegate_draw::cases;
use tidegate_policy::cron::Cron;
use tidegate_policy::schedule::Zone;
use tidegate_policy::text;

fn sentence(text: &str) {
    assert!(!text.is_empty() && text.len() <= 300, "{} bytes: {text}", text.len());
    assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text:?}");
}

#[test]
fn crons_that_crontab_knows() {
    for good in [
        "0 22 * * TUE,THU",
        "*/5 * * * *",
        "0-59/15 0-23 1,15 jan-Mar 0-7",
        "0  5\t* * *",
        "05 04 01 02 7",
        "59 23 31 DEC sat",
        "*/99 * * * 1-5/2,SUN",
    ] {
        let cron = Cron::parse(good).unwrap_or_else(|bad| panic!("{good}: {bad}"));
        assert_eq!(cron.to_string(), good);
        assert!(cron.can_fire(), "{good}");
    }
}

#[test]
fn crons_that_are_refused_by_name() {
    for (bad, says) in [
        ("", "fewer than five"),
        ("* * * *", "fewer than five"),
        ("0 0 * * * *", "more than five"),
        ("0 0 * * * * 2026", "more than five"),
        ("@daily", "macro"),
        ("0 0 * * *\n", "\\n"),
        ("0 0\u{a0}* * *", "\\u{a0}"),
        (" 0 0 * * *", "begins or ends"),
        ("0 0 * * * ", "begins or ends"),
        ("60 0 * * *", "minute field of the cron has '60'"),
        ("0 24 * * *", "hour field of the cron has '24'"),
        ("0 0 0 * *", "day of month field of the cron has '0'"),
        ("0 0 32 * *", "day of month field"),
        ("0 0 * 13 *", "month field of the cron has '13'"),
        ("0 0 * * 8", "day of week field of the cron has '8'"),
        ("0 0 L * *", "'L'"),
        ("0 0 15W * *", "'15W'"),
        ("0 0 * * 5#2", "'5#2'"),
        ("0 0 ? * *", "'?'"),
        ("0 0 * * 5L", "'5L'"),
        ("+5 0 * * *", "'+5'"),
        ("9,,17 0 * * *", "empty"),
        (",9 0 * * *", "empty"),
        ("0 22-2 * * *", "ends before it begins"),
        ("0 0 * * FRI-SUN", "ends before it begins"),
        ("5/10 * * * *", "a step needs a range"),
        ("*/0 * * * *", "step"),
        ("*/ * * * *", "step"),
        ("*/5/5 * * * *", "step"),
        ("*,5 * * * *", "'*'"),
        ("0 0 1JAN * *", "'1JAN'"),
        ("JAN 0 * * *", "'JAN'"),
        ("0 0 * MON *", "'MON'"),
        ("0 0 * * JAN", "'JAN'"),
        ("0 0 * JANUARY *", "'JANUARY'"),
        ("0 0 * J\u{c4}N *", "plain ASCII"),
        ("1- 0 * * *", "''"),
        ("-5 0 * * *", "''"),
        ("1-2-3 0 * * *", "'2-3'"),
        ("000 0 * * *", "'000'"),
    ] {
        let refusal = Cron::parse(bad).expect_err(bad).to_string();
        sentence(&refusal);
        assert!(refusal.contains(says), "{bad}: {refusal}");
    }
    sentence(&Cron::parse(&"0,".repeat(200)).unwrap_err().to_string());
}

#[test]
fn crons_that_never_fire() {
    for (text, fires) in [
        ("0 0 30 2 *", false),
        ("0 0 31 2,4,6,9,11 *", false),
        ("0 0 31 4,5 *", true),
        ("0 0 29 2 *", true),
        ("0 0 30 2 MON", true),
        ("0 0 * 2 MON", true),
    ] {
        assert_eq!(Cron::parse(text).unwrap().can_fire(), fires, "{text}");
    }
}

#[test]
fn zones_are_exact_names_of_the_bundled_database() {
    for good in ["Europe/Berlin", "UTC", "EST5EDT", "Asia/Calcutta", "Etc/GMT+12", "US/Pacific"] {
        assert_eq!(Zone::parse(good).unwrap().name(), good);
    }
    assert_ne!(Zone::parse("Asia/Calcutta").unwrap(), Zone::parse("Asia/Kolkata").unwrap());
    for bad in [
        "",
        "utc",
        "europe/berlin",
        "Local",
        "localtime",
        "posixrules",
        "posix/Europe/Berlin",
        "right/Europe/Berlin",
        "Europe//Berlin",
        "+01:00",
        "Etc/Unknown",
        "../etc/passwd",
        "Z",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "Europe/Berlin\n",
    ] {
        sentence(&Zone::parse(bad).expect_err(bad).to_string());
    }
}

#[test]
fn timestamps_dates_and_durations() {
    for (good, same) in [
        ("2026-11-23T09:00:00+01:00", "2026-11-23T08:00:00Z"),
        ("2026-11-23T09:00:00.5Z", "2026-11-23T09:00:00.5Z"),
        ("2024-02-29T23:59:59.123456789-23:59", "2024-03-01T23:58:59.123456789Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ] {
        assert_eq!(text::timestamp(good).unwrap().to_string(), same);
    }
    for bad in [
        "",
        "2026-11-23",
        "2026-11-23T09:00Z",
        "2026-11-23T09:00:60Z",
        "0000-01-01T00:00:00Z",
        "2026-11-23T09:00:00",
        "2026-11-23T09:00:00+01",
        "2026-11-23T09:00:00+0100",
        "2026-11-23T09:00:00+24:00",
        "2026-11-23T09:00:00+01:60",
        "2026-11-23 09:00:00Z",
        "2026-11-23t09:00:00Z",
        "2026-11-23T09:00:00z",
        "2026-11-23T09:00:00Z[Europe/Berlin]",
        "2026-11-23T24:00:00Z",
        "2026-02-29T00:00:00Z",
        "20261123T090000Z",
        "2026-11-23T09:00:00.Z",
        "2026-11-23T09:00:00,5Z",
        "2026-11-23T09:00:00.1234567890Z",
        " 2026-11-23T09:00:00Z",
        "2026-11-23T09:00:00Z\n",
        "+002026-11-23T09:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "2026-11-23T09:00:00\u{2212}01:00",
        "\u{ff12}026-11-23T09:00:00Z",
    ] {
        sentence(&text::timestamp(bad).expect_err(bad).to_string());
    }
    assert_eq!(text::date("2024-02-29").unwrap(), jiff::civil::date(2024, 2, 29));
    for bad in ["", "20261224", "2026-2-4", "2026-13-01", "2025-02-29", "0000-01-01", "2026-12-24 "]
    {
        sentence(&text::date(bad).expect_err(bad).to_string());
    }
    for (good, seconds) in
        [("2h30m", 9000), ("45m", 2700), ("90s", 90), ("168h", 604_800), ("1h1s", 3601), ("0s", 0)]
    {
        assert_eq!(text::duration(good).unwrap().as_secs(), seconds);
    }
    for bad in [
        "",
        "2",
        "h",
        "2h ago",
        "-2h",
        "PT2H",
        "1ns",
        "1.5h",
        "2H",
        "30m2h",
        "2h2h",
        "2h 30m",
        "1d",
        "+2h",
        "\u{662}h",
        "9999999999h",
    ] {
        sentence(&text::duration(bad).expect_err(bad).to_string());
    }
}

fn soup() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[-0-9*/,LW#?@a-zA-Z \t\n]{0,60}",
        "([0-9*/,-]{1,6} ){4}[0-9A-Z*/,-]{1,6}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,10}[Z+-][0-9:]{0,6}",
        "[0-9]{0,12}[hms][0-9]{0,4}[hms]?",
    ]
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn no_text_makes_a_reader_fall_over(text in soup()) {
        match Cron::parse(&text) {
            Ok(cron) => {
                prop_assert_eq!(cron.to_string(), &*text);
                let _ = cron.can_fire();
            }
            Err(bad) => sentence(&bad.to_string()),
        }
        if let Err(bad) = Zone::parse(&text) {
            sentence(&bad.to_string());
        }
        if let Err(bad) = text::timestamp(&text) {
            sentence(&bad.to_string());
        }
        if let Err(bad) = text::date(&text) {
            sentence(&bad.to_string());
        }
        match text::duration(&text) {
            Ok(duration) => {
                let again = text::duration(&text::show_duration(duration));
                prop_assert_eq!(again, Ok(duration));
            }
            Err(bad) => sentence(&bad.to_string()),
        }
    }

    #[test]
    fn every_cron_of_crontab_is_read_and_given_back(spec in cron()) {
        let cron = Cron::parse(&spec.text).unwrap();
        prop_assert_eq!(cron.to_string(), &*spec.text);
        prop_assert_eq!(cron.follows_real_time(), spec.real_time);
        prop_assert_eq!(Cron::parse(&cron.to_string()), Ok(cron));
    }
}
