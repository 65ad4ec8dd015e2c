//! Every sentence that a person can meet, each through real ssh, held by one golden file:
//! `tests/golden/sentences.txt`. `TIDEGATE_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_tests::clients::{Forward, Program};
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{LoginUser, SupportWindow, Terminal, in_seconds};
use tidegate_tests::process::Finished;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, eventually, wait};

/// The sentences of one run, each with what brought it about.
#[derive(Default)]
struct Said(String);

impl Said {
    fn note(&mut self, occasion: &str, sentence: &str) {
        assert!(!sentence.is_empty(), "{occasion}: nothing was said");
        assert!(sentence.len() <= 300, "{occasion}: {} bytes: {sentence}", sentence.len());
        assert!(sentence.is_ascii(), "{occasion}: {sentence}");
        let _ = writeln!(self.0, "{occasion}:\n  {}", steady(sentence));
    }

    /// The sentence of a refused channel.
    fn refused(&mut self, occasion: &str, done: &Finished) {
        assert_eq!(done.code, Some(255), "{occasion}: {done:?}");
        self.note(occasion, &of_channel(&done.stderr));
    }

    /// The sentence of a connection that was ended.
    fn ended(&mut self, occasion: &str, client: &Proc) {
        client.exit(Duration::from_mins(1));
        eventually("what ssh says", SOON, || client.stderr().contains("disconnect"));
        self.note(occasion, &of_disconnect(&client.stderr()));
    }
}

/// `channel 0: open failed: administratively prohibited: SENTENCE`
fn of_channel(stderr: &str) -> String {
    let line = stderr.lines().find(|line| line.contains("open failed")).unwrap_or_default();
    line.splitn(4, ": ").nth(3).unwrap_or_default().trim().to_owned()
}

/// `Received disconnect from 127.0.0.1 port 5938:11: SENTENCE`
fn of_disconnect(stderr: &str) -> String {
    let begin = "Received disconnect from ";
    let line = stderr.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
    // The code stands between the port and the sentence.
    let sentence = line.split_once(':').and_then(|(_, rest)| rest.split_once(": "));
    sentence.map(|(_, sentence)| sentence.trim().to_owned()).unwrap_or_default()
}

/// The same sentence whenever and wherever it was said: times and ports give way to words.
fn steady(sentence: &str) -> String {
    let mut words: Vec<String> = sentence.split(' ').map(ToOwned::to_owned).collect();
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let mut at = 0;
    while at + 3 < words.len() {
        if days.contains(&words[at].as_str()) && words[at + 3].contains(':') {
            words.splice(at..at + 4, ["TIME".to_owned()]);
        }
        at += 1;
    }
    for at in 0..words.len() {
        if words.get(at + 1).is_some_and(|next| next == "ago") {
            "SOME TIME".clone_into(&mut words[at]);
        }
        let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if let Some((host, _)) = words[at].rsplit_once(':').filter(|(_, port)| digits(port)) {
            words[at] = format!("{host}:PORT");
        }
    }
    words.join(" ")
}

fn open(gate: &Gate) -> Proc {
    let mut channel = gate.staff("alice").w("kiosk-17", 443);
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    channel
}

fn in_minutes(minutes: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_mins(minutes)
}

/// Refusals that policy words: who, what, when.
fn of_policy(said: &mut Said) {
    let soon = SupportWindow::once("soon", "alice", "kiosk-18", in_minutes(60), in_minutes(120));
    let kiosk = Kiosk::with(|setup| {
        setup
            .user(LoginUser::new("carol").suspended())
            .user(LoginUser::new("dave").from(&["203.0.113.0/24"]))
            .user(LoginUser::new("erin").valid_until(in_seconds(-86_400)))
            .terminal(Terminal::new("kiosk-18").service("ssh", 22, Some(21_000)))
            .terminal(Terminal::new("kiosk-19").service("ssh", 22, Some(22_000)).suspended())
            .terminal(Terminal::new("kiosk-20").service("ssh", 22, Some(23_000)))
            .terminal(Terminal::new("kiosk-21").service("ssh", 22, Some(24_000)))
            .terminal(Terminal::new("kiosk-22").service("ssh", 22, Some(25_000)))
            .window(SupportWindow::open("berlin", "alice", "kiosk-17").services(&["ssh", "web"]))
            .window(soon.clone())
            .window(SupportWindow::open("asleep", "alice", "kiosk-19"))
            .window(SupportWindow {
                consent_required: true,
                ..SupportWindow::open("asks", "alice", "kiosk-20")
            })
            .window(SupportWindow::open("held", "alice", "kiosk-21").suspended())
            .window(SupportWindow::open("past", "alice", "kiosk-22").closing_at(in_seconds(-60)))
    });
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let mut refused = |occasion: &str, host: &str, port: u16| {
        // Twenty refusals close a connection; each of these has its own.
        said.refused(occasion, &alice.w_to(host, port).finish(SOON));
    };
    refused("opens later", "kiosk-18", 22);
    refused("does not open again", "kiosk-22", 22);
    refused("window suspended", "kiosk-21", 22);
    refused("terminal suspended", "kiosk-19", 22);
    refused("needs an agent", "kiosk-20", 22);
    refused("service in no window", "kiosk-17", 514);
    refused("undeclared port", "kiosk-17", 8080);
    refused("unknown terminal", "kiosk-99", 22);
    refused("another domain", "kiosk-17.example.com", 22);
    refused("a comma in the name", "kiosk-17,kiosk-18", 22);
    refused("a glob in the name", "kiosk-*", 22);
    refused("unknown listen port", "localhost", 29_999);
    refused("not connected, never seen", "kiosk-18.support.example.com.", 22);
    for (occasion, login) in
        [("user suspended", "carol"), ("source not allowed", "dave"), ("user expired", "erin")]
    {
        said.refused(occasion, &gate.staff(login).w("kiosk-17", 22).finish(SOON));
    }
    let wrong = alice.as_login("bob").w("kiosk-17", 22).finish(SOON);
    said.refused("another's login name", &wrong);
    let sftp = Proc::run("sftp", alice.relay(&["-s"]).arg("sftp"), SOON);
    said.note("sftp to the relay", sftp.stderr.trim());
}

/// Refusals of the way to the terminal, and of what is limited.
fn of_admission(said: &mut Said) {
    let limited = SupportWindow { max_sessions: Some(1), ..alice_everywhere("berlin").user("bob") };
    let mut kiosk = Kiosk::detached(|setup| setup.window(limited));
    let refused = |kiosk: &Kiosk, login: &str| kiosk.gate.staff(login).refused("kiosk-17", 443);
    said.refused("not connected, never seen", &refused(&kiosk, "alice"));
    let clients = kiosk.gate.clients_of("kiosk-17");
    let only_ssh = clients.start(Program::OpenSsh, &[Forward::port(20_017, 1)]);
    kiosk.gate.await_offer("kiosk-17", "ssh");
    said.refused("not offered", &refused(&kiosk, "alice"));
    said.refused("service refused", &kiosk.gate.staff("alice").refused("kiosk-17", 22));
    drop(only_ssh);
    eventually("the relay has noticed", SOON, || {
        refused(&kiosk, "alice").stderr.contains("not connected")
    });
    said.refused("not connected, seen before", &refused(&kiosk, "alice"));
    kiosk.attach();
    let held = open(&kiosk.gate);
    said.refused("window full", &refused(&kiosk, "bob"));
    drop(held);

    drop(kiosk);

    let kiosk = Kiosk::with(|setup| {
        setup
            .relay_spec("  limits: {sessionsPerUser: 1}\n")
            .max_policy_age("10s")
            .window(alice_everywhere("berlin"))
    });
    let held = open(&kiosk.gate);
    said.refused("as many sessions as a user may have", &refused(&kiosk, "alice"));
    drop(held);
    std::fs::rename(&kiosk.gate.manifests, kiosk.gate.dir().join("away")).expect("a move");
    let told = wait::poll(Duration::from_secs(40), || {
        let done = refused(&kiosk, "alice");
        done.stderr.contains("last saw its policy").then_some(done)
    });
    said.refused("policy too old", &told.expect("a refusal for the policy's age"));
    drop(kiosk);

    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let held = open(&kiosk.gate);
    // The ports are shut by then; who is in already can still ask.
    let port = tidegate_tests::ports::free();
    let forward = format!("{port}:kiosk-17:443");
    let bob = kiosk.gate.staff("bob");
    let client = Proc::start("ssh -L", &mut bob.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    kiosk.gate.relay().signal(rustix::process::Signal::TERM);
    eventually("the relay drains", SOON, || {
        kiosk.gate.readiness().is_none_or(|(status, _)| status == 503)
    });
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward");
    let _ = std::io::Read::read_to_end(&mut socket, &mut Vec::new());
    client.await_stderr("open failed", SOON);
    said.note("the relay drains", &of_channel(&client.stderr()));
    drop(held);
    drop(kiosk);

    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let port = tidegate_tests::ports::free();
    let forward = format!("{port}:kiosk-17:8080");
    let alice = kiosk.gate.staff("alice");
    let client = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    eventually("too many refusals end the connection", SOON, || {
        if let Ok(mut socket) = std::net::TcpStream::connect(("127.0.0.1", port)) {
            let _ = std::io::Read::read_to_end(&mut socket, &mut Vec::new());
        }
        client.exited().is_some()
    });
    said.ended("twenty refusals", &client);
    drop(kiosk);

    let once = SupportWindow { one_time: true, ..alice_everywhere("once") };
    let kiosk = Kiosk::open(&[once]);
    drop(open(&kiosk.gate));
    eventually("the session has ended", SOON, || kiosk.gate.sessions().is_empty());
    said.refused("one-time window used", &refused(&kiosk, "alice"));
}

/// What a session's end says.
fn of_ends(said: &mut Said) {
    let kiosk = Kiosk::open(&[]);
    kiosk.open_for(6);
    said.ended("closed", &open(&kiosk.gate));
    drop(kiosk);

    let idle = SupportWindow { idle_timeout: Some("2s".to_owned()), ..alice_everywhere("berlin") };
    let kiosk = Kiosk::open(&[idle]);
    said.ended("idle", &open(&kiosk.gate));
    let longest =
        SupportWindow { max_session_duration: Some("2s".to_owned()), ..alice_everywhere("berlin") };
    kiosk.gate.put(&longest);
    eventually("the limit is in force", SOON, || {
        let session = open(&kiosk.gate);
        let ended = wait::poll(Duration::from_secs(4), || session.exited());
        ended.is_some() && session.stderr().contains("reached")
    });
    said.ended("longest session", &open(&kiosk.gate));
    drop(kiosk);

    let mut kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let session = open(&kiosk.gate);
    let name = kiosk.gate.sessions()[0]["name"].as_str().expect("a name").to_owned();
    kiosk.gate.control(&["cut", &name]).ok();
    said.ended("cut", &session);
    let session = open(&kiosk.gate);
    kiosk.gate.put(&alice_everywhere("berlin").suspended());
    said.ended("window suspended while it ran", &session);
    kiosk.gate.put(&alice_everywhere("berlin"));
    kiosk.gate.await_why("alice", "kiosk-17", true);
    let session = open(&kiosk.gate);
    kiosk.gate.remove(&alice_everywhere("berlin"));
    said.ended("window deleted while it ran", &session);
    kiosk.gate.put(&alice_everywhere("berlin"));
    kiosk.gate.await_why("alice", "kiosk-17", true);
    let session = open(&kiosk.gate);
    kiosk.client = None;
    said.ended("the terminal went", &session);
    kiosk.attach();
    let session = open(&kiosk.gate);
    kiosk.gate.relay().signal(rustix::process::Signal::INT);
    said.ended("the relay went", &session);
}

/// What terminals are told.
fn of_terminals(said: &mut Said) {
    let kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let clients = kiosk.gate.clients_of("kiosk-17");
    let to = kiosk.echo.port();
    for (occasion, forwards) in [
        ("no forward", vec![]),
        ("an undeclared port offered", vec![Forward::port(20_099, to)]),
        ("another's name offered", vec![Forward::bound("kiosk-18", 20_018, to)]),
    ] {
        said.ended(occasion, &clients.start(Program::OpenSsh, &forwards));
    }
    let first = clients.start(Program::OpenSsh, &[Forward::port(20_018, to)]);
    kiosk.gate.await_offer("kiosk-17", "web");
    let second = clients.start(Program::OpenSsh, &[Forward::port(20_018, to)]);
    said.ended("taken over", &first);
    let done = kiosk.gate.staff("kiosk-17").w("kiosk-17", 443).finish(SOON);
    said.refused("a terminal that opens a channel", &done);
    let mut gate = kiosk.gate;
    let terminal = gate.terminal("kiosk-17");
    gate.put_terminal(terminal.clone().suspended());
    said.ended("terminal suspended", &second);
    gate.put_terminal(terminal.clone().during_window());
    gate.put(&SupportWindow::once("berlin", "alice", "kiosk-17", in_minutes(60), in_minutes(120)));
    let told = wait::poll(SOON, || {
        let client = clients.start(Program::OpenSsh, &[Forward::port(20_018, to)]);
        wait::poll(Duration::from_secs(4), || client.exited())?;
        client.stderr().contains("window").then_some(client)
    });
    said.ended("outside of its windows", &told.expect("a refusal outside of the windows"));
    gate.put_terminal(terminal.clone());
    let third = wait::poll(SOON, || {
        let client = clients.start(Program::OpenSsh, &[Forward::port(20_018, to)]);
        wait::poll(Duration::from_secs(4), || client.exited()).is_none().then_some(client)
    });
    gate.remove(&terminal);
    said.ended("terminal deleted", &third.expect("an attached terminal"));
}

#[test]
fn the_golden_file_holds_every_sentence() {
    let mut said = Said::default();
    of_policy(&mut said);
    of_admission(&mut said);
    of_ends(&mut said);
    of_terminals(&mut said);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/sentences.txt");
    if std::env::var("TIDEGATE_BLESS").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, &said.0).expect("the golden file");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(said.0 == golden, "{} does not hold what was said:\n{}", path.display(), said.0);
}
