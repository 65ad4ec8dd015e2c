//! Who gets in, what the others are told, and what an unauthenticated peer may cost.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidegate_relay::accept::Caps;
use tidegate_relay::ssh::{Ended, SessionKind, VERSION};

use crate::client::{ALL, Kind, Running, key, keygen};
use crate::gate::{Gate, Seen};

#[test]
fn a_known_key_runs_a_command() {
    let gate = Gate::new();
    for kind in ALL {
        let left = Running::start(gate.client(kind, "alice", "good", &[], &["status 7"])).end();
        assert_eq!((left.status, left.stdout.as_slice()), (7, &b"out\n"[..]), "{kind:?}: {left:?}");
        assert!(left.stderr.contains("err\n"), "{kind:?}: {left:?}");
        let Seen::Authenticated { user, client, .. } = gate.next() else { panic!("{kind:?}") };
        assert_eq!(user, "alice");
        assert!(client.starts_with("SSH-2.0-"), "{client}");
        let kind = SessionKind::Exec("status 7".to_owned());
        assert!(matches!(gate.next(), Seen::Session { kind: it, pty: false } if it == kind));
        assert!(matches!(gate.next(), Seen::Over));
    }
    assert!(gate.writes.load(std::sync::atomic::Ordering::Relaxed) > 0);
    assert_eq!(gate.budget.open(), 0);
}

#[test]
fn rsa_gets_in_with_sha2_and_not_with_sha1() {
    let gate = Gate::new();
    let ssh = gate.client(Kind::OpenSsh, "alice", "rsa", &[], &["status 0"]);
    assert_eq!(Running::start(ssh).end().status, 0);
    let told = gate.client(Kind::OpenSsh, "alice", "rsa", &["-v"], &["status 0"]);
    let told = Running::start(told).end().stderr;
    let told = told.lines().find(|line| line.contains("server-sig-algs=")).unwrap();
    assert!(told.contains("rsa-sha2-512") && !told.contains("ssh-rsa"), "{told}");
    let sha1 = ["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"];
    let left =
        Running::start(gate.client(Kind::OpenSsh, "alice", "rsa", &sha1, &["status 0"])).end();
    assert_eq!(left.status, 255, "{left:?}");
}

#[test]
fn every_cipher_and_key_exchange_that_is_offered_works() {
    let gate = Gate::new();
    let ciphers =
        ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com"];
    let exchanges = ["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"];
    for (cipher, exchange) in ciphers.into_iter().zip(exchanges) {
        let exchange = format!("KexAlgorithms={exchange}");
        let ssh = gate.ssh(&["-c", cipher, "-o", &exchange], &["status 0"]);
        let left = Running::start(ssh).end();
        assert_eq!(left.status, 0, "{cipher} {exchange} {left:?}");
    }
    let old = gate.ssh(&["-c", "aes128-ctr"], &["status 0"]);
    let left = Running::start(old).end();
    assert!(left.stderr.contains("no matching cipher"), "{left:?}");
}

#[test]
fn an_unknown_key_is_denied_the_same_whatever_the_name() {
    let gate = Gate::new();
    let told = |kind, user| {
        let left = Running::start(gate.client(kind, user, "bad", &[], &["status 0"])).end();
        assert_ne!(left.status, 0, "{left:?}");
        left.stderr.replace(user, "USER")
    };
    for kind in ALL {
        let alice = told(kind, "alice");
        assert_eq!(alice, told(kind, "mallory"), "{kind:?}");
        let words = match kind {
            Kind::OpenSsh => "Permission denied (publickey)",
            Kind::Dropbear => "No auth methods could be used",
            Kind::Putty => "No supported authentication methods available",
        };
        assert!(alice.contains(words), "{kind:?}: {alice}");
    }
    gate.wait_for_budget();
    assert!(gate.nothing_more() || gate.budget.open() == 0);
}

#[test]
fn the_21st_key_is_one_too_many_and_says_so() {
    let gate = Gate::new();
    let names: Vec<String> = (0..21).map(|i| format!("extra{i}")).collect();
    for name in &names {
        keygen(&gate.path(name), "ed25519");
    }
    // OpenSSH offers them in this order; the key of `client` comes first and is the unknown one.
    let with = |count: usize| {
        let mut options = Vec::new();
        for name in names.iter().take(count).map(String::as_str).chain(["good"]) {
            options.push("-i".to_owned());
            let path = if name == "good" { key(name) } else { gate.path(name) };
            options.push(path.display().to_string());
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Running::start(gate.client(Kind::OpenSsh, "alice", "bad", &options, &["status 0"])).end()
    };
    let left = with(18);
    assert_eq!(left.status, 0, "the 20th is the right one: {left:?}");
    let left = with(20);
    assert_eq!(left.status, 255, "{left:?}");
    assert!(left.stderr.contains("too many keys were offered"), "{left:?}");
    assert!(left.stderr.contains("Received disconnect"), "{left:?}");
}

#[test]
fn a_panic_ends_its_own_connection_alone() {
    let gate = Gate::new();
    let mut neighbour = Running::start(gate.ssh(&["-W", "echo:22"], &[]));
    let connection = gate.authenticated();
    let left =
        Running::start(gate.client(Kind::OpenSsh, "panic", "good", &[], &["status 0"])).end();
    assert_eq!(left.status, 255, "{left:?}");
    gate.wait(|seen| matches!(seen, Seen::Over).then_some(()));
    gate.runtime.block_on(async {
        let counted = async {
            while gate.supervisor.panics() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), counted).await.expect("it is not counted");
    });
    assert!(!connection.is_closed());
    neighbour.feed(b"still here".to_vec());
    assert_eq!(neighbour.end_as_is().stdout, b"still here");
}

/// Reads until the gate closes the connection, and says how long that took.
fn until_closed(socket: &mut TcpStream) -> (Vec<u8>, Duration) {
    let begun = Instant::now();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the gate keeps the connection: {error}"),
        }
    }
    (text, begun.elapsed())
}

#[test]
fn a_silent_peer_sees_the_banner_and_is_gone_after_the_grace() {
    let gate = Gate::with(
        |settings| {
            settings.sniff_silence = Duration::from_millis(50);
            settings.login_grace = Duration::from_millis(400);
        },
        Caps::default(),
    );
    for hello in ["", "SSH-2.0-nobody\r\n", "SSH-"] {
        let mut socket = TcpStream::connect(("127.0.0.1", gate.port)).unwrap();
        socket.write_all(hello.as_bytes()).unwrap();
        let (text, took) = until_closed(&mut socket);
        assert!(text.starts_with(format!("{VERSION}\r\n").as_bytes()), "{hello:?} {text:?}");
        let words = String::from_utf8_lossy(&text);
        assert!(words.contains("no key was proven within"), "{hello:?} {words:?}");
        assert!(took >= Duration::from_millis(300), "{hello:?} {took:?}");
    }
    gate.wait_for_budget();
}

#[test]
fn what_is_not_ssh_gets_one_line_and_is_closed() {
    let gate = Gate::new();
    for (hello, answer) in [
        (&b"SSL-"[..], "This is a Tidegate relay; it speaks SSH on this port"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        (
            b"PROXY UNKNOWN\r\n",
            "This is a Tidegate relay: a PROXY protocol header comes from outside",
        ),
        // No certificate was given: the alert handshake_failure.
        (b"\x16\x03\x01\x02\x00\x01", "\x15\x03\x03\x00\x02\x02\x28"),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", gate.port)).unwrap();
        socket.write_all(hello).unwrap();
        let (text, _) = until_closed(&mut socket);
        let text = String::from_utf8_lossy(&text);
        assert!(text.starts_with(answer), "{text}");
    }
    // SSH at first sight, and then nonsense: closed, and nobody else notices.
    let mut noise: Vec<u8> = b"SSH-2.0-x\r\n".to_vec();
    noise.extend(crate::client::bytes(64 * 1024));
    for hello in [
        &b"SSH-1.5-old\r\n"[..],
        b"SSH-nonsense\n",
        &noise,
        &[b"SSH-".as_slice(), &[b'x'; 4096]].concat(),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", gate.port)).unwrap();
        // The gate may be gone before all of it is written.
        let _ = socket.write_all(hello);
        until_closed(&mut socket);
    }
    gate.wait_for_budget();
    assert_eq!(gate.supervisor.panics(), 0);
    assert_eq!(Running::start(gate.ssh(&[], &["status 0"])).end().status, 0);
}

#[test]
fn a_crowd_from_one_source_makes_way_for_a_login() {
    let gate = Gate::with(|_| {}, Caps { unauthenticated: 8, per_source: 4 });
    let mut crowd: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(("127.0.0.1", gate.port)).unwrap()).collect();
    let staff = Running::start(gate.ssh(&["-W", "echo:22"], &[]));
    let connection = gate.authenticated();
    assert_eq!(gate.budget.take_gave_way().per_source, 1);
    let (text, _) = until_closed(&mut crowd[0]);
    assert!(text.is_empty(), "the oldest made way");
    // One that has proven a key never does.
    crowd.extend((0..8).map(|_| TcpStream::connect(("127.0.0.1", gate.port)).unwrap()));
    until_closed(&mut crowd[7]);
    assert!(!connection.is_closed());
    let ended = staff.end();
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(connection.ended().unwrap_or(Ended::Closed), Ended::Closed);
}

impl Gate {
    /// Waits until nobody is left in the budget.
    fn wait_for_budget(&self) {
        self.runtime.block_on(async {
            let empty = async {
                while self.budget.open() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), empty).await.expect("the budget leaks");
        });
    }
}
