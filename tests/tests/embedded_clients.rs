//! Which stock client does what in which form: OpenSSH, dropbear and plink as terminals
//! (invariant 5) and as staff. Each test prints its rows of the table client × form.

use std::process::Command;
use std::time::{Duration, Instant};

use tidegate_tests::clients::{Forward, Program};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{DOMAIN, SupportWindow, Terminal};
use tidegate_tests::servers::me;
use tidegate_tests::{Gate, Kiosk, Proc, SOON, eventually, have};

const APPLIED: &str = "tidegate_policy_snapshots_applied_total";
/// What a terminal is told when its forward is refused comes 2 s after login.
const TOLD: Duration = Duration::from_secs(15);

/// A kiosk whose own client is not connected, with a window on `web` for alice.
fn kiosk() -> Kiosk {
    Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")))
}

/// One round trip of alice's through the service `web`.
fn echoes(gate: &Gate) {
    let mut channel = gate.staff("alice").w("kiosk-17", 443);
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    assert_eq!(channel.finish(SOON).code, Some(0));
}

/// A form of `-R` that offers `web` (port 443, listenPort 20018) of kiosk-17.
struct Form {
    shown: &'static str,
    forward: fn(u16) -> Forward,
    /// What has to stand before it in dbclient's arguments.
    dropbear: &'static [&'static str],
    /// Clients that cannot ask for it, as measured.
    cannot: &'static [Program],
}

const FORMS: [Form; 7] = [
    Form {
        shown: "-R 20018:…",
        forward: |to| Forward::port(20_018, to),
        dropbear: &[],
        cannot: &[],
    },
    Form {
        shown: "-R :20018:… (every address)",
        forward: |to| Forward::bound("", 20_018, to),
        dropbear: &[],
        cannot: &[],
    },
    Form {
        shown: "-R *:20018:…",
        forward: |to| Forward::bound("*", 20_018, to),
        dropbear: &[],
        cannot: &[],
    },
    Form {
        shown: "-R 127.0.0.1:20018:…",
        forward: |to| Forward::bound("127.0.0.1", 20_018, to),
        dropbear: &[],
        cannot: &[],
    },
    Form {
        shown: "-R kiosk-17:20018:…",
        forward: |to| Forward::bound("kiosk-17", 20_018, to),
        dropbear: &[],
        cannot: &[],
    },
    Form {
        shown: "-R kiosk-17.support.example.com:443:… (own name, the service's port)",
        forward: |to| Forward::bound("kiosk-17.support.example.com", 443, to),
        dropbear: &[],
        cannot: &[],
    },
    Form {
        shown: "-R 0:… (the first service that is free)",
        forward: |to| Forward::port(0, to),
        dropbear: &[],
        cannot: &[Program::Plink],
    },
];

fn terminal_forms(program: Program) {
    if !have(program.name()) {
        return;
    }
    for form in &FORMS {
        if form.cannot.contains(&program) {
            println!("| {} | terminal | {} | cannot ask for it |", program.name(), form.shown);
            continue;
        }
        let mut kiosk = kiosk();
        // Port 0 means the first service, which then has to be the one that echoes.
        let first = Terminal::new("kiosk-17").service("web", 443, Some(20_018));
        let applied = metric(kiosk.gate.admin, APPLIED);
        kiosk.gate.put_terminal(first);
        eventually("the terminal has one service", SOON, || {
            metric(kiosk.gate.admin, APPLIED) > applied
        });
        let forward = (form.forward)(kiosk.echo.port());
        let clients = kiosk.gate.clients_of("kiosk-17");
        let mut options = vec!["-N"];
        options.extend(form.dropbear);
        let mut command = clients.command_with(program, &options, &[forward]);
        let client = Proc::start(format!("{} {}", program.name(), form.shown), &mut command);
        kiosk.gate.await_offer("kiosk-17", "web");
        echoes(&kiosk.gate);
        assert!(client.is_running(), "{}: {}", form.shown, client.stderr());
        println!("| {} | terminal | {} | serves |", program.name(), form.shown);
    }
}

#[test]
fn invariant_5_openssh_as_a_terminal_in_each_form() {
    terminal_forms(Program::OpenSsh);
}

#[test]
fn invariant_5_dropbear_as_a_terminal_in_each_form() {
    terminal_forms(Program::Dropbear);
}

#[test]
fn invariant_5_plink_as_a_terminal_in_each_form() {
    terminal_forms(Program::Plink);
}

#[test]
fn invariant_5_what_a_terminal_may_not_offer() {
    let kiosk = kiosk();
    let clients = kiosk.gate.clients_of("kiosk-17");
    let to = kiosk.echo.port();
    for (shown, forward) in [
        ("another terminal's name", Forward::bound("kiosk-18", 20_018, to)),
        ("another domain", Forward::bound("kiosk-17.example.com", 20_018, to)),
        ("an address that is not loopback", Forward::bound("203.0.113.7", 20_018, to)),
        ("an undeclared port", Forward::port(20_099, to)),
        ("a service's port without its own name", Forward::port(443, to)),
    ] {
        for program in Program::ALL {
            if !have(program.name()) {
                continue;
            }
            let begun = Instant::now();
            let done = clients.finish(program, std::slice::from_ref(&forward), TOLD);
            let told = format!("{}{}", done.stdout, done.stderr);
            // dbclient shows that it was disconnected, and ends with 0.
            if program != Program::Dropbear {
                assert_ne!(done.code, Some(0), "{shown}, {}: {told}", program.name());
                assert!(told.contains("kiosk-17 may offer"), "{shown}, {}: {told}", program.name());
            }
            println!(
                "| {} | terminal | {shown} | refused after {:?} |",
                program.name(),
                begun.elapsed()
            );
        }
    }
    assert_eq!(kiosk.echo.served().len(), 0);
}

#[test]
fn invariant_5_a_terminal_without_n_learns_what_it_is() {
    let kiosk = kiosk();
    let clients = kiosk.gate.clients_of("kiosk-17");
    let forwards = [Forward::port(20_018, kiosk.echo.port())];
    for program in Program::ALL {
        if !have(program.name()) {
            continue;
        }
        let mut command = clients.command_with(program, &["-T"], &forwards);
        let client = Proc::start(format!("{} -R without -N", program.name()), &mut command);
        client.await_stdout("kiosk-17", SOON);
        echoes(&kiosk.gate);
        assert!(client.is_running(), "{}", client.stderr());
        println!("| {} | terminal | without -N | serves, says what it is |", program.name());
    }
}

#[test]
fn invariant_5_a_terminal_opens_nothing_through_the_relay() {
    let kiosk = kiosk();
    let as_terminal = kiosk.gate.staff("kiosk-17");
    let done = as_terminal.w("kiosk-17", 443).finish(SOON);
    assert_eq!(done.code, Some(255));
    assert!(done.stderr.contains("opens nothing through the relay"), "{}", done.stderr);
    // Nor does a login user offer anything.
    let alice = kiosk.gate.staff("alice");
    let mut command =
        alice.relay(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", "20018:127.0.0.1:1"]);
    let done = Proc::run("alice -R", &mut command, SOON);
    assert_eq!(done.code, Some(255), "{}", done.stderr);
}

#[test]
fn autossh_redials_after_a_takeover() {
    if !have("autossh") {
        return;
    }
    let kiosk = kiosk();
    let clients = kiosk.gate.clients_of("kiosk-17");
    let mut ssh = clients.command(Program::OpenSsh, &[Forward::port(20_018, kiosk.echo.port())]);
    ssh.env("AUTOSSH_GATETIME", "0");
    let mut command = Command::new("autossh");
    command.env("AUTOSSH_GATETIME", "0").args(["-M", "0"]).args(ssh.get_args());
    let _autossh = Proc::start("autossh", &mut command);
    kiosk.gate.await_offer("kiosk-17", "web");
    echoes(&kiosk.gate);
    // The same key from elsewhere takes over; when it leaves, autossh's next one serves.
    let other = clients.start(Program::OpenSsh, &[Forward::port(20_018, kiosk.echo.port())]);
    kiosk.gate.await_offer("kiosk-17", "web");
    drop(other);
    kiosk.gate.await_offer("kiosk-17", "web");
    eventually("autossh's client serves again", SOON, || {
        let mut channel = kiosk.gate.staff("alice").w("kiosk-17", 443);
        let _ = channel.write(b"again");
        let done = channel.finish(SOON);
        done.stdout == "again"
    });
}

#[test]
fn staff_openssh_in_each_form() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let row = |form: &str| println!("| ssh | staff | {form} | works |");

    assert_eq!(alice.run("kiosk-17", &["echo J"]).ok().stdout, "J\n");
    row("-J alice@relay ME@TERMINAL");

    echoes(&kiosk.gate);
    row("-W TERMINAL:PORT alice@relay");

    let mut command = alice.ssh();
    let proxy = format!(
        "ssh -F {} -p {} -W %h:%p {}@127.0.0.1",
        alice.config().display(),
        alice.port,
        alice.login
    );
    command
        .arg("-o")
        .arg(format!("ProxyCommand={proxy}"))
        .arg(format!("{}@kiosk-17.{DOMAIN}", me()))
        .arg("echo P");
    assert_eq!(Proc::run("ProxyCommand", &mut command, SOON).ok().stdout, "P\n");
    row("ProxyCommand ssh -W %h:%p");

    let mut command = alice.ssh();
    command
        .args(["-J", &alice.jump(), "-p", "20017", &format!("{}@localhost", me())])
        .arg("echo L");
    assert_eq!(Proc::run("localhost", &mut command, SOON).ok().stdout, "L\n");
    row("-J alice@relay -p LISTENPORT ME@localhost");

    let port = tidegate_tests::ports::free();
    let forward = format!("{port}:kiosk-17:443");
    let client = Proc::start("ssh -L", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward");
    std::io::Write::write_all(&mut socket, b"hey").expect("a write");
    let mut got = [0; 3];
    std::io::Read::read_exact(&mut socket, &mut got).expect("an answer");
    assert_eq!(&got, b"hey");
    row("-N -L PORT:TERMINAL:SERVICEPORT alice@relay");

    let socks = tidegate_tests::ports::free();
    let client = Proc::start("ssh -D", &mut alice.relay(&["-N", "-v", "-D", &socks.to_string()]));
    client.await_stderr("Entering interactive session", SOON);
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", socks)).expect("the forward");
    let name = b"kiosk-17";
    let mut ask = vec![5, 1, 0, 5, 1, 0, 3, 8];
    ask.extend_from_slice(name);
    ask.extend_from_slice(&443_u16.to_be_bytes());
    std::io::Write::write_all(&mut socket, &ask).expect("a write");
    let mut got = [0; 12];
    std::io::Read::read_exact(&mut socket, &mut got).expect("an answer");
    assert_eq!(got[3], 0, "SOCKS refused: {got:?}");
    std::io::Write::write_all(&mut socket, b"dyn").expect("a write");
    let mut got = [0; 3];
    std::io::Read::read_exact(&mut socket, &mut got).expect("an answer");
    assert_eq!(&got, b"dyn");
    row("-N -D PORT alice@relay");
}

#[test]
fn staff_dbclient_in_each_form() {
    if !have("dbclient") {
        return;
    }
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let mut channel =
        Proc::start("dbclient -B", &mut alice.dbclient(&format!("kiosk-17.{DOMAIN}:443")));
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    assert_eq!(channel.finish(SOON).code, Some(0));
    println!("| dbclient | staff | -B TERMINAL:PORT alice@relay | works |");

    // A whole shell: dbclient through dbclient.
    let program = Proc::run("which", Command::new("which").arg("dbclient"), SOON).ok().stdout;
    let key = alice.key.for_dropbear();
    let mut command = Command::new(program.trim());
    let proxy = format!(
        "{} -y -i {} -p {} -B kiosk-17.{DOMAIN}:22 alice@127.0.0.1",
        program.trim(),
        key.display(),
        alice.port
    );
    command.env("HOME", kiosk.gate.dir()).args(["-y", "-i"]).arg(&key).args([
        "-J",
        &proxy,
        &format!("{}@kiosk-17.{DOMAIN}", me()),
        "echo shell; exit 3",
    ]);
    let done = Proc::run("dbclient -J", &mut command, SOON);
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), "shell\n"), "{}", done.stderr);
    println!("| dbclient | staff | -J 'dbclient -B …' ME@TERMINAL | works |");

    let refused = Proc::run("dbclient -B", &mut alice.dbclient("kiosk-99:22"), SOON);
    println!(
        "| dbclient | staff | a refused -B | exits {:?}, says {:?} |",
        refused.code, refused.stderr
    );
    assert_eq!(refused.stdout, "");
}

#[test]
fn staff_plink_in_each_form() {
    if !have("plink") {
        return;
    }
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let alice = kiosk.gate.staff("alice");
    let host_key = kiosk.gate.host_key();
    let target = format!("kiosk-17.{DOMAIN}:443");
    let mut channel = Proc::start("plink -nc", &mut alice.plink(&host_key, &["-nc", &target]));
    channel.write(b"ping").expect("an open channel");
    channel.await_stdout("ping", SOON);
    channel.close_stdin();
    channel.exit(SOON);
    println!("| plink | staff | -nc TERMINAL:PORT alice@relay | works |");

    let refused =
        Proc::run("plink -nc", &mut alice.plink(&host_key, &["-nc", "kiosk-99:22"]), SOON);
    assert!(refused.stderr.contains("kiosk-99"), "{}", refused.stderr);
    println!("| plink | staff | a refused -nc | shows the sentence |");

    let inner = tidegate_tests::clients::putty_key(kiosk.gate.dir(), &kiosk.sshd.host_key.public);
    let relay_key = tidegate_tests::clients::putty_key(kiosk.gate.dir(), &host_key);
    let key = alice.key.for_putty();
    let proxy = format!(
        "plink -batch -ssh -hostkey {relay_key} -i {} -P {} -nc %host:%port alice@127.0.0.1",
        key.display(),
        alice.port
    );
    let mut command = Command::new("plink");
    command
        .env("HOME", kiosk.gate.dir())
        .args(["-batch", "-ssh", "-hostkey", &inner, "-i"])
        .arg(&key)
        .args(["-proxycmd", &proxy, &format!("{}@kiosk-17.{DOMAIN}", me()), "echo shell; exit 3"]);
    let done = Proc::run("plink -proxycmd", &mut command, SOON);
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), "shell\n"), "{}", done.stderr);
    println!("| plink | staff | -proxycmd 'plink -nc %host:%port …' | works |");
}

#[test]
fn staff_see_the_reason_of_a_cut_in_each_client() {
    let window = SupportWindow::open("berlin", "alice", "kiosk-17").services(&["web"]);
    for program in Program::ALL {
        if !have(program.name()) {
            continue;
        }
        let kiosk = Kiosk::open(std::slice::from_ref(&window));
        let alice = kiosk.gate.staff("alice");
        let host_key = kiosk.gate.host_key();
        let mut command = match program {
            Program::OpenSsh => alice.relay(&["-W", "kiosk-17:443"]),
            Program::Dropbear => alice.dbclient("kiosk-17:443"),
            Program::Plink => alice.plink(&host_key, &["-nc", "kiosk-17:443"]),
        };
        let mut channel = Proc::start(program.name(), &mut command);
        channel.write(b"ping").expect("an open channel");
        channel.await_stdout("ping", SOON);
        kiosk.gate.remove(&window);
        let exit = channel.exit(SOON);
        let told = channel.stderr();
        if program != Program::Dropbear {
            assert_ne!(exit.code, Some(0), "{told}");
            assert!(told.contains("berlin"), "{}: {told}", program.name());
        }
        println!("| {} | staff | a cut | exits {:?}: {} |", program.name(), exit.code, told.trim());
    }
}
