//! The rules of the schema, by the same CEL that readers of manifests use: that all of them compile,
//! what the kinds that only relays write allow, and that no rule refuses what `compile` takes.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, and says its values in place"
)]

mod common;

use kube::core::cel::{ErrorKind, Validator};
use proptest::prelude::*;
use regex::Regex;
use serde_json::{Value, json};
use tidegate_crds::{crds, manifest};
use tidegate_draw::cases;
use tidegate_policy::cron::Cron;
use tidegate_policy::schedule::Zone;
use tidegate_policy::text;

fn schema(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The fields and sentences of the rules that are broken.
fn broken(kind: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&schema(kind), new, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .map(|e| {
                assert_eq!(e.kind, ErrorKind::ValidationFailure, "{e}");
                e.to_string()
            })
            .collect(),
    }
}

#[test]
fn good_objects_break_no_rule() {
    use common::{KEYS, mesh, relay, terminal, user, window};
    for object in [
        mesh(),
        relay(),
        user("acme", "bob", KEYS[0]),
        terminal("acme", "kiosk-17", KEYS[1], 20017),
        window("acme", "berlin"),
    ] {
        let kind = object["kind"].as_str().unwrap();
        assert_eq!(broken(kind, &object, None), [""; 0], "{kind}");
        assert_eq!(broken(kind, &object, Some(&object)), [""; 0], "{kind}");
    }
}

fn session() -> Value {
    let spec = json!({
        "window": {"name": "berlin", "uid": "u"}, "opensAt": "2026-11-23T08:00:00Z",
        "user": "bob.acme", "terminal": "kiosk-17", "service": "ssh", "case": "48213",
        "relayPod": "eu-0", "openedAt": "2026-11-23T08:10:00Z", "deadline": "2026-11-23T10:00:00Z",
        "cut": false,
    });
    common::object("SupportSession", "acme", "ss-1", spec)
}

#[test]
fn another_host_key_serves_only_after_it_was_announced() {
    let mesh = |host_key: Value| {
        let mut mesh = common::mesh();
        if !host_key.is_null() {
            mesh["spec"]["hostKey"] = host_key;
        }
        mesh
    };
    let none = || mesh(Value::Null);
    let of = |serve: &str| mesh(json!({"serve": serve}));
    let both = |serve: &str, announce: &str| mesh(json!({"serve": serve, "announce": announce}));
    for (old, new) in [
        (none(), of("A")),
        (none(), both("A", "B")),
        (both("A", "B"), both("B", "A")),
        (both("A", "B"), of("B")),
        (both("B", "A"), both("A", "B")),
        (both("B", "A"), none()),
        (of("B"), both("B", "A")),
    ] {
        assert_eq!(broken("Mesh", &new, Some(&old)), [""; 0], "{old} to {new}");
    }
    for (old, new) in
        [(none(), of("B")), (of("A"), both("B", "A")), (of("B"), none()), (of("B"), of("A"))]
    {
        let broken = broken("Mesh", &new, Some(&old));
        assert_eq!(broken.len(), 1, "{old} to {new}: {broken:?}");
        assert!(broken[0].contains("spec.hostKey.serve"), "{broken:?}");
    }
    assert_eq!(broken("Mesh", &both("A", "A"), None).len(), 1);
    // A new Mesh has no key that a client could miss.
    assert_eq!(broken("Mesh", &both("B", "A"), None), [""; 0]);
}

#[test]
fn of_a_session_only_cut_changes_and_only_once() {
    let old = session();
    assert_eq!(broken("SupportSession", &old, None), [""; 0]);
    let mut cut = old.clone();
    cut["spec"]["cut"] = json!(true);
    assert_eq!(broken("SupportSession", &cut, Some(&old)), [""; 0]);
    let back = broken("SupportSession", &old, Some(&cut));
    assert_eq!(back.len(), 1, "{back:?}");
    assert!(back[0].contains("false to true only"));
    let fields = old["spec"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for field in fields.iter().filter(|field| *field != "cut") {
        let mut new = old.clone();
        new["spec"][field] = match field.as_str() {
            "window" => json!({"name": "berlin", "uid": "other"}),
            time if old["spec"][time].as_str().unwrap().ends_with('Z') => {
                json!("2026-11-23T08:20:00Z")
            }
            _ => json!("other"),
        };
        let broken = broken("SupportSession", &new, Some(&old));
        assert_eq!(broken.len(), 1, "{field}: {broken:?}");
        assert!(broken[0].contains("immutable"), "{field}: {broken:?}");
    }
    let mut new = old.clone();
    new["spec"].as_object_mut().unwrap().remove("case");
    assert_eq!(broken("SupportSession", &new, Some(&old)).len(), 1);
}

#[test]
fn a_claim_is_immutable() {
    let spec = json!({
        "window": {"namespace": "acme", "name": "berlin"}, "opensAt": "2026-11-23T08:00:00Z",
        "index": 0, "session": "ss-1", "relayPod": "eu-0", "reusable": false,
    });
    let old = common::object("SupportClaim", "default", "c", spec);
    assert_eq!(broken("SupportClaim", &old, Some(&old)), [""; 0]);
    let mut new = old.clone();
    new["spec"]["reusable"] = json!(true);
    assert_eq!(broken("SupportClaim", &new, Some(&old)).len(), 1);
}

#[test]
fn one_time_and_mesh_references_cannot_be_changed() {
    let mut old = common::window("acme", "berlin");
    old["spec"]["oneTime"] = json!(true);
    let mut new = old.clone();
    new["spec"]["schedule"]["once"]["start"] = json!("2026-11-23T09:00:01+01:00");
    assert_eq!(broken("SupportWindow", &new, Some(&old)).len(), 1);
    let mut new = old.clone();
    new["spec"]["oneTime"] = json!(false);
    assert_eq!(broken("SupportWindow", &new, Some(&old)).len(), 1);
    assert_eq!(broken("SupportWindow", &old, Some(&common::window("acme", "berlin"))), [""; 0]);
    let old = common::relay();
    let mut new = old.clone();
    new["spec"]["meshRef"]["name"] = json!("other");
    assert_eq!(broken("Relay", &new, Some(&old)).len(), 1);
}

/// The regular expression of the first rule at a field of SupportWindow.
fn expression(pointer: &str) -> Regex {
    let schema = schema("SupportWindow");
    let path = format!("/properties/spec/properties/{}", pointer.replace('.', "/properties/"));
    let rule = schema.pointer(&path).unwrap()["x-kubernetes-validations"][0]["rule"].clone();
    let rule = rule.as_str().unwrap();
    let start = rule.find("matches('").unwrap() + "matches('".len();
    let end = start + rule[start..].find("')").unwrap();
    Regex::new(&rule[start..end]).unwrap()
}

#[test]
fn the_rule_on_crons_refuses_what_crontab_5_does_not_know() {
    let cron = expression("schedule.recurring.cron");
    for good in ["0 22 * * TUE,THU", "*/5 0-23/2 1,15 JAN-mar 0-7", "00 09 01 01 7", "0\t22 * * *"]
    {
        assert!(cron.is_match(good) && Cron::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "@daily",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "5/10 * * * *",
        "9,,17 * * * *",
        "*,1 * * * *",
        "*/0 * * * *",
        "0 0 L * *",
        "0 0 1W * *",
        "0 0 ? * *",
        "0 0 * * 5#3",
        "0 0 * * MONDAY",
        "0 0 MON * *",
        "1JAN * * * *",
        "0 22 * * TUE,THU\n",
        " 0 22 * * *",
        "0 22 * * \u{ff34}UE",
        "-1 * * * *",
    ] {
        assert!(!cron.is_match(bad) && Cron::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_rule_on_zones_takes_every_zone_and_keeps_out_what_go_takes_beside_them() {
    let zone = expression("schedule.recurring.timeZone");
    let mut count = 0;
    for name in jiff::tz::TimeZoneDatabase::bundled().available() {
        let name = name.as_str();
        if Zone::parse(name).is_ok() && name != "Factory" {
            count += 1;
            assert!(zone.is_match(name), "{name}");
        }
    }
    assert!(count > 500, "{count}");
    for bad in ["", "localtime", "posixrules", "posix/UTC", "right/UTC", "Europe//Berlin", "+01:00"]
    {
        assert!(!zone.is_match(bad), "{bad}");
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_schema_never_refuses_a_cron_that_compile_takes(
        cron in "[0-9*,/JANjanSUN -]{9,24}|([*]|[0-9]{1,2}(-[0-9]{1,2}(/[0-9]{1,2})?)?|[*]/[0-9]{1,2})( ([*]|[0-9]{1,2}(-[0-9]{1,2}(/[0-9]{1,2})?)?(,[0-9]{1,2})?)){4}"
    ) {
        thread_local!(static CRON: Regex = expression("schedule.recurring.cron"));
        if Cron::parse(&cron).is_ok() {
            prop_assert!(CRON.with(|rule| rule.is_match(&cron)), "{}", cron);
        }
    }

    #[test]
    fn the_schema_takes_the_same_durations_and_times(
        duration in "([0-9]{1,5}[hms]|[hms]|-[0-9]h| 1h|[0-9]{2}){0,3}",
        time in "20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|[+-][0-2][0-9]:?[0-9]{2})?",
    ) {
        thread_local! {
            static DURATION: Regex = expression("schedule.recurring.duration");
            static TIME: Regex = {
                let schema = schema("SupportWindow");
                let once = "/properties/spec/properties/schedule/properties/once";
                let start = schema.pointer(once).unwrap()["properties"]["start"].clone();
                Regex::new(start["pattern"].as_str().unwrap()).unwrap()
            };
        }
        let matched = DURATION.with(|rule| rule.is_match(&duration)) && !duration.is_empty();
        prop_assume!(!duration.contains(|c: char| c.is_ascii_digit()) || duration.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= 5));
        prop_assert_eq!(text::duration(&duration).is_ok(), matched, "{}", duration);
        // The pattern lets dates through that no month has; the format does not.
        if text::timestamp(&time).is_ok() {
            prop_assert!(TIME.with(|rule| rule.is_match(&time)), "{}", time);
        }
    }
}

#[test]
fn what_stands_in_place_of_a_public_key_is_never_repeated() {
    // The second line of a private key in PKCS #8: the whole secret.
    let secret = "MC4CAQAwBQYDK2VwBCIEINleuojTIJehSH4aL9Z/m3XebinjwIhj6ybZns6AJgVh";
    for text in [secret.to_owned(), format!("-----BEGIN PRIVATE KEY-----\n{secret}\n")] {
        let user = common::user("acme", "bob", &text).to_string();
        let read = manifest::read("bob.yaml", &user);
        let [finding] = read.findings.as_slice() else { panic!("{:#?}", read.findings) };
        assert!(finding.message.contains("must be one SSH public key"), "{finding}");
        assert!(!finding.message.contains("MC4C"), "{finding}");
    }
}
