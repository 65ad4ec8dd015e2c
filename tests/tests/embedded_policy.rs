//! The directory of manifests as the source of policy: edits of every kind, ages, findings, and
//! whether `who-can-reach` says what real ssh may do (invariants 1 and 3).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_tests::clients::Program;
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{
    DOMAIN, LoginUser, Manifest as _, Schedule, SupportWindow, Terminal, instant,
};
use tidegate_tests::process::Finished;
use tidegate_tests::{Echo, Gate, Kiosk, Proc, SOON, Setup, eventually, long, ports, wait_for};

fn sh(gate: &Gate, script: &str) -> Finished {
    let mut command = Command::new("sh");
    command
        .current_dir(&gate.manifests)
        .args(["-euc", script])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    Proc::run("sh", &mut command, SOON).ok()
}

fn echoes(gate: &Gate, login: &str) -> bool {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    let _ = channel.write(b"ping");
    channel.finish(SOON).stdout == "ping"
}

#[test]
fn editing_files_in_place_cuts_nobody() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    sh(
        gate,
        "git init -q . && git config user.email t@example.com && git config user.name t \
         && git add . && git commit -qm one && git branch other \
         && sed -i 's/48213/48214/' windows/berlin.yaml && git commit -qam two \
         && git checkout -q other",
    );
    let mut session = gate.staff("alice").w("kiosk-17", 443);
    session.write(b"a").expect("an open channel");
    session.await_stdout("a", SOON);
    let until = Instant::now() + Duration::from_secs(if long() { 60 } else { 8 });
    let mut rounds = 0_u64;
    while Instant::now() < until {
        sh(
            gate,
            "for f in windows/berlin.yaml users/alice.yaml terminals/kiosk-17.yaml; do \
               cp $f ../copy; cp ../copy $f; \
               sed -i 's/48213/48213/' $f; done; \
             git checkout -q -f master 2>/dev/null || git checkout -q -f main; \
             git checkout -q -f other",
        );
        rounds += 1;
        session.write(b"b").expect("the session was cut");
        session.await_bytes(1 + rounds, SOON);
        assert!(session.is_running(), "cut after {rounds} rounds: {}", session.stderr());
    }
    println!("{rounds} rounds of cp, sed -i and git checkout cut nobody");
    assert_eq!(session.finish(SOON).code, Some(0));
    let ended = gate.await_audit("the session's end", SOON, |line| line["endedBy"].is_string());
    assert_eq!(ended["endedBy"], "Staff");
}

#[test]
fn a_quiet_directory_stays_in_force_past_max_policy_age() {
    let kiosk = Kiosk::with(|setup| setup.max_policy_age("10s").window(alice_everywhere("berlin")));
    let begun = Instant::now();
    // Nothing is written for longer than maxPolicyAge; what is awaited is the passing of time.
    while begun.elapsed() < Duration::from_secs(14) {
        std::thread::sleep(Duration::from_secs(2));
        assert!(echoes(&kiosk.gate, "alice"), "refused after {:?}", begun.elapsed());
    }
}

#[test]
fn an_unreadable_directory_ages_and_then_admits_nobody_new() {
    let kiosk = Kiosk::with(|setup| setup.max_policy_age("10s").window(alice_everywhere("berlin")));
    let gate = &kiosk.gate;
    let mut running = gate.staff("alice").w("kiosk-17", 443);
    running.write(b"a").expect("an open channel");
    running.await_stdout("a", SOON);
    let away = gate.dir().join("away");
    std::fs::rename(&gate.manifests, &away).expect("a move");
    eventually("new sessions are refused for the policy's age", Duration::from_secs(30), || {
        let refused = gate.staff("alice").refused("kiosk-17", 443);
        refused.stderr.contains("the relay last saw its policy")
    });
    // What runs goes on; a look at a directory that is there again is age 0.
    running.write(b"b").expect("the running session");
    running.await_stdout("ab", SOON);
    assert_eq!(gate.readiness().map(|(status, _)| status), Some(503));
    std::fs::rename(&away, &gate.manifests).expect("a move");
    gate.relay().signal(rustix::process::Signal::HUP);
    eventually("new sessions are admitted again", SOON, || echoes(gate, "alice"));
    running.write(b"c").expect("the running session");
    running.await_stdout("abc", SOON);
}

#[test]
fn an_unparsable_file_keeps_its_objects_and_then_ages() {
    let kiosk = Kiosk::with(|setup| setup.max_policy_age("10s").window(alice_everywhere("berlin")));
    let gate = &kiosk.gate;
    let mut running = gate.staff("alice").w("kiosk-17", 443);
    running.write(b"a").expect("an open channel");
    running.await_stdout("a", SOON);
    gate.put_text("windows/berlin.yaml", "kind: [SupportWindow\n  spec: }\n");
    eventually("the finding is shown", SOON, || {
        gate.control(&["status"]).stdout.contains("windows/berlin.yaml")
    });
    assert!(echoes(gate, "alice"), "the file's former objects are out of force");
    eventually("its objects admit nobody new", Duration::from_secs(30), || !echoes(gate, "alice"));
    running.write(b"b").expect("the running session");
    running.await_stdout("ab", SOON);
    gate.put(&alice_everywhere("berlin"));
    eventually("its objects admit again", SOON, || echoes(gate, "alice"));
}

#[test]
fn a_typo_is_found_and_the_previous_version_stays_in_force() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let typo = alice_everywhere("berlin").yaml() + "  suspnd: true\n";
    gate.put_text("windows/berlin.yaml", &typo);
    let line = typo.lines().count();
    let finding = format!("windows/berlin.yaml:{line}:3: SupportWindow default/berlin: ");
    eventually("status shows the finding", SOON, || {
        gate.control(&["status"]).stdout.contains(&finding)
    });
    assert!(
        metric(gate.admin, "tidegate_policy_findings{severity=\"error\"}").is_some_and(|n| n > 0.0)
    );
    assert!(echoes(gate, "alice"));
    let dir = gate.manifests.to_string_lossy().into_owned();
    let check = gate.command(&["check", &dir]);
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.stdout.contains("suspnd") && check.stdout.contains(&finding), "{check:?}");
}

#[test]
fn a_restart_serves_from_the_last_good_policy() {
    // The file is broken while the relay is down; its objects are remembered.
    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    kiosk.gate.stop();
    kiosk.gate.put_text("windows/berlin.yaml", "");
    kiosk.gate.start();
    kiosk.attach();
    assert!(echoes(&kiosk.gate, "alice"));
}

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const TERMINALS: [&str; 2] = ["kiosk-a", "kiosk-b"];
const SERVICES: [(&str, u16); 2] = [("ssh", 22), ("web", 443)];

/// A subset of names that is seldom empty.
fn some(random: &mut StdRng, of: &[&str]) -> Vec<String> {
    of.iter().filter(|_| random.random_bool(0.5)).map(ToString::to_string).collect()
}

/// Users, terminals and windows at random; every instant is minutes away from now, so that what
/// holds when it is asked still holds when ssh tries.
fn random_policy(random: &mut StdRng, keys: &dyn Fn(&str) -> String, round: u32) -> String {
    let now = Timestamp::now();
    let minutes = SignedDuration::from_mins;
    let mut documents = Vec::new();
    for name in USERS {
        let mut user = LoginUser::new(name);
        user.keys.push(keys(name));
        if random.random_bool(0.5) {
            user = user.group("tier2");
        }
        user.suspend = random.random_bool(0.1);
        match random.random_range(0..10) {
            0 => user.valid_until = Some(now - minutes(5)),
            1 => user.valid_until = Some(now + minutes(30)),
            _ => {}
        }
        if random.random_bool(0.15) {
            user = user.from(&[["203.0.113.0/24", "127.0.0.0/8"][random.random_range(0..2)]]);
        }
        documents.push(user.yaml());
    }
    for name in TERMINALS {
        let mut terminal =
            Terminal::new(name).label("site", ["berlin", "rome"][random.random_range(0..2)]);
        terminal.keys.push(keys(name));
        for (at, (service, port)) in (0_u16..).zip(SERVICES) {
            let base = if name == "kiosk-a" { 20_000 } else { 21_000 };
            terminal = terminal.service(service, port, Some(base + at));
        }
        terminal.suspend = name == "kiosk-b" && random.random_bool(0.2);
        documents.push(terminal.yaml());
    }
    for n in 0..random.random_range(1..6) {
        let (start, end) = [
            (minutes(-60), minutes(60)),
            (minutes(-600), minutes(10)),
            (minutes(-60), minutes(-5)),
            (minutes(5), minutes(60)),
        ][random.random_range(0..4)];
        let mut window =
            SupportWindow::once(&format!("w{n}"), "alice", "kiosk-a", now + start, now + end);
        window.case = Some(format!("{round}-{n}"));
        window.users = some(random, &USERS);
        if window.users.is_empty() || random.random_bool(0.3) {
            window.groups = vec!["tier2".to_owned()];
        }
        window.terminals = some(random, &TERMINALS);
        if window.terminals.is_empty() || random.random_bool(0.3) {
            window.selector = vec![("site".to_owned(), "berlin".to_owned())];
        }
        window.services = some(random, &["ssh", "web"]);
        if window.services.is_empty() {
            window.services.push("web".to_owned());
        }
        if random.random_bool(0.2) {
            window.schedule = Schedule::Recurring {
                cron: "0 * * * *".to_owned(),
                zone: "Europe/Berlin".to_owned(),
                duration: "2h".to_owned(),
            };
        }
        window.suspend = random.random_bool(0.15);
        window.consent_required = random.random_bool(0.15);
        documents.push(window.yaml());
    }
    documents.join("---\n")
}

/// What `who-can-reach` says that `user` may reach now: terminal and service.
fn said(gate: &Gate, terminal: &str) -> Vec<(String, String)> {
    let dir = gate.manifests.to_string_lossy().into_owned();
    let told = gate.command(&[
        "who-can-reach",
        terminal,
        "--manifests",
        &dir,
        "--at",
        &instant(Timestamp::now()),
        "-o",
        "json",
    ]);
    let told: serde_json::Value = serde_json::from_str(&told.ok().stdout).expect("JSON");
    assert_eq!(told["terminal"], terminal);
    told["access"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|access| {
            let text = |field: &str| access[field].as_str().expect("a text").to_owned();
            (text("user"), text("service"))
        })
        .collect()
}

/// What real ssh may do now, a channel for each service of each terminal in one connection: one that
/// echoes, or that is refused only because the terminal is not connected.
fn reached(gate: &Gate, user: &str) -> Vec<(usize, &'static str, bool)> {
    let targets = TERMINALS.iter().enumerate().flat_map(|(at, terminal)| {
        SERVICES.map(|(service, port)| (at, *terminal, service, port, ports::free()))
    });
    let targets: Vec<_> = targets.collect();
    let forwards: Vec<_> = targets
        .iter()
        .map(|(_, terminal, _, port, local)| {
            format!("127.0.0.1:{local}:{terminal}.{DOMAIN}:{port}")
        })
        .collect();
    let mut options = vec!["-N", "-v", "-o", "ExitOnForwardFailure=yes"];
    options.extend(forwards.iter().flat_map(|forward| ["-L", forward]));
    let client = Proc::start("ssh -L", &mut gate.staff(user).relay(&options));
    let logged_in = wait_for("ssh is let in or not", SOON, || {
        let entered = client.stderr().contains("Entering interactive session");
        entered.then_some(true).or_else(|| client.exited().map(|_| false))
    });
    let refusals = || {
        let said = client.stderr();
        said.lines().filter(|line| line.contains(": open failed: ")).map(str::to_owned).collect()
    };
    let may = |terminal: &str, local: u16| {
        let before: Vec<String> = refusals();
        let mut socket = TcpStream::connect(("127.0.0.1", local)).expect("the forward");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let _ = socket.write_all(b"ping");
        let mut echo = String::new();
        let _ = socket.take(4).read_to_string(&mut echo);
        if echo == "ping" {
            return true;
        }
        // ssh says why before it closes the socket; its line may come a moment later.
        let refusal = wait_for("the refusal", SOON, || refusals().get(before.len()).cloned());
        refusal.contains(&format!("{terminal} is not connected"))
    };
    let answers = targets.iter().map(|(at, terminal, service, _, local)| {
        (*at, *service, logged_in && may(terminal, *local))
    });
    answers.collect()
}

#[test]
fn invariant_1_who_can_reach_agrees_with_real_ssh() {
    let policies = 200;
    let seed = tidegate_draw::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let setup = Setup::new();
    let dir = setup.dir().to_owned();
    for name in USERS.iter().chain(&TERMINALS) {
        setup.key(name);
    }
    let keys = move |name: &str| {
        let text = std::fs::read_to_string(dir.join("keys").join(format!("{name}.pub")));
        text.expect("a key").split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    let gate = setup.write();
    gate.put_text("random.yaml", &random_policy(&mut random, &keys, 0));
    let mut gate = gate;
    gate.start();
    let (ssh, web) = (Echo::start(), Echo::start());
    let _attached = gate.clients_of("kiosk-a").start(
        Program::OpenSsh,
        &[
            tidegate_tests::Forward::port(20_000, ssh.port()),
            tidegate_tests::Forward::port(20_001, web.port()),
        ],
    );
    gate.await_offer("kiosk-a", "ssh");
    gate.await_offer("kiosk-a", "web");
    let mut admitted = 0_u32;
    for round in 1..=policies {
        let applied = metric(gate.admin, "tidegate_policy_snapshots_applied_total");
        let text = random_policy(&mut random, &keys, round);
        gate.put_text("random.yaml", &text);
        eventually("the policy is in force", SOON, || {
            metric(gate.admin, "tidegate_policy_snapshots_applied_total") > applied
        });
        let said: Vec<_> = TERMINALS.iter().map(|terminal| said(&gate, terminal)).collect();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let gate = &gate;
            let threads: Vec<_> = USERS
                .iter()
                .map(|user| {
                    scope.spawn(move || {
                        let answers = reached(gate, user).into_iter();
                        answers
                            .map(|(at, service, may)| (*user, at, service, may))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a user")).collect()
        });
        for (user, at, service, may) in answers {
            let declared = said[at].contains(&(user.to_owned(), service.to_owned()));
            // The command is not told where somebody comes from.
            let elsewhere = user_is_elsewhere(&text, user);
            let expected = declared && !elsewhere;
            assert_eq!(
                may, expected,
                "{user} on {}/{service}: who-can-reach says {declared}, ssh {may}\nTIDEGATE_SEED={seed}, round {round}\n{text}",
                TERMINALS[at]
            );
            admitted += u32::from(may);
        }
    }
    println!("{policies} policies, {admitted} admissions agreed");
    assert!(admitted > policies, "hardly anything was admitted; the policies are too narrow");
}

fn user_is_elsewhere(text: &str, user: &str) -> bool {
    text.split("---\n").any(|document| {
        document.contains("kind: LoginUser")
            && document.contains(&format!("name: {user}\n"))
            && document.contains("203.0.113.0/24")
    })
}
