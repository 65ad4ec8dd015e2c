//! The offline commands on real directories, and what OpenSSH makes of their output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod manifests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use manifests::{HOST_KEY, Manifests, RELAY_KEY, user, window};
use serde_json::{Value, json};
use tidegate_commands::{Answer, check, known_hosts, ssh_config, who_can_reach};
use tidegate_process::clock::{Boot, Now};

/// Takes arguments as the command line does.
fn parsed<T: Args>(arguments: &[&str]) -> T {
    try_parsed(arguments).unwrap()
}

fn try_parsed<T: Args>(arguments: &[&str]) -> Result<T, clap::Error> {
    let command = T::augment_args(clap::Command::new("test").no_binary_name(true));
    T::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// A day before the window of the fixture opens.
fn at() -> Now {
    Now {
        wall: "2026-11-22T09:00:00Z".parse().unwrap(),
        boot: Boot::from_start(Duration::from_secs(1000)),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn checked(arguments: &[&str]) -> Answer {
    check::answer(&parsed(arguments), at())
}

#[test]
fn check_is_clean_or_lists_everything_with_its_place() {
    let manifests = Manifests::new();
    let directory = text(manifests.path());
    let answer = checked(&[directory]);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""), "{}", answer.stdout);
    assert!(answer.stdout.contains("5 objects in 5 files"), "{}", answer.stdout);
    assert!(answer.stdout.contains("0 findings"), "{}", answer.stdout);

    let typo =
        window("berlin", "1").replace("  services: [ssh]", "  services: [ssh]\n  suspnd: true");
    manifests.write("windows/berlin.yaml", &typo);
    manifests.write("people/broken.yaml", "kind: [\n");
    manifests.write("people/empty.yml", "");
    let answer = checked(&[directory]);
    assert_eq!(answer.code, 1);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    let place = |file: &str| format!("{}:", text(&manifests.at(file)));
    for (file, words) in [
        ("people/broken.yaml", ""),
        ("people/empty.yml", "no document"),
        ("windows/berlin.yaml", "SupportWindow support/berlin: spec.suspnd"),
    ] {
        let found =
            lines.iter().find(|line| line.starts_with(&place(file)) && line.contains(words));
        assert!(found.is_some(), "{file} in {}", answer.stdout);
    }
    assert!(answer.stdout.contains("berlin.yaml:9:3: SupportWindow"), "{}", answer.stdout);

    let answer = checked(&[directory, "-o", "json"]);
    let json: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.code, json["errors"].as_u64()), (1, Some(3)), "{json}");
    assert!(json["findings"].as_array().unwrap().iter().all(|finding| {
        finding["file"].is_string() && finding["line"].is_u64() && finding["rule"].is_string()
    }));
}

#[test]
fn a_directory_that_no_relay_can_serve_is_not_clean() {
    let manifests = Manifests::new();
    manifests.remove("relay.yaml");
    let answer = checked(&[text(manifests.path())]);
    assert_eq!(answer.code, 1);
    assert!(answer.stdout.contains("no Relay is in force"), "{}", answer.stdout);
    manifests.remove("mesh.yaml");
    let answer = checked(&[text(manifests.path())]);
    assert_eq!(answer.code, 1);
    assert!(answer.stdout.contains("no Mesh is in force"), "{}", answer.stdout);
}

#[test]
fn what_cannot_be_checked_is_usage() {
    let manifests = Manifests::new();
    let missing = manifests.at("missing");
    let answer = checked(&[text(&missing)]);
    assert_eq!(answer.code, 2);
    assert!(answer.stderr.contains("cannot read the manifests"), "{}", answer.stderr);
    assert_eq!(checked(&["--diff", text(manifests.path()), text(&missing)]).code, 2);
    assert!(try_parsed::<check::CheckArgs>(&[]).is_err());
    assert!(try_parsed::<check::CheckArgs>(&["a", "--diff", "b", "c"]).is_err());
}

#[test]
fn a_difference_says_who_gains_and_who_loses() {
    let (old, new) = (Manifests::new(), Manifests::new());
    let diff =
        |more: &[&str]| checked(&[&["--diff", text(old.path()), text(new.path())], more].concat());
    let same = diff(&[]);
    assert_eq!((same.code, same.stderr.as_str()), (0, ""), "{}", same.stdout);
    assert!(same.stdout.starts_with("0 gained, 0 lost"), "{}", same.stdout);

    new.write("windows/berlin.yaml", &window("berlin", "1").replace("T11:00", "T10:30"));
    let bob = user().replace("alice", "bob").replace("M+Pj", "M+Pk");
    new.write("people/bob.yaml", &bob);
    new.write("windows/bob.yaml", &window("bob", "2").replace("alice", "bob"));
    let answer = diff(&["-o", "json"]);
    assert_eq!(answer.code, 1);
    let json: Value = serde_json::from_str(&answer.stdout).unwrap();
    let change = |user, from, to| json!([{"user": user, "terminal": "kiosk-17", "service": "ssh", "from": from, "to": to}]);
    assert_eq!(json["gained"], change("bob", "2026-11-23T08:00:00Z", "2026-11-23T10:00:00Z"));
    assert_eq!(json["lost"], change("alice", "2026-11-23T09:30:00Z", "2026-11-23T10:00:00Z"));

    let table = diff(&[]);
    assert_eq!(table.code, 1);
    assert!(table.stdout.contains("gains  bob"), "{}", table.stdout);
    assert!(table.stdout.contains("loses  alice"), "{}", table.stdout);
    // In an interval that it does not touch.
    let until = ["--from", "2026-11-22T09:00:00Z", "--to", "2026-11-22T10:00:00Z"];
    assert_eq!(diff(&until).code, 0);
    assert_eq!(diff(&["--to", "2026-11-21T10:00:00Z"]).code, 2);
}

#[test]
fn a_difference_is_that_of_an_edit_which_a_relay_follows() {
    let (old, new) = (Manifests::new(), Manifests::new());
    let one_time = window("berlin", "48213") + "  oneTime: true\n";
    old.write("windows/berlin.yaml", &one_time);
    let diff = |new: &Manifests| checked(&["--diff", text(old.path()), text(new.path())]);
    // What is refused changes nothing: a typo, a file that cannot be read, another's key, and another
    // time for a window that admits once.
    new.write("windows/berlin.yaml", &(one_time.clone() + "  suspnd: true\n"));
    new.write("terminals/kiosk-17.yaml", "kind: [\n");
    // Sorts before alice, who had the key first.
    new.write("people/aaron.yaml", &user().replace("alice", "aaron"));
    let answer = diff(&new);
    assert!(answer.stdout.starts_with("0 gained, 0 lost"), "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stderr.contains("suspnd"), "{}", answer.stderr);
    assert!(answer.stderr.contains("LoginUser support/aaron"), "{}", answer.stderr);
    assert_eq!(answer.code, 1);
    let moved = Manifests::new();
    moved.write("windows/berlin.yaml", &one_time.replace("T11:00", "T11:30"));
    let answer = diff(&moved);
    assert!(answer.stdout.starts_with("0 gained, 0 lost"), "{}", answer.stdout);
    assert!(answer.stderr.contains("is immutable in a one-time window"), "{}", answer.stderr);
    // What is not there any more is gone.
    moved.remove("windows/berlin.yaml");
    assert!(diff(&moved).stdout.contains("loses  alice"));
}

#[test]
fn who_can_reach_a_terminal_at_a_time_and_in_an_interval() {
    let manifests = Manifests::new();
    let ask = |arguments: &[&str]| {
        let all = [&["--manifests", text(manifests.path())], arguments].concat();
        who_can_reach::answer(&parsed(&all), at())
    };
    let answer = ask(&["kiosk-17", "--at", "2026-11-23T09:00:00Z", "-o", "json"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
    let json: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(
        json,
        json!({
            "terminal": "kiosk-17",
            "access": [{
                "user": "alice",
                "service": "ssh",
                "window": "support/berlin",
                "opensAt": "2026-11-23T08:00:00Z",
                "closesAt": "2026-11-23T10:00:00Z",
            }],
            "next": [],
        })
    );
    // Now is the day before.
    let answer = ask(&["KIOSK-17.support.example.com.", "-o", "json"]);
    let json: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(json["access"], json!([]));
    assert_eq!(json["next"][0]["nextOpening"], "2026-11-23T08:00:00Z");
    let answer = ask(&["kiosk-17"]);
    assert!(answer.stdout.starts_with("nobody can reach kiosk-17"), "{}", answer.stdout);
    assert!(answer.stdout.contains("Mon 23 Nov 09:00 +01:00"), "{}", answer.stdout);
    let interval = ["--from", "2026-11-23T00:00:00Z", "--to", "2026-11-24T00:00:00Z"];
    let answer = ask(&[&["kiosk-17"], &interval[..]].concat());
    assert!(answer.stdout.contains("support/berlin  Mon 23 Nov 09:00"), "{}", answer.stdout);

    assert!(!answer.stdout.contains("--agent"), "{}", answer.stdout);
    // The year is told where it may be missed.
    manifests.write("windows/far.yaml", &window("far", "3").replace("2026-", "2028-"));
    let answer = ask(&["kiosk-17"]);
    assert!(answer.stdout.contains("Thu 23 Nov 2028 09:00 +01:00"), "{}", answer.stdout);

    let consent = window("consent", "2").replace("consent: NotRequired", "consent: Required");
    manifests.write("windows/consent.yaml", &consent);
    let answer = ask(&[&["kiosk-17"], &interval[..]].concat());
    assert!(answer.stdout.contains("without --agent"), "{}", answer.stdout);
    assert!(answer.stdout.ends_with("give: support/consent\n"), "{}", answer.stdout);

    let answer = ask(&["kiosk-18"]);
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("no terminal kiosk-18"), "{}", answer.stderr);
    assert_eq!(ask(&["kiosk-18;rm *\u{7}"]).code, 1);
}

struct Desk {
    manifests: Manifests,
    state: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { manifests: Manifests::new(), state: tempfile::tempdir().unwrap() };
        let names = "[relay.support.example.com]:5938,[relay.support.example.com]:80";
        fs::write(desk.relay_file(), format!("{names} {RELAY_KEY}\n")).unwrap();
        desk
    }

    fn relay_file(&self) -> PathBuf {
        self.state.path().join("known_hosts")
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let common =
            ["--manifests", text(self.manifests.path()), "--state", text(self.state.path())];
        [&common, more].concat()
    }

    fn known_hosts(&self, host: &[&str]) -> Answer {
        known_hosts::answer(&parsed(&self.arguments(host)), at())
    }

    fn ssh_config(&self, more: &[&str]) -> Answer {
        ssh_config::answer(&parsed(&self.arguments(more)), at())
    }
}

#[test]
fn known_hosts_under_the_name_as_given() {
    let desk = Desk::new();
    for host in [
        "kiosk-17",
        "KIOSK-17",
        "kiosk-17.support.example.com",
        "[kiosk-17.support.example.com]:2222",
        "[localhost]:20017",
    ] {
        assert_eq!(desk.known_hosts(&[host]), Answer::good(format!("{host} {HOST_KEY}\n")));
    }
    for host in ["relay.support.example.com", "[relay.support.example.com]:5938"] {
        assert_eq!(desk.known_hosts(&[host]), Answer::good(format!("{host} {RELAY_KEY}\n")));
    }
    for stranger in ["kiosk-18", "github.com", "*", "a b", "a,b", "[localhost]:22", ""] {
        assert_eq!(desk.known_hosts(&[stranger]), Answer::good(String::new()), "{stranger:?}");
    }
    assert_eq!(
        desk.known_hosts(&[]).stdout,
        format!(
            "[relay.support.example.com]:5938,[relay.support.example.com]:80 {RELAY_KEY}\n\
             kiosk-17.support.example.com,kiosk-17,[kiosk-17.support.example.com]:2222,\
             [kiosk-17]:2222,[kiosk-17.support.example.com]:443,[kiosk-17]:443,[localhost]:20017 \
             {HOST_KEY}\n"
        )
    );
    // Files of windows alone are passed over; whatever may hold another kind is read.
    let other = "kind: \"\\x54erminal\"\n# SupportWindow\n";
    let hidden = manifests::terminal()
        .replace("kind: Terminal\n", other)
        .replace("kiosk-17", "kiosk-18")
        .replace("20017", "20018")
        .replace("2pyiFE", "2pyiFF");
    desk.manifests.write("windows/broken.yaml", "kind: SupportWindow\nmetadata: [\n");
    desk.manifests.write("windows/hidden.yaml", &hidden);
    let answer = desk.known_hosts(&[]);
    assert_eq!(answer.stderr, "");
    assert!(answer.stdout.contains("\nkiosk-18.support.example.com,"), "{}", answer.stdout);
    fs::remove_file(desk.relay_file()).unwrap();
    let answer = desk.known_hosts(&["kiosk-17"]);
    assert_eq!(answer.code, 2);
    assert!(answer.stderr.contains("cannot read the relay's host key"), "{}", answer.stderr);
    assert!(try_parsed::<known_hosts::KnownHostsArgs>(&["--manifests", "x"]).is_err());
}

/// What OpenSSH understands of a configuration: the value of each keyword for `host`.
fn understood(config: &Path, host: &str) -> Vec<(String, String)> {
    let mut ssh = Command::new("ssh");
    let done = ssh.args(["-T", "-G", "-F"]).arg(config).arg(host).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    let text = String::from_utf8(done.stdout).unwrap();
    let pair = |line: &str| {
        let (word, value) = line.split_once(' ').unwrap_or((line, ""));
        (word.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

fn expect(config: &Path, host: &str, wanted: &[(&str, &str)]) {
    let all = understood(config, host);
    for (word, value) in wanted {
        let found: Vec<&str> =
            all.iter().filter(|(w, _)| w == word).map(|(_, v)| v.as_str()).collect();
        assert_eq!(found, [*value], "{word} of {host}");
    }
}

#[test]
fn ssh_config_is_what_openssh_understands() {
    let desk = Desk::new();
    let answer = desk.ssh_config(&["--user", "alice", "--program", "/opt/tide gate/relay"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
    let config = desk.state.path().join("ssh_config");
    fs::write(&config, &answer.stdout).unwrap();
    let command = format!(
        "\"/opt/tide gate/relay\" known-hosts --manifests \"{}\" --state \"{}\" %H",
        text(desk.manifests.path()),
        text(desk.state.path())
    );
    let trust = [
        ("knownhostscommand", command.as_str()),
        ("userknownhostsfile", "/dev/null"),
        ("globalknownhostsfile", "/dev/null"),
        ("stricthostkeychecking", "true"),
        ("updatehostkeys", "false"),
        ("forwardagent", "no"),
    ];
    let relay = [("hostname", "relay.support.example.com"), ("port", "5938"), ("user", "alice")];
    expect(&config, "relay.support.example.com", &[&trust[..], &relay[..]].concat());
    for host in ["kiosk-17", "kiosk-17.support.example.com"] {
        let terminal = [
            ("hostname", "kiosk-17.support.example.com"),
            ("port", "2222"),
            ("proxyjump", "alice@relay.support.example.com:5938"),
        ];
        expect(&config, host, &[&trust[..], &terminal[..]].concat());
    }
}

#[test]
fn ssh_config_may_name_another_address_and_says_whom_it_does_not_know() {
    let desk = Desk::new();
    let answer = desk.ssh_config(&["--user", "alice", "--relay-address", "127.0.0.1:2022"]);
    let config = desk.state.path().join("ssh_config");
    fs::write(&config, &answer.stdout).unwrap();
    let relay = [
        ("hostname", "127.0.0.1"),
        ("port", "2022"),
        ("hostkeyalias", "relay.support.example.com"),
    ];
    expect(&config, "relay.support.example.com", &relay);
    let jump = [("proxyjump", "alice@relay.support.example.com:2022")];
    expect(&config, "kiosk-17", &jump);

    let answer = desk.ssh_config(&["--user", "mallory"]);
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("no login user mallory"), "{}", answer.stderr);
    assert_eq!(desk.ssh_config(&["--user", "alice", "--relay-address", "a b"]).code, 2);
    assert_eq!(desk.ssh_config(&["--user", "alice", "--relay", "mars"]).code, 2);
}

/// A real sshd in place of the relay, a real ssh with the printed configuration: nobody is asked, and
/// the key is verified by the command alone.
#[test]
fn openssh_believes_the_known_hosts_command_and_nobody_else() {
    let desk = Desk::new();
    let scratch = desk.state.path();
    let keygen = |name: &str| {
        let key = scratch.join(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", ""]).arg("-f").arg(&key);
        assert!(keygen.status().unwrap().success());
        fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned()
    };
    let public = keygen("host");
    keygen("alice");
    let asked = scratch.join("asked");
    let program = scratch.join("program");
    // Stands for the binary: notes what it was asked for, and knows the relay's name.
    let script = |key: &str| {
        let (asked, name) = (asked.display(), "relay.support.example.com");
        let text = format!(
            "#!/bin/sh\nfor last; do :; done\necho \"$last\" >> '{asked}'\n\
             if [ \"$last\" = {name} ]; then echo \"$last {key}\"; fi\n"
        );
        fs::write(&program, text).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&program, executable).unwrap();
    };
    let config = scratch.join("ssh_config");
    let arguments = ["--user", "alice", "--relay-address", "127.0.0.1:1"];
    let arguments = [&arguments[..], &["--program", text(&program)]].concat();
    fs::write(&config, desk.ssh_config(&arguments).stdout).unwrap();
    let connect = || {
        // Over a pipe: no port is needed.
        let sshd =
            format!("ProxyCommand=/usr/sbin/sshd -i -f /dev/null -h {}/host", scratch.display());
        let identity = format!("IdentityFile={}/alice", scratch.display());
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args(["-o", &sshd, "-o", &identity]);
        ssh.args(["-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey"]);
        ssh.env_remove("SSH_AUTH_SOCK").env_remove("DISPLAY").env_remove("SSH_ASKPASS");
        let done = ssh.arg("relay.support.example.com").output().unwrap();
        assert_eq!(done.status.code(), Some(255));
        String::from_utf8(done.stderr).unwrap()
    };
    script(&public);
    // The host is believed: only then does it come to the user's key.
    let said = connect();
    assert!(said.contains("Permission denied (publickey"), "{said}");
    assert!(!said.contains("Are you sure"), "{said}");
    let names = fs::read_to_string(&asked).unwrap();
    assert_eq!(names, "127.0.0.1\nrelay.support.example.com\n", "in order, then to verify");
    script(RELAY_KEY);
    let said = connect();
    assert!(said.contains("Host key verification failed"), "{said}");
    assert!(!said.contains("Are you sure"), "{said}");
}
