//! Channels: what goes through them, both ways, and what is refused with which words.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tidegate_relay::accept::Caps;
use tidegate_relay::ssh::{Ended, Reason, SessionKind};

use crate::client::{ALL, Kind, Running, bytes, echo_service};
use crate::gate::{Gate, SENTENCE, SERVICE, Seen};

#[test]
fn a_refused_channel_carries_its_sentence() {
    let gate = Gate::new();
    let left = Running::start(gate.ssh(&["-W", "refuse:22"], &[])).end();
    let words = format!("open failed: administratively prohibited: {SENTENCE}");
    assert!(left.stderr.contains(&words), "{left:?}");
    assert_ne!(left.status, 0);
    let left =
        Running::start(gate.client(Kind::Putty, "alice", "good", &["-nc", "refuse:22"], &[])).end();
    assert!(left.stderr.contains(SENTENCE), "{left:?}");
}

#[test]
fn half_close_and_a_megabyte_both_ways() {
    let gate = Gate::new();
    for (kind, option) in [(Kind::OpenSsh, "-W"), (Kind::Dropbear, "-B"), (Kind::Putty, "-nc")] {
        let data = bytes(1 << 20);
        let mut client =
            Running::start(gate.client(kind, "alice", "good", &[option, "echo:22"], &[]));
        client.feed(data.clone());
        let left = client.end_as_is();
        assert_eq!(left.status, 0, "{kind:?} {}", left.stderr);
        assert!(left.stdout == data, "{kind:?}: {} bytes came back", left.stdout.len());
    }
}

#[test]
fn data_survives_rekeying() {
    let gate = Gate::new();
    // With the lower limit it is hundreds of exchanges, one for nearly each packet.
    for (limit, size) in [("1M", 16 << 20), ("4K", 4 << 20)] {
        let data = bytes(size);
        let option = format!("RekeyLimit={limit}");
        let mut client = Running::start(gate.ssh(&["-o", &option, "-W", "echo:22"], &[]));
        client.feed(data.clone());
        let left = client.end_as_is();
        assert_eq!(left.status, 0, "{limit} {}", left.stderr);
        assert!(left.stdout == data, "{limit} {} bytes came back", left.stdout.len());
    }
}

#[test]
fn terminals_are_joined_in_every_form() {
    let service = echo_service();
    for kind in ALL {
        for asked in [SERVICE, 0] {
            // plink can't ask for port 0.
            if kind == Kind::Putty && asked == 0 {
                continue;
            }
            let gate = Gate::new();
            let forward = format!("{asked}:127.0.0.1:{service}");
            let terminal =
                Running::start(gate.client(kind, "root", "good", &["-N", "-R", &forward], &[]));
            let (host, port) = gate.wait(|seen| match seen {
                Seen::Forward { host, port } => Some((host, port)),
                _ => None,
            });
            assert_eq!((host.as_str(), port), ("localhost", asked), "{kind:?}");
            let data = bytes(300_000);
            let mut staff = Running::start(gate.ssh(&["-W", "kiosk:22"], &[]));
            staff.feed(data.clone());
            let left = staff.end_as_is();
            assert_eq!(left.status, 0, "{kind:?} {}", left.stderr);
            assert!(left.stdout == data, "{kind:?} {} bytes", left.stdout.len());
            let said = terminal.stop().stderr;
            if kind == Kind::OpenSsh && asked == 0 {
                assert!(
                    said.contains(&format!("Allocated port {SERVICE} for remote forward")),
                    "{said}"
                );
            }
        }
    }
}

#[test]
fn a_refused_forward_and_a_dead_service_are_told() {
    let gate = Gate::new();
    let strict = ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "9999:127.0.0.1:1"];
    let left = Running::start(gate.ssh(&strict, &[])).end();
    assert_eq!(left.status, 255);
    assert!(left.stderr.contains("remote port forwarding failed for listen port 9999"), "{left:?}");

    // Nothing listens on port 1.
    let forward = format!("{SERVICE}:127.0.0.1:1");
    let _terminal = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    gate.wait(|seen| matches!(seen, Seen::Forward { port: SERVICE, .. }).then_some(()));
    let left = Running::start(gate.ssh(&["-W", "kiosk:22"], &[])).end();
    assert!(left.stderr.contains("the terminal refused the connection to its service"), "{left:?}");
}

#[test]
fn a_forward_is_taken_back() {
    let gate = Gate::new();
    let control = gate.path("control").display().to_string();
    let forward = format!("{SERVICE}:127.0.0.1:1");
    let master = Running::start(gate.ssh(&["-M", "-S", &control, "-N", "-R", &forward], &[]));
    gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
    let cancel = gate.ssh(&["-S", &control, "-O", "cancel", "-R", &forward], &[]);
    assert_eq!(Running::start(cancel).end().status, 0);
    let (host, port) = gate.wait(|seen| match seen {
        Seen::Cancel { host, port } => Some((host, port)),
        _ => None,
    });
    assert_eq!((host.as_str(), port), ("localhost", SERVICE));
    master.stop();
}

#[test]
fn sessions_shells_ptys_and_subsystems() {
    let gate = Gate::new();
    let mut shell = Running::start(gate.ssh(&["-tt"], &[]));
    let session = |seen| match seen {
        Seen::Session { kind, pty } => Some((kind, pty)),
        _ => None,
    };
    let connection = gate.authenticated();
    assert_eq!(gate.wait(session), (SessionKind::Shell, true));
    gate.wait(|seen| matches!(seen, Seen::Attached).then_some(()));
    // By its second answer the client has printed what came before the first.
    for _ in 0..2 {
        assert!(gate.runtime.block_on(connection.alive(std::time::Duration::from_secs(5))));
    }
    shell.signal(rustix::process::Signal::TERM);
    let left = shell.end_as_is();
    assert!(left.stdout.starts_with(b"attached\r\n"), "{left:?}");

    let left = Running::start(gate.ssh(&["-s"], &["sftp"])).end();
    assert_eq!(gate.wait(session), (SessionKind::Subsystem("sftp".to_owned()), false));
    assert_eq!(left.status, 2, "{left:?}");
    assert!(left.stderr.contains("no sftp here"), "{left:?}");

    // Many on one connection, one after the other.
    let control = gate.path("control").display().to_string();
    let master = Running::start(gate.ssh(&["-M", "-S", &control, "-N"], &[]));
    gate.authenticated();
    for status in [0, 1, 5] {
        let command = format!("status {status}");
        let left = Running::start(gate.ssh(&["-S", &control], &[&command])).end();
        assert_eq!(left.status, status, "{left:?}");
        assert_eq!(gate.wait(session).0, SessionKind::Exec(command));
    }
    assert!(gate.supervisor.tasks() <= 4, "{} tasks", gate.supervisor.tasks());
    master.stop();
}

#[test]
fn what_a_relay_never_does_is_refused_and_told() {
    let gate = Gate::new();
    let refused = |seen| match seen {
        Seen::Refused(what) => Some(what),
        _ => None,
    };
    let mut x11 = gate.ssh(&["-Y"], &["status 0"]);
    x11.env("DISPLAY", "127.0.0.1:99");
    assert_eq!(Running::start(x11).end().status, 0);
    assert_eq!(gate.wait(refused), "X11 forwarding");

    let socket = gate.path("socket").display().to_string();
    let forward = format!("{socket}:127.0.0.1:1");
    let left =
        Running::start(gate.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &forward], &[]))
            .end();
    assert_eq!(left.status, 255, "{left:?}");
    assert_eq!(gate.wait(refused), "forwarding of a Unix socket");

    let local = gate.path("local");
    let forward = format!("{}:/nowhere", local.display());
    let staff = Running::start(gate.ssh(&["-N", "-L", &forward], &[]));
    let connection = gate.authenticated();
    let mut socket = dial(&local);
    assert_eq!(gate.wait(refused), "a connection to a Unix socket");
    // The client says why, and then closes what it had accepted. A signal at that very moment it
    // would sleep over.
    let _ = socket.read(&mut [0]);
    connection.disconnect(Reason::ByApplication, "that is all");
    let said = staff.end().stderr;
    assert!(said.contains("a relay has no Unix sockets to connect to"), "{said}");
    assert_eq!(gate.supervisor.panics(), 0);
}

/// Connects to a client, which listens some time after it has logged in. It does so on a socket of
/// its own: a port that is free now may be another test's by then.
fn dial(path: &Path) -> UnixStream {
    loop {
        if let Ok(socket) = UnixStream::connect(path) {
            return socket;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_connection_has_only_so_many_channels() {
    let gate = Gate::with(|settings| settings.channels = 2, Caps::default());
    let local = gate.path("local");
    let forward = format!("{}:echo:22", local.display());
    let staff =
        Running::start(gate.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward], &[]));
    gate.authenticated();
    let greet = || {
        let mut socket = dial(&local);
        let mut answer = [0; 2];
        // One that is refused may be closed before it has said anything.
        let got = socket.write_all(b"hi").is_ok() && socket.read_exact(&mut answer).is_ok();
        (socket, got)
    };
    let first = greet();
    let second = greet();
    let third = greet();
    assert_eq!((first.1, second.1, third.1), (true, true, false));
    drop(second);
    // Its place is free as soon as the client has closed the channel.
    while !greet().1 {
        std::thread::yield_now();
    }
    let said = staff.stop().stderr;
    assert!(said.contains("this connection has 2 channels open"), "{said}");
}

#[test]
fn a_panic_over_a_terminals_connection_ends_it_alone() {
    let gate = Gate::new();
    let forward = format!("{SERVICE}:127.0.0.1:{}", echo_service());
    let mut terminal = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    let doomed = gate.authenticated();
    gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
    let locals = ["kiosk", "echo"].map(|host| (gate.path(host), host));
    let forwards = locals.clone().map(|(path, host)| format!("{}:{host}:22", path.display()));
    let _staff = Running::start(gate.ssh(&["-N", "-L", &forwards[0], "-L", &forwards[1]], &[]));
    let staff = gate.authenticated();
    let mut sockets = locals.map(|(path, _)| dial(&path));
    let greet = |socket: &mut UnixStream| {
        let mut answer = [0; 2];
        socket.write_all(b"hi").unwrap();
        socket.read_exact(&mut answer).is_ok()
    };
    assert!(sockets.iter_mut().all(greet));
    gate.boom.store(true, std::sync::atomic::Ordering::Relaxed);
    sockets[0].write_all(b"boom").unwrap();
    gate.runtime.block_on(async {
        let soon = std::time::Duration::from_secs(10);
        tokio::time::timeout(soon, doomed.closed()).await.expect("it has ended");
    });
    assert_eq!(doomed.ended(), Some(Ended::Fault));
    // It was the task of this one that had a panic in its hands.
    assert!(greet(&mut sockets[1]) && !staff.is_ending());
    assert_eq!(gate.supervisor.panics(), 1);
    // The reset tells it; a signal that overtook that would let it end in peace.
    assert_ne!(terminal.end_as_is().status, 0);
}

#[test]
fn opens_that_nobody_waits_for_any_more_make_room() {
    let gate = Gate::new();
    let forward = format!("{SERVICE}:127.0.0.1:{}", echo_service());
    let terminal = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    let connection = gate.authenticated();
    gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
    terminal.signal(rustix::process::Signal::STOP);
    gate.runtime.block_on(async {
        for open in 0..200 {
            let from = "192.0.2.7:1234".parse().unwrap();
            let asked = connection.open_forwarded("localhost", SERVICE, from);
            let soon = std::time::Duration::from_millis(5);
            let answer = tokio::time::timeout(soon, asked).await;
            assert!(answer.is_err(), "open {open}: {answer:?}");
        }
    });
    terminal.signal(rustix::process::Signal::CONT);
    // Its late answers harm nobody.
    let mut staff = Running::start(gate.ssh(&["-W", "kiosk:22"], &[]));
    staff.feed(bytes(300_000));
    assert!(staff.end_as_is().stdout == bytes(300_000));
    assert!(!connection.is_ending());
}

#[test]
fn what_staff_sent_before_leaving_arrives() {
    let gate = Gate::new();
    let data = bytes(3 << 20);
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{SERVICE}:127.0.0.1:{}", service.local_addr().unwrap().port());
    let _terminal = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
    let mut staff = Running::start(gate.ssh(&["-W", "kiosk:22"], &[]));
    let (mut socket, _) = service.accept().unwrap();
    let connection = gate.authenticated();
    staff.feed(data.clone());
    gate.until_quiet(&connection, data.len() as u64);
    // Gone before the service has read anything.
    let left = staff.stop();
    gate.runtime.block_on(connection.closed());
    let mut got = Vec::new();
    socket.read_to_end(&mut got).unwrap();
    assert!(got == data, "{} bytes arrived; {left:?}", got.len());
}

#[test]
fn a_stopped_reader_does_not_stall_its_neighbour() {
    let gate = Gate::new();
    let service = echo_service();
    let forward = format!("{SERVICE}:127.0.0.1:{service}");
    let _terminal = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
    let mut stopped = Running::start(gate.ssh(&["-W", "kiosk:22"], &[]));
    let connection = gate.authenticated();
    // As much as an inner OpenSSH may have in flight.
    stopped.feed(bytes(2 << 20));
    gate.runtime.block_on(async {
        while connection.bytes().0 < 100_000 {
            tokio::task::yield_now().await;
        }
    });
    stopped.signal(rustix::process::Signal::STOP);
    let data = bytes(4 << 20);
    let mut neighbour = Running::start(gate.ssh(&["-W", "kiosk:22"], &[]));
    neighbour.feed(data.clone());
    assert!(neighbour.end_as_is().stdout == data);
    stopped.signal(rustix::process::Signal::CONT);
    let left = stopped.end_as_is();
    assert!(left.stdout == bytes(2 << 20), "{} bytes", left.stdout.len());
}
