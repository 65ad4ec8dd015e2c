//! Invariant 2 with a thousand sessions that share one deadline.

use std::time::{Duration, Instant};

use tidegate_tests::clients::{Forward, Program};
use tidegate_tests::clock::{after, monotonic};
use tidegate_tests::crowd::Crowd;
use tidegate_tests::http::metric;
use tidegate_tests::manifest::{LoginUser, SupportWindow, Terminal, in_seconds};
use tidegate_tests::programs::Build;
use tidegate_tests::{Echo, SOON, Setup, eventually};

const SESSIONS: usize = 1000;
/// One terminal's connection carries 256 channels at most.
const TERMINALS: usize = 8;

#[test]
fn invariant_2_a_thousand_sessions_with_one_deadline() {
    let names: Vec<String> = (0..TERMINALS).map(|n| format!("kiosk-{n}")).collect();
    let echo = Echo::start();
    let window = {
        let mut window = SupportWindow::open("berlin", "alice", &names[0]).services(&["web"]);
        window.terminals.clone_from(&names);
        window
    };
    // As released: the promise of one second is the product's, not the debug build's.
    let mut setup = Setup::new()
        .build(Build::Release)
        .relay_spec("  limits: {sessionsPerUser: 1000, connectionsPerUser: 2000, handshakesPerSource: 1000}\n")
        .user(LoginUser::new("alice"))
        .window(window.clone());
    for (n, name) in (0_u16..).zip(&names) {
        setup = setup.terminal(Terminal::new(name).service("web", 443, Some(20_000 + n)));
    }
    let gate = setup.start();
    let _clients: Vec<_> = (0_u16..)
        .zip(&names)
        .map(|(n, name)| {
            let forward = [Forward::port(20_000 + n, echo.port())];
            let client = gate.clients_of(name).start(Program::OpenSsh, &forward);
            gate.await_offer(name, "web");
            client
        })
        .collect();
    let targets: Vec<_> = (0..SESSIONS).map(|n| (names[n % names.len()].clone(), 443)).collect();
    let begun = Instant::now();
    let crowd = Crowd::gather(gate.port, "alice", &gate.key("alice").path, &targets);
    println!("{} sessions after {:?}", crowd.len(), begun.elapsed());
    assert_eq!(metric(gate.admin, "tidegate_sessions_current"), Some(1000.0));

    // One edit gives all of them one deadline.
    let closes = in_seconds(5);
    gate.put(&window.closing_at(closes));
    let closes = monotonic(closes);
    let ends = crowd.ends(Duration::from_secs(30));
    let still: usize = ends.iter().filter(|end| end.is_none()).count();
    assert_eq!(still, 0, "{still} sessions were not cut");
    let mut late: Vec<_> = ends.into_iter().flatten().map(|end| after(closes, end)).collect();
    late.sort();
    let (p50, p99, worst) = (late[SESSIONS / 2], late[SESSIONS * 99 / 100], late[SESSIONS - 1]);
    println!("{SESSIONS} sessions with one deadline: p50 {p50:?}, p99 {p99:?}, worst {worst:?}");
    assert!(worst <= Duration::from_secs(1), "the last of them was cut {worst:?} late");
    eventually("every end is recorded", SOON, || {
        gate.audit().iter().filter(|line| line["endedBy"] == "Deadline").count() == SESSIONS
    });
    let overrun =
        gate.audit().iter().filter_map(|line| line["overrunMs"].as_u64()).max().expect("an end");
    assert!(overrun <= 1000, "by the relay's own clock {overrun} ms late");
    eventually("nothing is left", SOON, || {
        metric(gate.admin, "tidegate_sessions_current") == Some(0.0)
    });
    drop(crowd);
}
