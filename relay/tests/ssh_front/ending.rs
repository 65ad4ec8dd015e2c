//! How connections end: on time, whatever the peer does, with its reason where it can still read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tidegate_relay::accept::Caps;
use tidegate_relay::ssh::{BeforeWrite, Connection, Ended, Reason};

use crate::client::{ALL, Kind, Running, bytes};
use crate::gate::{Gate, SERVICE, Seen, UNANSWERED};

const REASON: &str = "window acme/berlin closed at 2026-12-01T20:00:00Z";

#[test]
fn a_disconnect_is_read_by_the_person() {
    let gate = Gate::new();
    for kind in ALL {
        let forward = format!("{SERVICE}:127.0.0.1:1");
        let mut client =
            Running::start(gate.client(kind, "alice", "good", &["-N", "-R", &forward], &[]));
        let connection = gate.authenticated();
        gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
        connection.disconnect(Reason::ByApplication, REASON);
        let left = client.end_as_is();
        gate.over_within_a_second(&connection);
        let (status, words) = match kind {
            Kind::OpenSsh => (255, format!(":11: {REASON}")),
            Kind::Dropbear => (0, "Disconnect received".to_owned()),
            Kind::Putty => (1, REASON.to_owned()),
        };
        assert_eq!(left.status, status, "{kind:?} {left:?}");
        assert!(left.stderr.contains(&words), "{kind:?} {left:?}");
        assert_eq!(connection.ended(), Some(Ended::Closed), "{kind:?}");
    }
}

#[test]
fn a_disconnect_with_an_open_channel_comes_before_any_close() {
    let gate = Gate::new();
    let mut client = Running::start(gate.ssh(&["-W", "echo:22"], &[]));
    let connection = gate.authenticated();
    let opened = |seen| match seen {
        Seen::Open { host } => Some(host),
        _ => None,
    };
    assert_eq!(gate.wait(opened), "echo");
    connection.disconnect(Reason::ByApplication, REASON);
    let left = client.end_as_is();
    assert_eq!(left.status, 255, "{left:?}");
    assert!(left.stderr.contains(REASON), "{left:?}");
    gate.over_within_a_second(&connection);
}

#[test]
fn a_stopped_client_with_a_full_window_is_gone_at_once() {
    let gate = Gate::new();
    for graceful in [false, true] {
        let mut client = Running::start(gate.ssh(&["-W", "flood:22"], &[]));
        let connection = gate.authenticated();
        gate.wait(|seen| matches!(seen, Seen::Open { .. }).then_some(()));
        client.signal(Signal::STOP);
        gate.until_quiet(&connection, 50_000);
        if graceful {
            connection.disconnect(Reason::ByApplication, REASON);
        } else {
            connection.kill();
        }
        gate.over_within_a_second(&connection);
        assert_eq!(connection.ended(), Some(Ended::Killed));
        client.signal(Signal::CONT);
        let left = client.end_as_is();
        assert_eq!(left.status, 255, "{}", left.stderr);
    }
}

#[test]
fn a_channel_that_nobody_reads_does_not_outlive_its_connection() {
    let gate = Gate::new();
    let mut client = Running::start(gate.ssh(&["-W", "sink:22"], &[]));
    client.feed(bytes(32 << 20));
    let connection = gate.authenticated();
    gate.wait(|seen| matches!(seen, Seen::Open { .. }).then_some(()));
    gate.until_quiet(&connection, 60_000);
    let (taken, _) = connection.bytes();
    assert!(taken < 200_000, "what nobody reads is bounded: {taken}");
    connection.kill();
    gate.over_within_a_second(&connection);
    assert_eq!(client.end_as_is().status, 255);
}

#[test]
fn a_kill_does_not_wait_for_an_unanswered_request() {
    let gate = Gate::new();
    let forward = format!("{UNANSWERED}:127.0.0.1:1");
    let mut client = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    let connection = gate.authenticated();
    gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
    connection.kill();
    gate.over_within_a_second(&connection);
    assert_eq!(client.end_as_is().status, 255);
}

#[test]
fn a_kill_in_mid_rekey() {
    let gate = Gate::new();
    let ssh = gate.ssh(&["-o", "RekeyLimit=16K", "-W", "echo:22"], &[]);
    let mut client = Running::start(ssh);
    client.feed(bytes(64 << 20));
    let connection = gate.authenticated();
    gate.runtime.block_on(async {
        while connection.bytes().0 < 200_000 {
            tokio::task::yield_now().await;
        }
    });
    client.signal(Signal::STOP);
    connection.disconnect(Reason::ByApplication, REASON);
    gate.over_within_a_second(&connection);
    client.signal(Signal::CONT);
    assert_eq!(client.end_as_is().status, 255);
}

#[test]
fn a_sign_of_life_is_one() {
    let gate = Gate::new();
    for kind in ALL {
        let forward = format!("{SERVICE}:127.0.0.1:1");
        let client =
            Running::start(gate.client(kind, "alice", "good", &["-N", "-R", &forward], &[]));
        let connection = gate.authenticated();
        gate.wait(|seen| matches!(seen, Seen::Forward { .. }).then_some(()));
        let alive = |within| gate.runtime.block_on(connection.alive(Duration::from_millis(within)));
        for _ in 0..3 {
            assert!(alive(3000), "{kind:?}");
        }
        client.signal(Signal::STOP);
        assert!(!alive(300), "{kind:?}");
        client.signal(Signal::CONT);
        assert!(alive(3000), "{kind:?}");
        let left = client.stop();
        for word in ["alive@tidegate.dev", "ancel", "nknown", "nexpected"] {
            assert!(!left.stderr.contains(word), "{kind:?} {left:?}");
        }
        gate.runtime.block_on(connection.closed());
        assert!(!alive(300));
    }
}

/// A gate that takes a peer for dead after three times 200 ms.
fn impatient() -> Gate {
    let keepalive = Duration::from_millis(200);
    Gate::with(|settings| settings.keepalive = keepalive, Caps::default())
}

#[test]
fn a_peer_that_reads_no_more_is_noticed_behind_a_full_window() {
    let gate = impatient();
    let client = Running::start(gate.ssh(&["-W", "flood:22"], &[]));
    let connection = gate.authenticated();
    gate.wait(|seen| matches!(seen, Seen::Open { .. }).then_some(()));
    client.signal(Signal::STOP);
    gate.runtime.block_on(async {
        let dead = tokio::time::timeout(Duration::from_secs(15), connection.closed()).await;
        assert!(dead.is_ok(), "a stopped peer is dead");
    });
    assert_eq!(connection.ended(), Some(Ended::Dead));
}

#[test]
fn a_dead_peer_is_noticed() {
    let gate = impatient();
    let forward = format!("{SERVICE}:127.0.0.1:1");
    let client = Running::start(gate.ssh(&["-N", "-R", &forward], &[]));
    let connection = gate.authenticated();
    gate.runtime.block_on(async {
        let early = tokio::time::timeout(Duration::from_millis(1500), connection.closed()).await;
        assert!(early.is_err(), "a live peer answers keepalives");
        client.signal(Signal::STOP);
        let dead = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
        assert!(dead.is_ok(), "a stopped peer is dead");
    });
    assert_eq!(connection.ended(), Some(Ended::Dead));
}

#[test]
fn nothing_is_written_once_the_sweep_before_it_has_killed() {
    let victim: Arc<Mutex<Option<Connection>>> = Arc::default();
    let sweep = Arc::clone(&victim);
    let gate = Gate::with(
        move |settings| {
            settings.before_write = BeforeWrite(Arc::new(move || {
                if let Some(connection) = sweep.lock().unwrap().take() {
                    connection.kill();
                }
            }));
        },
        Caps::default(),
    );
    let mut client = Running::start(gate.ssh(&["-W", "echo:22"], &[]));
    let connection = gate.authenticated();
    gate.wait(|seen| matches!(seen, Seen::Open { .. }).then_some(()));
    gate.until_quiet(&connection, 1000);
    let (_, written) = connection.bytes();
    *victim.lock().unwrap() = Some(connection.clone());
    client.feed(b"too late".to_vec());
    let left = client.end_as_is();
    assert_eq!((left.status, left.stdout.as_slice()), (255, &b""[..]), "{left:?}");
    gate.over_within_a_second(&connection);
    assert_eq!(connection.bytes().1, written);
    assert_eq!(connection.ended(), Some(Ended::Killed));
}
