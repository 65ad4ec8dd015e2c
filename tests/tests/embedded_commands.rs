//! The relay's own commands and the view, as people and scripts call them.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{DOMAIN, LoginUser, SupportWindow, in_seconds, instant};
use tidegate_tests::process::Finished;
use tidegate_tests::servers::me;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, Setup, eventually, http, wait_for};

fn json(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

fn channel(gate: &Gate, login: &str) -> Proc {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    channel
}

#[test]
fn status_sessions_and_cut_over_the_control_socket() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let session = channel(gate, "alice");
    let status = json(&gate.control(&["status", "-o", "json"]).ok());
    assert_eq!(status["domain"], DOMAIN);
    assert!(gate.control(&["status"]).ok().stdout.contains("kiosk-17"));
    let mode = std::fs::metadata(gate.state.join("control.sock")).expect("a socket");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    let sessions = gate.sessions();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let first = &sessions[0];
    assert_eq!((&first["user"], &first["terminal"]), (&"alice".into(), &"kiosk-17".into()));
    let name = sessions[0]["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("ss-"), "{name}");
    assert!(gate.control(&["sessions"]).ok().stdout.contains(&name));

    let unknown = gate.control(&["cut", "ss-00000000-0000-7000-8000-000000000000"]);
    assert_ne!(unknown.code, Some(0));
    assert!(session.is_running());
    gate.control(&["cut", &name]).ok();
    assert_eq!(session.exit(SOON).code, Some(255));
    gate.await_audit("the cut", SOON, |line| line["endedBy"] == "Cut");
    eventually("no session is left", SOON, || gate.sessions().is_empty());
    // The record of the session has the resource's shape and stays.
    let path = gate.state.join(format!("sessions/{name}.json"));
    let record: Value = wait_for("the record's end", SOON, || {
        let record = std::fs::read_to_string(&path).ok()?;
        serde_json::from_str(&record).ok().filter(|record: &Value| record["status"].is_object())
    });
    assert_eq!(record["kind"], "SupportSession");
    assert_eq!(record["spec"]["user"], "alice");
    assert_eq!(record["status"]["endedBy"], "Cut");
}

#[test]
fn the_view_shows_what_a_person_needs() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let page = alice.view(&[]).ok();
    for part in ["alice", "berlin", "kiosk-17", "connected", "48213"] {
        assert!(page.stdout.contains(part), "'{part}' is not in: {}", page.stdout);
    }
    // With a pty, lines end in CRLF.
    let mut command = alice.relay(&["-tt"]);
    let tty = Proc::run("ssh -tt alice@relay", &mut command, SOON).ok();
    assert!(tty.stdout.contains("\r\n"), "{:?}", tty.stdout);
    assert!(tty.stdout.replace("\r\n", "").find('\n').is_none(), "{:?}", tty.stdout);

    for command in ["windows", "terminals", "sessions", "whoami"] {
        alice.view(&[command]).ok();
        let told = alice.view(&[command, "--json"]).ok();
        json(&told);
    }
    let session = channel(gate, "alice");
    let sessions = alice.view(&["sessions"]).ok().stdout;
    assert!(sessions.contains("kiosk-17"), "{sessions}");
    drop(session);

    assert_eq!(alice.view(&["why", "kiosk-17"]).code, Some(0));
    let bob = gate.staff("bob");
    assert_eq!(bob.view(&["why", "kiosk-17"]).code, Some(1));
    json(&bob.view(&["why", "kiosk-17", "--json"]));
    for usage in [&["why"][..], &["whx"], &["rm", "-rf", "/"], &["why", "a", "b", "c"]] {
        assert_eq!(alice.view(usage).code, Some(2), "{usage:?}");
    }
}

#[test]
fn why_remembers_refusals_and_endings_across_restarts() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    kiosk.gate.staff("alice").refused("kiosk-17", 8080);
    let session = channel(&kiosk.gate, "alice");
    let name = kiosk.gate.sessions()[0]["name"].as_str().expect("a name").to_owned();
    kiosk.gate.control(&["cut", &name]).ok();
    session.exit(SOON);
    let told = |gate: &Gate| gate.staff("alice").view(&["why", "kiosk-17"]).stdout;
    let has_both = |told: &str| told.contains("8080") && told.contains("cut by");
    eventually("both are told", SOON, || has_both(&told(&kiosk.gate)));
    kiosk.gate.crash();
    kiosk.gate.start();
    let after = told(&kiosk.gate);
    assert!(has_both(&after), "{after}");
}

#[test]
fn check_names_every_finding_at_once() {
    let kiosk = Setup::new().user(LoginUser::new("alice")).write();
    let dir = text(&kiosk.manifests);
    let clean = kiosk.command(&["check", &dir]);
    assert_eq!(clean.code, Some(0), "{clean:?}");
    kiosk.put_text(
        "windows/bad.yaml",
        "apiVersion: tidegate.dev/v1alpha1\nkind: SupportWindow\nmetadata:\n  name: bad\nspec:\n  \
         users: {}\n  terminals:\n    names: [kiosk-17]\n  services: [ssh]\n  suspnd: true\n  \
         schedule:\n    once: {start: 2026-11-23T11:00:00Z, end: 2026-11-23T09:00:00Z}\n",
    );
    let found = kiosk.command(&["check", &dir]);
    assert_eq!(found.code, Some(1), "{found:?}");
    for part in ["windows/bad.yaml:10:3", "suspnd", "spec.users", "spec.schedule.once"] {
        assert!(found.stdout.contains(part), "'{part}' is not in: {}", found.stdout);
    }
    json(&kiosk.command(&["check", &dir, "-o", "json"]));
    assert_eq!(kiosk.command(&["check"]).code, Some(2));
    assert_eq!(kiosk.command(&["check", "/nowhere/at/all"]).code, Some(2));
}

#[test]
fn check_diff_says_who_gains_and_who_loses() {
    let old = Setup::new()
        .user(LoginUser::new("alice"))
        .user(LoginUser::new("bob"))
        .terminal(tidegate_tests::Terminal::new("kiosk-17").service("ssh", 22, Some(20_017)))
        .window(SupportWindow::open("berlin", "alice", "kiosk-17"))
        .write();
    let new = old.dir().join("new");
    let mut command = Command::new("cp");
    Proc::run("cp", command.arg("-r").arg(&old.manifests).arg(&new), SOON).ok();
    let same = old.command(&["check", "--diff", &text(&old.manifests), &text(&new)]);
    assert_eq!(same.code, Some(0), "{same:?}");
    let path = new.join("windows/berlin.yaml");
    let window = std::fs::read_to_string(&path).expect("a window");
    std::fs::write(&path, window.replace("[\"alice\"]", "[\"bob\"]")).expect("a window");
    let differs = old.command(&["check", "--diff", &text(&old.manifests), &text(&new)]);
    for part in ["alice", "bob", "kiosk-17", "ssh"] {
        assert!(differs.stdout.contains(part), "'{part}' is not in: {differs:?}");
    }
}

#[test]
fn who_can_reach_in_json_has_instants_in_utc() {
    let closes = in_seconds(3600);
    let kiosk =
        Kiosk::open(&[SupportWindow::open("berlin", "alice", "kiosk-17").closing_at(closes)]);
    let dir = text(&kiosk.gate.manifests);
    let told = json(
        &kiosk.gate.command(&["who-can-reach", "kiosk-17", "--manifests", &dir, "-o", "json"]).ok(),
    );
    assert_eq!(told["terminal"], "kiosk-17");
    let access = &told["access"][0];
    assert_eq!(access["user"], "alice");
    assert_eq!(access["service"], "ssh");
    assert_eq!(access["closesAt"], instant(closes));
    assert!(access["opensAt"].is_string() && access["window"].is_string(), "{told}");
    let later = kiosk.gate.command(&[
        "who-can-reach",
        "kiosk-17",
        "--manifests",
        &dir,
        "--at",
        &instant(in_seconds(7200)),
        "-o",
        "json",
    ]);
    assert_eq!(json(&later.ok())["access"].as_array().map(Vec::len), Some(0));
    let unknown = kiosk.gate.command(&["who-can-reach", "kiosk-99", "--manifests", &dir]);
    assert_ne!(unknown.code, Some(0));
}

#[test]
fn known_hosts_and_ssh_config_leave_no_question_open() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let (manifests, state) = (text(&gate.manifests), text(&gate.state));
    let known =
        gate.command(&["known-hosts", "--manifests", &manifests, "--state", &state]).ok().stdout;
    assert!(known.contains(&kiosk.sshd.host_key.public), "{known}");
    assert!(known.contains(&gate.host_key()), "{known}");
    let config = gate
        .command(&["ssh-config", "--user", "alice", "--manifests", &manifests, "--state", &state])
        .ok()
        .stdout;
    let dir = gate.dir().join("documented");
    std::fs::create_dir_all(&dir).expect("a directory");
    let known_path = dir.join("known_hosts");
    std::fs::write(&known_path, &known).expect("a file");
    let config_path = dir.join("config");
    // What only this test needs stands first: a relay on loopback, a key that is not in ~/.ssh.
    let ours = format!(
        "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  IdentityFile {}\n  \
         IdentitiesOnly yes\n  BatchMode yes\nHost relay.{DOMAIN}\n  HostName 127.0.0.1\n  HostKeyAlias [relay.{DOMAIN}]:{}\n",
        known_path.display(),
        gate.key("alice").path.display(),
        gate.port,
    );
    std::fs::write(&config_path, format!("{ours}\n{config}")).expect("a file");
    let mut command = Command::new("ssh");
    command.arg("-F").arg(&config_path).args(["-G", &format!("kiosk-17.{DOMAIN}")]);
    let shown = Proc::run("ssh -G", &mut command, SOON).ok().stdout;
    assert!(shown.contains("forwardagent no"), "{shown}");
    assert!(!shown.contains("stricthostkeychecking ask"), "{shown}");
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(&config_path)
        .arg(format!("{}@kiosk-17.{DOMAIN}", me()))
        .arg("echo no question");
    let done = Proc::run("ssh", &mut command, SOON);
    println!("{config}\n--- {}", done.stderr);
    assert_eq!(done.stdout, "no question\n", "{done:?}\n{config}");
}

#[test]
fn a_second_process_on_one_state_directory_exits() {
    let kiosk = Kiosk::open(&[]);
    let mut second = kiosk.gate.serve();
    let done = Proc::run("second", &mut second, SOON);
    assert_ne!(done.code, Some(0));
    assert!(done.stderr.contains("lock") || done.stderr.contains("another"), "{}", done.stderr);
    kiosk.gate.control(&["status"]).ok();
}

#[test]
fn a_host_key_that_others_can_read_is_refused() {
    let mut kiosk = Kiosk::open(&[]);
    kiosk.gate.stop();
    let keys: Vec<_> = walk(&kiosk.gate.state)
        .into_iter()
        .filter(|path| {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("OPENSSH PRIVATE KEY"))
        })
        .collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&keys[0], permissions).expect("a mode");
    };
    mode(0o644);
    kiosk.gate.spawn();
    assert_ne!(kiosk.gate.relay().exit(SOON).code, Some(0));
    let told = kiosk.gate.relay().stderr();
    assert!(told.contains(&text(&keys[0])), "{told}");
    mode(0o600);
    kiosk.gate.start();
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(walk(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[test]
fn the_admin_port_tells_and_changes_nothing() {
    let kiosk = Kiosk::open(&[]);
    let gate = &kiosk.gate;
    assert_eq!(http::get(gate.admin, "/healthz").map(|(status, _)| status), Some(200));
    assert_eq!(gate.readiness().map(|(status, _)| status), Some(200));
    let (_, metrics) = http::get(gate.admin, "/metrics").expect("metrics");
    assert!(metrics.contains("tidegate_terminals_connected 1"), "{metrics}");
    for secret in ["alice", "kiosk-17"] {
        assert!(!metrics.contains(secret), "a name is in the metrics: {secret}");
    }
    assert_eq!(http::get(gate.admin, "/").map(|(status, _)| status), Some(404));
}

#[test]
fn sigterm_drains_and_a_second_one_ends() {
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let mut session = channel(&kiosk.gate, "alice");
    kiosk.gate.relay().signal(Signal::TERM);
    eventually("the relay is not ready", SOON, || {
        kiosk.gate.readiness().is_none_or(|(status, _)| status == 503)
    });
    session.write(b"pong").expect("the running session");
    session.await_stdout("pingpong", SOON);
    let refused = kiosk.gate.staff("alice").refused("kiosk-17", 443);
    assert_eq!(refused.code, Some(255), "{refused:?}");
    kiosk.gate.relay().signal(Signal::TERM);
    let exit = kiosk.gate.relay().exit(SOON);
    assert_eq!(session.exit(SOON).code, Some(255));
    println!("a second SIGTERM: relay {:?}, staff: {}", exit.code, session.stderr());
    assert!(session.stderr().contains("shutting down"), "{}", session.stderr());
    kiosk.gate.await_audit("the session's end", SOON, |line| line["endedBy"] == "Drain");

    // With no session it leaves at once.
    kiosk.gate.start();
    let begun = std::time::Instant::now();
    kiosk.gate.relay().signal(Signal::TERM);
    assert_eq!(kiosk.gate.relay().exit(SOON).code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_drain_ends_when_its_sessions_end() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let session = channel(&kiosk.gate, "alice");
    kiosk.gate.relay().signal(Signal::TERM);
    eventually("the relay drains", SOON, || {
        kiosk.gate.readiness().is_none_or(|(status, _)| status == 503)
    });
    session.finish(SOON);
    assert_eq!(kiosk.gate.relay().exit(SOON).code, Some(0));
}

#[test]
fn what_the_relay_itself_never_does() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let mut command = alice.relay(&["-s"]);
    let sftp = Proc::run("sftp", command.arg("sftp"), SOON);
    assert_eq!(sftp.code, Some(2), "{sftp:?}");
    assert!(sftp.stderr.contains("no shell and no files"), "{}", sftp.stderr);

    // X11 and an agent are refused plainly; the session's view works all the same.
    let mut command = alice.relay(&["-A", "-o", "ForwardX11=yes", "-T"]);
    command.env("DISPLAY", "127.0.0.1:99").arg("whoami");
    let done = Proc::run("ssh -A -X", &mut command, SOON).ok();
    assert!(done.stdout.contains("alice"), "{}", done.stdout);

    let socket = gate.dir().join("agent.sock");
    let forward = format!("{}:/run/docker.sock", socket.display());
    let client = Proc::start("ssh -L unix", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    let mut peer = std::os::unix::net::UnixStream::connect(&socket).expect("the forward");
    let _ = std::io::Read::read_to_end(&mut peer, &mut Vec::new());
    client.await_stderr("open failed", SOON);
    let why = alice.view(&["why", "kiosk-17"]).stdout;
    println!("{why}");
}

#[test]
fn logs_are_one_event_a_line_in_text_or_json() {
    let kiosk = Kiosk::with(|setup| {
        setup.window(alice_everywhere("berlin")).arg("--log-format").arg("text")
    });
    drop(channel(&kiosk.gate, "alice"));
    let text_log = kiosk.gate.relay().stderr();
    assert!(!text_log.contains('\u{1b}'), "colours in a file: {text_log}");
    drop(kiosk);
    let kiosk = Kiosk::detached(|setup| setup.arg("--log-format").arg("json"));
    kiosk.gate.await_log(&["serving"], SOON);
    let log = kiosk.gate.relay().stderr();
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
