//! Sessions that share one deadline, and how long after it the last of them was cut. sshd has no
//! deadlines, so there is nothing to compare with; the promise is one second.

use std::time::Duration;

use tidegate_tests::clock::{after, monotonic};
use tidegate_tests::crowd::Crowd;
use tidegate_tests::manifest::in_seconds;
use tidegate_tests::{Echo, Proc};

use crate::compare::{Plan, Row, percentile};
use crate::metric::{Metric, Wanted};
use crate::relays::Relay;
use crate::transfer::CIPHERS;

/// One terminal's connection carries 256 channels.
const TERMINALS: usize = 8;
const WITHIN: Duration = Duration::from_secs(30);

pub fn cut(plan: &Plan, sessions: usize) -> Vec<Row> {
    let setting = format!("{sessions} sessions with one deadline");
    let metrics = [(0.5, Metric::CutMedian), (0.99, Metric::CutP99), (1.0, Metric::CutWorst)];
    let mut values = [const { Vec::new() }; 3];
    for _ in 0..plan.rounds.max(1) {
        let late = round(sessions);
        for (into, (part, _)) in values.iter_mut().zip(metrics) {
            into.push(percentile(late.clone(), part));
        }
        eprintln!("cut: {setting}: {values:.1?}");
    }
    let rows = metrics.into_iter().zip(values);
    rows.map(|((_, metric), values)| Row {
        wanted: (metric == Metric::CutWorst).then(|| Wanted::at_most(1000.0, 1000.0)),
        ..Row::alone("cut", &setting, metric, values)
    })
    .collect()
}

/// By how many ms each session outlived its deadline.
fn round(sessions: usize) -> Vec<f64> {
    let relay = Relay::tidegate(TERMINALS);
    let gate = relay.gate().expect("this relay");
    let window = relay.window.clone().expect("a window over the terminals");
    let echo = Echo::start();
    let attach = |place| relay.attach(relay.port, CIPHERS[0], place, echo.port());
    let _clients: Vec<Proc> = (0..TERMINALS).map(attach).collect();
    let targets: Vec<_> =
        relay.places.iter().cycle().take(sessions).map(|place| place.target.clone()).collect();
    let crowd = Crowd::gather(gate.port, &relay.staff.user, &relay.staff.key, &targets);
    // One edit gives all of them one deadline.
    let closes = in_seconds(5);
    gate.put(&window.closing_at(closes));
    let closes = monotonic(closes);
    let ends = crowd.ends(WITHIN);
    let late: Vec<f64> =
        ends.into_iter().flatten().map(|end| after(closes, end).as_secs_f64() * 1e3).collect();
    assert_eq!(late.len(), sessions, "some sessions were not cut within {WITHIN:?}");
    late
}
