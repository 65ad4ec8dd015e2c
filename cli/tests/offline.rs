//! What the CLI says of a directory of manifests: the tables, the JSON, and that it is the relay's own
//! answer wherever the relay has the same command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "../../commands/tests/manifests/mod.rs"]
mod manifests;

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use manifests::{HOST_KEY, Manifests, RELAY_KEY, user, window};
use serde_json::{Value, json};
use tidegate_cli::Cli;
use tidegate_cli::run::answer;
use tidegate_commands::{Answer, check};
use tidegate_process::clock::{Boot, Now};

/// While the window of the fixture is open.
const OPEN: &str = "2026-11-23T08:30:00Z";
/// A day before.
const BEFORE: &str = "2026-11-22T09:00:00Z";

fn at(wall: &str) -> Now {
    Now { wall: wall.parse().unwrap(), boot: Boot::from_start(Duration::from_secs(1000)) }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory, and the questions to it.
struct Desk {
    manifests: Manifests,
    state: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { manifests: Manifests::new(), state: tempfile::tempdir().unwrap() };
        let names = "[relay.support.example.com]:5938,[relay.support.example.com]:80";
        fs::write(desk.state.path().join("known_hosts"), format!("{names} {RELAY_KEY}\n")).unwrap();
        desk
    }

    /// With windows that are open, closed, over, suspended, and that no stock terminal satisfies.
    fn busy() -> Self {
        let desk = Self::new();
        let put = |name: &str, text: String| {
            desk.manifests.write(&format!("windows/{name}.yaml"), &text);
        };
        let recurring =
            "recurring: {cron: \"0 22 * * TUE,THU\", timeZone: Europe/Berlin, duration: 2h}";
        let once = "once: {start: 2026-11-23T09:00:00+01:00, end: 2026-11-23T11:00:00+01:00}";
        put(
            "nights",
            window("nights", "48214").replace(once, recurring)
                + "  limits: {maxSessions: 2, idleTimeout: 10m}\n",
        );
        put("past", window("past", "1").replace("2026-11-23", "2026-11-03"));
        put("stopped", window("stopped", "2") + "  suspend: true\n");
        put("asks", window("asks", "3").replace("consent: NotRequired", "consent: Required"));
        desk
    }

    fn try_ask(&self, now: &str, words: &[&str]) -> Result<Answer, clap::Error> {
        let all =
            [&["kubectl-tidegate", "--manifests", text(self.manifests.path())], words].concat();
        let cli = Cli::try_parse_from(all)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ok(runtime.block_on(answer(cli, at(now))))
    }

    fn ask(&self, now: &str, words: &[&str]) -> Answer {
        self.try_ask(now, words).unwrap()
    }

    /// What was said, with the directory called DIR.
    fn told(&self, now: &str, words: &[&str]) -> String {
        let Answer { stdout, stderr, code } = self.ask(now, words);
        let text = format!("{stdout}--- {code}\n{stderr}");
        text.replace(text_of(&self.manifests), "DIR").replace(text_of_state(&self.state), "STATE")
    }

    fn json(&self, now: &str, words: &[&str]) -> Value {
        let answer = self.ask(now, &[words, &["-o", "json"]].concat());
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

fn text_of(manifests: &Manifests) -> &str {
    text(manifests.path())
}

fn text_of_state(state: &tempfile::TempDir) -> &str {
    text(state.path())
}

#[test]
fn windows_as_people_and_programs_read_them() {
    let desk = Desk::busy();
    insta::assert_snapshot!("windows", desk.told(OPEN, &["windows"]));
    insta::assert_snapshot!(
        "windows_wide",
        desk.told(OPEN, &["windows", "-n", "support", "-o", "wide"])
    );
    insta::assert_snapshot!("windows_json", desk.told(OPEN, &["windows", "-o", "json"]));
    insta::assert_snapshot!("windows_yaml", desk.told(OPEN, &["windows", "--open", "-o", "yaml"]));
    let names = |words: &[&str]| -> Vec<String> {
        let list = desk.json(OPEN, words);
        let windows = list["windows"].as_array().unwrap().iter();
        windows.map(|window| window["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["windows", "--open"]), ["asks", "berlin"]);
    assert_eq!(names(&["windows", "--terminal", "KIOSK-17", "--user", "alice"]).len(), 5);
    assert!(names(&["windows", "-n", "elsewhere"]).is_empty());
    let none = desk.ask(OPEN, &["windows", "-n", "elsewhere"]);
    assert_eq!((none.stdout.as_str(), none.code), ("", 0));
    assert!(
        none.stderr.starts_with("there are no support windows in namespace elsewhere; -A"),
        "{none:?}"
    );
    assert_eq!(desk.ask(OPEN, &["windows", "--terminal", "nowhere"]).code, 1);
    assert_eq!(desk.ask(OPEN, &["windows", "--user", "nobody"]).code, 1);
}

#[test]
fn terminals_as_people_and_programs_read_them() {
    let desk = Desk::busy();
    insta::assert_snapshot!("terminals_open", desk.told(OPEN, &["terminals"]));
    insta::assert_snapshot!(
        "terminals_closed",
        desk.told("2026-11-23T10:00:00Z", &["terminals", "-o", "wide"])
    );
    insta::assert_snapshot!("terminals_json", desk.told(OPEN, &["terminals", "-o", "json"]));
    // Nothing is said to be connected that is not known to be.
    assert_eq!(desk.json(OPEN, &["terminals"])["terminals"][0]["connected"], Value::Null);
    assert_eq!(desk.ask(OPEN, &["terminals", "--connected"]).stdout, "");
}

#[test]
fn explain_says_what_the_relay_would_say() {
    let desk = Desk::busy();
    insta::assert_snapshot!("explain_admitted", desk.told(OPEN, &["explain", "alice", "kiosk-17"]));
    insta::assert_snapshot!(
        "explain_later",
        desk.told(BEFORE, &["explain", "alice", "kiosk-17/ssh"])
    );
    insta::assert_snapshot!(
        "explain_json",
        desk.told(OPEN, &["explain", "alice", "kiosk-17", "-o", "json"])
    );
    for (words, code, part) in [
        (&["alice", "kiosk-17/web"][..], 1, "kiosk-17/web: refused:"),
        (&["alice", "kiosk-17/vnc"], 1, "kiosk-17 has no service vnc; yours there: ssh"),
        (&["alice", "kiosk-18"], 1, "note: there is no terminal kiosk-18 in DIR"),
        (&["mallory", "kiosk-17"], 1, "note: there is no login user mallory in DIR"),
        (
            &["alice", "kiosk-17", "--at", "2026-11-23T08:00:00Z"],
            0,
            "admitted by window support/berlin",
        ),
        (&["a,b", "kiosk-17"], 2, "a,b is no login"),
    ] {
        let told = desk.told(BEFORE, &[&["explain"], words].concat());
        assert!(
            told.contains(&format!("--- {code}\n")) && told.contains(part),
            "{words:?}: {told}"
        );
    }
}

#[test]
fn explain_minds_where_she_comes_from_and_whether_she_may_know() {
    let desk = Desk::new();
    desk.manifests.write("people/alice.yaml", &(user() + "  sourceRanges: [203.0.113.0/24]\n"));
    let bob = user().replace("alice", "bob").replace("M+Pj", "M+Pk");
    desk.manifests.write("people/bob.yaml", &bob);
    let told = desk.told(OPEN, &["explain", "alice", "kiosk-17"]);
    assert!(told.contains("admitted") && told.contains("from 203.0.113.0/24 alone"), "{told}");
    let away = desk.told(OPEN, &["explain", "alice", "kiosk-17", "--source", "198.51.100.1"]);
    assert!(away.contains("--- 1\n") && away.contains("198.51.100.1"), "{away}");
    let told = desk.told(OPEN, &["explain", "bob", "kiosk-17"]);
    assert!(told.contains("no window of bob selects it"), "{told}");
}

#[test]
fn who_can_reach_is_the_relays_answer_in_each_form() {
    let desk = Desk::new();
    insta::assert_snapshot!("who", desk.told(OPEN, &["who-can-reach", "kiosk-17"]));
    let asked = ["who-can-reach", "kiosk-17", "--at", "2026-11-23T09:00:00Z"];
    assert_eq!(desk.json(BEFORE, &asked)["access"][0]["user"], "alice");
    let yaml = desk.ask(BEFORE, &[&asked[..], &["-o", "yaml"]].concat());
    assert!(yaml.stdout.contains("user: alice"), "{yaml:?}");
    assert_eq!(desk.ask(BEFORE, &["who-can-reach", "kiosk-18"]).code, 1);
}

#[test]
fn validate_is_check() {
    let desk = Desk::new();
    let directory = text_of(&desk.manifests);
    desk.manifests.write(
        "bad.yaml",
        &window("bad", "1").replace("suspend", "suspnd").replace("services", "servces"),
    );
    let args = check::CheckArgs::augmented(&[directory]);
    let cli = desk.ask(BEFORE, &["validate", directory]);
    assert_eq!(cli, check::answer(&args, at(BEFORE)));
    assert_eq!(cli.code, 1);
    let json = desk.ask(BEFORE, &["validate", directory, "-o", "json"]);
    assert!(serde_json::from_str::<Value>(&json.stdout).unwrap()["errors"].as_u64() > Some(0));
    // Other answers point to this command.
    let warned = desk.ask(OPEN, &["windows"]).stderr;
    assert!(warned.contains("`kubectl tidegate validate "), "{warned}");
}

trait Augmented: Sized {
    fn augmented(words: &[&str]) -> Self;
}

impl<T: clap::Args> Augmented for T {
    fn augmented(words: &[&str]) -> Self {
        let command = T::augment_args(clap::Command::new("test").no_binary_name(true));
        T::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
    }
}

#[test]
fn known_hosts_and_ssh_config_trust_the_same_command() {
    let desk = Desk::new();
    let state = text_of_state(&desk.state);
    let hosts =
        |words: &[&str]| desk.ask(OPEN, &[&["known-hosts", "--state", state], words].concat());
    assert_eq!(hosts(&["kiosk-17"]), Answer::good(format!("kiosk-17 {HOST_KEY}\n")));
    let relay = "[relay.support.example.com]:5938";
    assert_eq!(hosts(&[relay]), Answer::good(format!("{relay} {RELAY_KEY}\n")));
    let keyless = desk.ask(OPEN, &["known-hosts", "kiosk-17"]);
    assert_eq!(keyless.code, 2);
    assert!(keyless.stderr.contains("give --state DIR"), "{keyless:?}");
    let words = ["ssh-config", "--user", "alice", "--program", "/opt/tide", "--state", state];
    insta::assert_snapshot!("ssh_config", desk.told(OPEN, &words));
}

#[test]
fn connect_asks_nobody() {
    let desk = Desk::new();
    let state = text_of_state(&desk.state);
    let plan = |words: &[&str]| {
        let told = desk.told(OPEN, &[&["connect", "--print", "--state", state], words].concat());
        let own = std::env::current_exe().unwrap();
        told.replace(text(&own), "PROGRAM")
    };
    let at_home =
        ["alice@kiosk-17", "-l", "kiosk", "--relay-address", "127.0.0.1:2222", "--", "uname", "-a"];
    insta::assert_snapshot!("connect", plan(&at_home));
    insta::assert_snapshot!("connect_forward", plan(&["alice@kiosk-17/web", "-p", "8443"]));
    for (words, code, part) in [
        (&["kiosk-17"][..], 2, "is no target"),
        (&["alice@kiosk-18"], 1, "there is no terminal kiosk-18"),
        (&["alice@kiosk-17/vnc"], 1, "kiosk-17 has no service vnc; it declares ssh, web"),
        (&["alice@kiosk-17/web", "-l", "root"], 2, "is not ssh"),
        (&["alice@kiosk-17", "--user=-oProxyCommand=x"], 2, "is no name of a user"),
    ] {
        let told = plan(words);
        assert!(
            told.contains(&format!("--- {code}\n")) && told.contains(part),
            "{words:?}: {told}"
        );
    }
    let keyless = manifests::terminal().replace(&format!("  hostKeys: [{HOST_KEY}]\n"), "");
    desk.manifests.write("terminals/kiosk-17.yaml", &keyless);
    assert!(plan(&["alice@kiosk-17"]).contains("kiosk-17 declares no spec.hostKeys"));
}

#[test]
fn what_manifests_cannot_know_is_said() {
    let desk = Desk::new();
    for words in [&["sessions"][..], &["cut", "ss-1"]] {
        let told = desk.ask(OPEN, words);
        assert_eq!(told.code, 2);
        assert!(
            told.stderr.starts_with("manifests know no sessions; `tidegate-relay "),
            "{told:?}"
        );
    }
    for bad in [&["cut"][..], &["cut", "ss-1", "--window", "w"], &["explain", "alice"]] {
        assert!(desk.try_ask(OPEN, bad).is_err(), "{bad:?}");
    }
    for clash in [&["windows", "--mesh", "x"][..], &["windows", "-n", "a", "-A"]] {
        assert_eq!(desk.ask(OPEN, clash).code, 2, "{clash:?}");
    }
    assert!(desk.ask(OPEN, &["completion", "bash"]).stdout.contains("who-can-reach"));
    assert!(desk.ask(OPEN, &["version"]).stdout.starts_with("kubectl-tidegate "));
    desk.manifests.remove("mesh.yaml");
    let told = desk.ask(OPEN, &["windows"]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("hold no Mesh that can be used"), "{told:?}");
    assert_eq!(json!(told.stdout), "");
}
