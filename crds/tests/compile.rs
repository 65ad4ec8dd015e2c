//! A corpus of good and bad objects for `compile`, which trusts no reader: it gets them without one.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, and says its values in place"
)]

mod common;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_crds::compile::{self, Identity, Refusal, public_key};
use tidegate_policy::model::{self, Label, Login};
use tidegate_policy::schedule::Schedule;

use common::{KEYS, P256, P384, P521, RSA_1024, RSA_2048};

fn identity() -> Identity {
    Identity { uid: "u".into(), generation: 3, created: Timestamp::UNIX_EPOCH }
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// `object` with one value set, `null` to remove it.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(field);
    } else {
        parent.insert(field.into(), value);
    }
    object
}

fn window(value: Value) -> Result<model::Window, Vec<Refusal>> {
    compile::window(&typed(value), &identity())
}

fn terminal(value: Value) -> Result<model::Terminal, Vec<Refusal>> {
    compile::terminal(&typed(value), &identity())
}

fn user(value: Value) -> Result<model::LoginUser, Vec<Refusal>> {
    compile::login_user(&typed(value), &identity(), &Label::parse("default").unwrap())
}

/// The only refusal, whose sentence must be one that people can be shown.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Vec<Refusal>>, field: &str, part: &str) {
    let refusals = result.unwrap_err();
    let [refusal] = refusals.as_slice() else { panic!("{refusals:?}") };
    assert_eq!(refusal.field, field, "{refusal}");
    assert!(refusal.sentence.contains(part), "{refusal}");
    assert!(refusal.sentence.is_ascii() && refusal.sentence.len() <= 300, "{refusal}");
    let camel = refusal.reason.chars().next().is_some_and(|c| c.is_ascii_uppercase());
    assert!(camel && refusal.reason.chars().all(|c| c.is_ascii_alphanumeric()), "{refusal:?}");
}

#[test]
fn a_window_becomes_policy_with_its_defaults() {
    let compiled = window(common::window("acme", "berlin")).unwrap();
    assert_eq!(compiled.meta.key.to_string(), "acme/berlin");
    assert_eq!((compiled.meta.generation, &*compiled.meta.uid), (3, "u"));
    assert_eq!(compiled.consent, model::Need::NotRequired);
    assert_eq!(compiled.code, model::Need::NotRequired);
    assert_eq!(compiled.recording, model::Recording::None);
    assert!(!compiled.one_time && !compiled.suspended);
    let Schedule::Once(once) = &compiled.schedule else { panic!() };
    assert_eq!(once.occurrence.opens, "2026-11-23T08:00:00Z".parse().unwrap());
    assert_eq!(once.offset.seconds(), 3600);

    let without = with(common::window("acme", "berlin"), "/spec/consent", Value::Null);
    assert_eq!(window(without).unwrap().consent, model::Need::Required);
}

#[test]
fn a_recurring_window_becomes_policy() {
    let recurring = json!({"recurring": {
        "cron": "0 22 * * TUE,THU", "timeZone": "Europe/Berlin", "duration": "2h30m",
        "notBefore": "2026-11-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z",
        "except": ["2026-12-24"],
    }});
    let compiled = window(with(common::window("acme", "w"), "/spec/schedule", recurring)).unwrap();
    let Schedule::Recurring(recurring) = &compiled.schedule else { panic!() };
    assert_eq!(recurring.zone.name(), "Europe/Berlin");
    assert_eq!(recurring.duration, SignedDuration::from_mins(150));
    assert_eq!(recurring.except.len(), 1);
}

#[test]
fn bad_windows_are_refused_by_field() {
    let base = || common::window("acme", "berlin");
    let once = |field: &str, value: &str| {
        window(with(base(), &format!("/spec/schedule/once/{field}"), json!(value)))
    };
    let bad = |pointer: &str, value: Value| window(with(base(), pointer, value));
    let end = "spec.schedule.once.end";

    refused(once("end", "2026-11-23T09:00:00+01:00"), end, "must be after start");
    refused(once("end", "2026-11-23T09:00:59+01:00"), end, "1m to 168h");
    refused(once("end", "2026-11-30T09:00:01+01:00"), end, "1m to 168h");
    for odd in ["2026-11-23", "2026-11-23T11:00:00", "2026-11-23T11:00:60Z", "2026-11-23 11:00:00Z"]
    {
        refused(once("end", odd), end, "RFC 3339");
    }
    refused(bad("/spec/users", json!({})), "spec.users", "at least one user or group");
    refused(bad("/spec/users/names", json!(["Alice"])), "spec.users.names[0]", "no login");
    refused(bad("/spec/users/names", json!(["a.b.c"])), "spec.users.names[0]", "no login");
    refused(bad("/spec/users/names", json!(["alice", "alice"])), "spec.users.names[1]", "twice");
    refused(
        bad("/spec/users/names", json!(["bob.beta"])),
        "spec.users.names[0]",
        "another namespace",
    );
    bad("/spec/users/names", json!(["bob.acme"])).unwrap();
    refused(bad("/spec/users/groups", json!(["tier_2"])), "spec.users.groups[0]", "63");
    refused(bad("/spec/terminals", json!({})), "spec.terminals", "at least one terminal");
    refused(bad("/spec/terminals/names", json!(["*"])), "spec.terminals.names[0]", "63");
    refused(bad("/spec/terminals/names", json!(["kiosk-17."])), "spec.terminals.names[0]", "63");
    refused(bad("/spec/terminals/guests", json!(true)), "spec.terminals.guests", "not supported");
    refused(bad("/spec/terminals/guests", json!(false)), "spec.terminals.guests", "not supported");
    refused(bad("/spec/services", json!([])), "spec.services", "at least one service");
    refused(bad("/spec/services", json!(["ssh", "ssh"])), "spec.services[1]", "twice");
    refused(bad("/spec/schedule", json!({})), "spec.schedule", "exactly one");
    refused(bad("/spec/case", json!({"number": "4\u{2011}8"})), "spec.case.number", "ASCII");
    refused(bad("/spec/case", json!({"number": ""})), "spec.case.number", "ASCII");
    refused(
        bad("/spec/case", json!({"number": "1", "url": "javascript:x"})),
        "spec.case.url",
        "http",
    );
    for (limits, field) in [
        (json!({"maxSessions": 0}), "maxSessions"),
        (json!({"maxSessionDuration": "0s"}), "maxSessionDuration"),
        (json!({"idleTimeout": "169h"}), "idleTimeout"),
        (json!({"idleTimeout": "PT2H"}), "idleTimeout"),
    ] {
        refused(bad("/spec/limits", limits), &format!("spec.limits.{field}"), "");
    }
    refused(bad("/metadata/name", json!("berlin.maint")), "metadata.name", "63");
    refused(bad("/metadata/name", json!("x".repeat(64))), "metadata.name", "63");
}

#[test]
fn bad_recurring_schedules_are_refused_by_field() {
    let bad = |field: &str, value: Value| {
        let good = json!({"recurring": {
            "cron": "0 22 * * *", "timeZone": "Europe/Berlin", "duration": "2h",
        }});
        let base = with(common::window("acme", "w"), "/spec/schedule", good);
        window(with(base, &format!("/spec/schedule/recurring/{field}"), value))
    };
    let field = |field: &str| format!("spec.schedule.recurring.{field}");
    for cron in ["@daily", "0 22 * *", "0 22 * * * *", "60 22 * * *", "5/10 * * * *", "0 22 L * *"]
    {
        refused(bad("cron", json!(cron)), &field("cron"), "");
    }
    refused(bad("cron", json!("0 0 30 2 *")), &field("cron"), "never come");
    for zone in ["Local", "", "europe/berlin", "CEST", "+01:00", "posix/UTC", "Europe//Berlin"] {
        refused(bad("timeZone", json!(zone)), &field("timeZone"), "IANA");
    }
    bad("timeZone", json!("EST5EDT")).unwrap();
    for duration in ["59s", "168h1s", "2 h", "-2h", "1.5h", "2h ago", "", "30m2h"] {
        refused(bad("duration", json!(duration)), &field("duration"), "");
    }
    refused(bad("except", json!(["2026-02-30"])), &field("except[0]"), "date");
    refused(bad("except", json!(["20261224"])), &field("except[0]"), "date");
    let both = json!("2026-11-01T00:00:00Z");
    let base = with(bad_base(), "/spec/schedule/recurring/notBefore", both.clone());
    let both = window(with(base, "/spec/schedule/recurring/notAfter", both));
    refused(both, &field("notAfter"), "after notBefore");
    let one_time = window(with(bad_base(), "/spec/oneTime", json!(true)));
    refused(one_time, "spec.oneTime", "once");
}

fn bad_base() -> Value {
    let good = json!({"recurring": {
        "cron": "0 22 * * *", "timeZone": "Europe/Berlin", "duration": "2h",
    }});
    with(common::window("acme", "w"), "/spec/schedule", good)
}

#[test]
fn selectors_follow_the_rules_of_kubernetes() {
    let field = "spec.terminals.selector";
    let select = |selector: Value| {
        window(with(common::window("acme", "w"), "/spec/terminals/selector", selector))
    };
    let expression = |value: Value| select(json!({"matchExpressions": [value]}));
    select(json!({"matchLabels": {"tidegate.dev/site": "berlin_1", "empty": ""}})).unwrap();
    expression(json!({"key": "site", "operator": "NotIn", "values": ["a"]})).unwrap();
    refused(select(json!({})), field, "at least one label");
    refused(select(json!({"matchLabels": {"-site": "x"}})), &format!("{field}.matchLabels"), "key");
    refused(select(json!({"matchLabels": {"/site": "x"}})), &format!("{field}.matchLabels"), "key");
    refused(select(json!({"matchLabels": {"a": "x y"}})), &format!("{field}.matchLabels"), "value");
    let at = format!("{field}.matchExpressions[0]");
    refused(
        expression(json!({"key": "s", "operator": "In"})),
        &format!("{at}.values"),
        "must have",
    );
    refused(
        expression(json!({"key": "s", "operator": "Exists", "values": ["x"]})),
        &format!("{at}.values"),
        "must have",
    );
    refused(expression(json!({"key": "s s", "operator": "Exists"})), &format!("{at}.key"), "key");
}

#[test]
fn keys_are_one_line_of_a_known_kind() {
    for good in KEYS.into_iter().chain([P256, P384, P521, RSA_2048]) {
        let key = public_key(good).unwrap();
        assert_eq!(key.line, good.split(' ').take(2).collect::<Vec<_>>().join(" "));
    }
    let [key, ..] = KEYS;
    let body = key.split(' ').nth(1).unwrap();
    // The fingerprint that ssh-keygen -l prints is that of the blob.
    assert!(public_key(key).unwrap().blob.fingerprint().starts_with("SHA256:"));
    for (bad, part) in [
        (RSA_1024.to_owned(), "1024 bits"),
        (format!("restrict,command=\"x\" {key}"), "options"),
        (format!(" {key}"), "options"),
        (format!("ssh-rsa {body}"), "another algorithm"),
        (format!("ssh-ed25519 {body}A"), "not an SSH public key"),
        (format!("ssh-ed25519 {}", &body[..60]), "not an SSH public key"),
        (format!("ssh-ed25519  {body}"), "not an SSH public key"),
        (format!("ssh-ed25519 {body} a\nssh-ed25519 {body}"), "control character"),
        (format!("sk-ssh-ed25519@openssh.com {body}"), "sk-"),
        (format!("ssh-ed25519-cert-v01@openssh.com {body}"), "certificate"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----".into(), "private key"),
        ("ssh-dss AAAAB3NzaC1kc3M=".into(), "DSA"),
        (String::new(), "not an SSH public key"),
        ("ssh-ed25519".into(), "not an SSH public key"),
    ] {
        let sentence = public_key(&bad).unwrap_err();
        assert!(sentence.contains(part), "{bad}: {sentence}");
        assert!(sentence.is_ascii() && sentence.len() <= 300);
    }
}

#[test]
fn a_login_user_becomes_policy() {
    let base = || common::user("acme", "bob", KEYS[0]);
    let good = with(base(), "/spec/sourceRanges", json!(["203.0.113.0/24", "2001:db8::1"]));
    let compiled = user(with(good, "/spec/validUntil", json!("2027-01-01T00:00:00Z"))).unwrap();
    assert_eq!(compiled.login, Login::parse("bob.acme").unwrap());
    assert_eq!(compiled.source_ranges.len(), 2);
    assert_eq!(compiled.source_ranges[1].prefix_len(), 128);
    assert_eq!(user(common::user("default", "alice", KEYS[0])).unwrap().login.to_string(), "alice");

    for range in ["203.0.113.1/24", "203.0.113.0/33", "203.0.113", "::ffff:1.2.3.4", "any", ""] {
        let bad = user(with(base(), "/spec/sourceRanges", json!([range])));
        refused(bad, "spec.sourceRanges[0]", "");
    }
    let narrow = user(with(base(), "/spec/sourceRanges", json!(["203.0.113.1/24"])));
    refused(narrow, "spec.sourceRanges[0]", "did you mean 203.0.113.0/24?");
    for name in ["root", "terminal", "g-abc"] {
        refused(user(with(base(), "/metadata/name", json!(name))), "metadata.name", "reserved");
    }
    let other_comment = KEYS[0].replace("alice", "laptop");
    let twice = user(with(base(), "/spec/publicKeys", json!([KEYS[0], other_comment])));
    refused(twice, "spec.publicKeys[1]", "same key");
    refused(user(with(base(), "/spec/publicKeys", json!([]))), "spec.publicKeys", "at least one");
    let until = user(with(base(), "/spec/validUntil", json!("tomorrow")));
    refused(until, "spec.validUntil", "RFC 3339");
}

#[test]
fn a_terminal_becomes_policy() {
    let base = || common::terminal("acme", "kiosk-17", KEYS[0], 20017);
    let good = with(base(), "/spec/hostKeys", json!([KEYS[1], RSA_2048]));
    let compiled = terminal(good).unwrap();
    assert_eq!(compiled.host_keys.len(), 2);
    assert!(compiled.host_keys[0].starts_with("ssh-ed25519 AAAA"));
    assert_eq!(compiled.service("ssh").unwrap().listen_port, Some(20017));
    assert!(compiled.relays.is_none());
    let fleets = json!({"selector": {"matchLabels": {"region": "eu"}}});
    refused(terminal(with(base(), "/spec/relays", fleets)), "spec.relays", "not supported");

    let services = |services: Value| terminal(with(base(), "/spec/services", services));
    let ssh = || json!({"name": "ssh", "port": 22, "listenPort": 1});
    refused(services(json!([])), "spec.services", "at least one");
    refused(
        services(json!([ssh(), {"name": "ssh", "port": 23}])),
        "spec.services[1].name",
        "already",
    );
    refused(
        services(json!([ssh(), {"name": "s", "port": 22}])),
        "spec.services[1].port",
        "already",
    );
    refused(
        services(json!([ssh(), {"name": "s", "port": 23, "listenPort": 1}])),
        "spec.services[1].listenPort",
        "already",
    );
    refused(services(json!([{"name": "s", "port": 0}])), "spec.services[0].port", "65535");
    refused(services(json!([{"name": "s", "port": 65536}])), "spec.services[0].port", "65535");
    for name in ["relay", "localhost"] {
        refused(terminal(with(base(), "/metadata/name", json!(name))), "metadata.name", "reserved");
    }
}

#[test]
fn a_mesh_and_a_relay_become_policy() {
    let mesh = |value: Value| compile::mesh(&typed(value), &identity());
    let compiled = mesh(common::mesh()).unwrap();
    assert_eq!(compiled.mesh.max_policy_age, SignedDuration::from_mins(5));
    assert_eq!(compiled.mesh.session_retention, SignedDuration::from_hours(168));
    assert!(compiled.tenants.is_some());
    for domain in
        ["Support.example.com", "example.com.", "example", "10.0.0.1", "a..b", "*.a.b", ""]
    {
        let bad = mesh(with(common::mesh(), "/spec/domain", json!(domain)));
        refused(bad, "spec.domain", "domain name");
    }
    let bad = mesh(with(common::mesh(), "/spec/tenants", json!({"from": "Selector"})));
    refused(bad, "spec.tenants.selector", "from: Selector");
    refused(mesh(with(common::mesh(), "/spec/maxPolicyAge", json!("5"))), "spec.maxPolicyAge", "");

    let relay = |value: Value| compile::relay(&typed(value));
    let settings = relay(common::relay()).unwrap();
    assert_eq!(settings.listeners, [5938, 80]);
    assert_eq!((settings.proxies.len(), &settings.tls_secret), (0, &None));
    let proxies = |from: Value| json!({"type": "NodePort", "proxyProtocol": {"from": from}});
    let behind = proxies(json!(["10.0.0.0/8", "2001:db8::7"]));
    let behind = relay(with(common::relay(), "/spec/exposure", behind)).unwrap().proxies;
    let shown: Vec<String> = behind.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "2001:db8::7/128"]);
    refused(
        relay(with(common::relay(), "/spec/exposure", proxies(json!(["10.0.0.1/8"])))),
        "spec.exposure.proxyProtocol.from[0]",
        "did you mean 10.0.0.0/8?",
    );
    let secret = |name: &str| {
        relay(with(common::relay(), "/spec/tls", json!({"secretRef": {"name": name}})))
    };
    assert_eq!(secret("relay.tls").unwrap().tls_secret.as_deref(), Some("relay.tls"));
    refused(secret("../tls"), "spec.tls.secretRef.name", "must be a Secret's name");
    assert_eq!(settings.drain_timeout, SignedDuration::from_mins(30));
    let limits = settings.limits;
    assert_eq!(
        (limits.unauthenticated, limits.per_source, limits.sessions_per_user),
        (1024, 128, 8)
    );
    assert_eq!(limits.connections_per_user, 64);
    let connections = |most: u32| {
        relay(with(common::relay(), "/spec/limits", json!({"connectionsPerUser": most})))
    };
    assert_eq!(connections(65_536).unwrap().limits.connections_per_user, 65_536);
    refused(connections(0), "spec.limits.connectionsPerUser", "must be from 1 to 65536");
    let issuer = relay(with(common::relay(), "/spec/tls", json!({"issuerRef": {"name": "x"}})));
    refused(issuer, "spec.tls.issuerRef", "not supported");
    let bandwidth = |quantity: &str| {
        relay(with(common::relay(), "/spec/limits", json!({"bandwidthPerSession": quantity})))
    };
    assert_eq!(limits.bandwidth_per_session, None);
    for (quantity, bytes) in
        [("16Ki", 16 << 10), ("16384", 16 << 10), ("200Mi", 200 << 20), ("3G", 3_000_000_000)]
    {
        let limits = bandwidth(quantity).unwrap().limits;
        assert_eq!(limits.bandwidth_per_session, Some(bytes), "{quantity}");
    }
    for quantity in ["16383", "16k", "8193Ti", "999999999999Ti", "1E", "", "Mi", "1.5Mi"] {
        refused(bandwidth(quantity), "spec.limits.bandwidthPerSession", "from 16Ki to 8192Ti");
    }
    refused(
        relay(with(common::relay(), "/spec/replicas", Value::Null)),
        "spec",
        "exactly one of replicas",
    );
    refused(
        relay(with(common::relay(), "/spec/listeners", json!([{"port": 80}, {"port": 80}]))),
        "spec.listeners[1].port",
        "twice",
    );
}
