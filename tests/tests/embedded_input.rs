//! Bad and unusual input from the network and from people: one sentence, bounded, and nobody else
//! notices (invariants 1 and 8).

use std::process::Command;
use std::time::{Duration, Instant};

use tidegate_tests::crowd::open_once;
use tidegate_tests::keys::Key;
use tidegate_tests::kiosk::alice_everywhere;
use tidegate_tests::manifest::{LoginUser, Manifest as _, SupportWindow, Terminal};
use tidegate_tests::{Gate, Kiosk, Proc, SOON, Setup, eventually, ports};

fn echoes(gate: &Gate, login: &str) -> bool {
    let mut channel = gate.staff(login).w("kiosk-17", 443);
    let _ = channel.write(b"ping");
    channel.finish(SOON).stdout == "ping"
}

#[test]
fn invariant_1_names_that_are_none_get_one_sentence_and_disturb_nobody() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let gate = &kiosk.gate;
    let mut neighbour = gate.staff("bob").w("kiosk-17", 443);
    neighbour.write(b"a").expect("an open channel");
    neighbour.await_stdout("a", SOON);
    let long = "k".repeat(1000);
    for host in [
        "kiosk-17,kiosk-17",
        "kiosk-?7",
        "k\u{456}osk-17",
        "kiosk-17.support.example.com..",
        "kiosk-17.support.example.org",
        "-kiosk",
        "../../etc/passwd",
        "kiosk-17%0a",
        "127.0.0.2.nip.io",
        "169.254.169.254",
        long.as_str(),
    ] {
        let done = gate.staff("alice").w_to(host, 443).finish(SOON);
        assert_eq!(done.code, Some(255), "{host}: {done:?}");
        assert!(done.stdout.is_empty());
        let refusal = done.stderr.lines().find(|line| line.contains("open failed"));
        let refusal = refusal.unwrap_or_else(|| panic!("{host}: {}", done.stderr));
        assert!(refusal.is_ascii() && refusal.len() < 400, "{host}: {refusal}");
    }
    neighbour.write(b"b").expect("the neighbour's channel");
    neighbour.await_stdout("ab", SOON);
    assert!(kiosk.client.as_ref().is_some_and(Proc::is_running));
    assert!(gate.audit().iter().all(|line| line.to_string().len() < 4096), "a line without bounds");
}

#[test]
fn a_name_of_64_kib_ends_at_most_its_own_connection() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin").user("bob")]);
    let gate = &kiosk.gate;
    let mut neighbour = gate.staff("bob").w("kiosk-17", 443);
    neighbour.write(b"a").expect("an open channel");
    neighbour.await_stdout("a", SOON);
    let key = gate.key("alice").path;
    for bytes in [8 << 10, 30 << 10, 64 << 10] {
        let told = open_once(gate.port, "alice", &key, &"k".repeat(bytes));
        let told = told.expect("a refusal");
        println!("{bytes} bytes: {told}");
        assert!(told.len() < 400, "{told}");
    }
    neighbour.write(b"b").expect("the neighbour's channel");
    neighbour.await_stdout("ab", SOON);
    assert!(echoes(gate, "alice"));
}

#[test]
fn staff_keys_of_each_kind_and_those_that_are_refused() {
    let kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let mut gate = kiosk.gate;
    let kinds: [(&str, &[&str]); 3] = [
        ("ed25519", &["-t", "ed25519"]),
        ("ecdsa", &["-t", "ecdsa", "-b", "256"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ];
    let keys: Vec<_> = kinds
        .iter()
        .map(|(name, kind)| Key::new(&gate.dir().join(format!("alice-{name}")), kind))
        .collect();
    let alice = LoginUser {
        keys: keys.iter().map(|key| key.public.clone()).collect(),
        ..gate.user("alice")
    };
    gate.put_user(alice);
    for ((name, _), key) in kinds.iter().zip(&keys) {
        let alice = gate.staff("alice").with_key(key.clone(), name);
        eventually(&format!("{name} logs in"), SOON, || alice.view(&["whoami"]).code == Some(0));
    }
    // Too short, or of a kind that nobody should use: a finding, and the object is not in force.
    let short = Key::new(&gate.dir().join("short"), &["-t", "rsa", "-b", "1024"]);
    let mallory = LoginUser { keys: vec![short.public.clone()], ..LoginUser::new("mallory") };
    gate.put(&mallory);
    let dir = gate.manifests.to_string_lossy().into_owned();
    let check = gate.command(&["check", &dir]);
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.stdout.contains("mallory") && check.stdout.contains("2048"), "{check:?}");
}

#[test]
fn many_wrong_keys_before_the_right_one_cost_no_time() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let config = gate.dir().join("many");
    let mut text = String::from("Host *\n");
    for n in 0..15 {
        let key = Key::ed25519(&gate.dir().join(format!("wrong-{n}")));
        text.push_str("  IdentityFile ");
        text.push_str(&key.path.to_string_lossy());
        text.push('\n');
    }
    text.push_str(&std::fs::read_to_string(alice.config()).expect("a configuration"));
    std::fs::write(&config, text).expect("a configuration");
    let mut command = Command::new("ssh");
    command.arg("-F").arg(&config).env_remove("SSH_AUTH_SOCK").args([
        "-p",
        &gate.port.to_string(),
        "alice@127.0.0.1",
        "whoami",
    ]);
    let begun = Instant::now();
    Proc::run("ssh with many keys", &mut command, SOON).ok();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: a refused key costs a sleep");
}

#[test]
fn a_port_below_1024_names_what_it_takes() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("LEFT OUT: only root can drop the capability before the relay starts");
        return;
    }
    let gate = Setup::new().user(LoginUser::new("alice")).write();
    let serve = gate.serve();
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"])
        .arg(serve.get_program())
        .args(serve.get_args())
        .args(["--listen", "127.0.0.1:81"]);
    let done = Proc::run("serve without the capability", &mut command, SOON);
    assert_ne!(done.code, Some(0));
    for part in ["81", "ip_unprivileged_port_start", "CAP_NET_BIND_SERVICE"] {
        assert!(done.stderr.contains(part), "'{part}' is not in: {}", done.stderr);
    }
}

#[test]
fn a_tenants_users_windows_and_terminals_are_its_own() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = kiosk.gate;
    let mesh = "apiVersion: tidegate.dev/v1alpha1\nkind: Mesh\nmetadata: {name: prod, namespace: default}\n\
                spec:\n  domain: support.example.com\n  tenants:\n    from: Selector\n    selector:\n      \
                matchLabels: {tenant: \"yes\"}\n";
    gate.put_text("mesh.yaml", mesh);
    let carol = gate.key("carol");
    let terminal = gate.key("till-3");
    let of_acme = |text: String| text.replace("namespace: default", "namespace: acme");
    let user = LoginUser { keys: vec![carol.public.clone()], ..LoginUser::new("carol") };
    let till = Terminal {
        keys: vec![terminal.public.clone()],
        ..Terminal::new("till-3").service("web", 443, Some(23_000))
    };
    let window =
        SupportWindow::open("tills", "carol.acme", "till-3").user("alice").services(&["web"]);
    // It names a terminal of another namespace too, which gives it nothing.
    let stretched = SupportWindow::open("stretched", "carol.acme", "kiosk-17").services(&["web"]);
    let text = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: acme, labels: {tenant: \"yes\"}}\n"
            .to_owned(),
        of_acme(user.yaml()),
        of_acme(till.yaml()),
        of_acme(window.yaml()),
        of_acme(stretched.yaml()),
    ];
    gate.put_text("acme.yaml", &text.join("---\n"));
    let staff = gate.staff("carol").as_login("carol.acme");
    eventually("the tenant is in force", SOON, || {
        staff.view(&["terminals"]).stdout.contains("till-3")
    });
    gate.start_client("till-3", 23_000, kiosk.echo.port(), |gate| {
        for (who, staff) in [("carol.acme", staff.clone()), ("alice", gate.staff("alice"))] {
            let mut channel = staff.w("till-3", 443);
            channel.write(b"ping").expect("an open channel");
            channel.await_stdout("ping", SOON);
            assert_eq!(channel.finish(SOON).code, Some(0), "{who}");
        }
        let elsewhere = staff.refused("kiosk-17", 443);
        assert_eq!(elsewhere.code, Some(255), "a window reaches another namespace's terminal");
        let plain = gate.staff("carol").view(&["whoami"]);
        assert!(!plain.stdout.contains("login: carol\n"), "{plain:?}");
    });
}

#[test]
fn a_drain_ends_sessions_at_its_timeout() {
    let kiosk = Kiosk::with(|setup| {
        setup.relay_spec("  drain: {timeout: 3s}\n").window(alice_everywhere("berlin"))
    });
    let mut session = kiosk.gate.staff("alice").w("kiosk-17", 443);
    session.write(b"ping").expect("an open channel");
    session.await_stdout("ping", SOON);
    let begun = Instant::now();
    kiosk.gate.relay().signal(rustix::process::Signal::TERM);
    let exit = session.exit(SOON);
    let lasted = exit.at.saturating_duration_since(begun);
    assert!(lasted >= Duration::from_millis(2900) && lasted < Duration::from_secs(5), "{lasted:?}");
    assert!(session.stderr().contains("shutting down"), "{}", session.stderr());
    assert_eq!(kiosk.gate.relay().exit(SOON).code, Some(0));
    kiosk.gate.await_audit("the session's end", SOON, |line| line["endedBy"] == "Drain");
}

#[test]
fn what_is_never_done_is_refused_plainly_and_told_by_why() {
    let kiosk = Kiosk::open(&[alice_everywhere("berlin")]);
    let gate = &kiosk.gate;
    let alice = gate.staff("alice");
    let socket = gate.dir().join("docker.sock");
    let forward = format!("{}:/run/docker.sock", socket.display());
    let client = Proc::start("ssh -L unix", &mut alice.relay(&["-N", "-v", "-L", &forward]));
    client.await_stderr("Entering interactive session", SOON);
    let mut peer = std::os::unix::net::UnixStream::connect(&socket).expect("the forward");
    let _ = std::io::Read::read_to_end(&mut peer, &mut Vec::new());
    client.await_stderr("open failed", SOON);
    assert!(client.is_running());
    let port = ports::free();
    let back = format!("{port}:127.0.0.1:1");
    let mut command = alice.relay(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &back]);
    assert_eq!(Proc::run("alice -R", &mut command, SOON).code, Some(255));
    eventually("why tells of both", SOON, || {
        let told = alice.view(&["why", "kiosk-17"]).stdout + &alice.view(&[]).stdout;
        told.contains("Unix socket") && told.contains("-R")
    });
}
