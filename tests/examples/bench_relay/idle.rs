//! Memory that a terminal costs which is attached and does nothing: `Private_*` of all of the
//! relay's processes with the terminals, less that without, by their number.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidegate_ssh_client::Key;
use tidegate_ssh_client::driver::Connection;
use tidegate_tests::crowd::in_turns;
use tidegate_tests::manifest::Terminal;
use tidegate_tests::usage::{family, private_kib};
use tokio::runtime::Runtime;

use crate::client::{key, log_in};
use crate::compare::{Plan, Row, compare};
use crate::metric::{Metric, Wanted};
use crate::relays::Relay;

/// What memory may still move between two looks once it has settled, in KiB.
const STILL: u64 = 256;

/// How many terminals on each relay: sshd has a process of its own for each.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub tidegate: u32,
    pub sshd: u32,
}

pub fn memory(plan: &Plan, counts: Counts, runtime: &Runtime) -> Vec<Row> {
    let setting = format!("{} on tidegate, {} on sshd", counts.tidegate, counts.sshd);
    let sample = |which| {
        if which == 0 {
            let relay = Relay::tidegate_with(0, |setup| declare(setup, counts.tidegate));
            let keys: Vec<_> = (0..counts.tidegate).map(Key::numbered).collect();
            vec![each(&relay, "terminal", &keys, runtime)]
        } else {
            let relay = Relay::openssh(0);
            let key = key(&relay.staff);
            let keys: Vec<_> = (0..counts.sshd).map(|_| key.clone()).collect();
            vec![each(&relay, &relay.staff.user, &keys, runtime)]
        }
    };
    let mut rows = compare(plan, "idle", &setting, &[Metric::Memory], sample);
    for row in &mut rows {
        row.wanted = Some(Wanted::at_most(24.0, 12.0));
    }
    rows
}

fn declare(setup: tidegate_tests::Setup, count: u32) -> tidegate_tests::Setup {
    (0..count).fold(setup, |setup, n| {
        let mut terminal = Terminal::new(&format!("idle-{n}")).service("web", 443, None);
        terminal.keys.push(Key::numbered(n).public());
        setup.terminal(terminal)
    })
}

/// KiB for each of as many terminals as there are keys.
fn each(relay: &Relay, user: &str, keys: &[Key], runtime: &Runtime) -> f64 {
    let pid = relay.pid();
    let before = settled(pid);
    let begun = Instant::now();
    let clients = runtime.block_on(attach(relay.port, user, keys));
    eprintln!("idle: {}: {} attached in {:?}", relay.name, clients.len(), begun.elapsed());
    let after = settled(pid);
    let left = clients.iter().filter(|client| client.ended().is_none()).count();
    assert_eq!(left, keys.len(), "{} ended some that were idle", relay.name);
    drop(clients);
    #[expect(clippy::cast_precision_loss, reason = "a few GiB in KiB fit an f64")]
    let (all, count) = (after.saturating_sub(before) as f64, keys.len() as f64);
    all / count
}

async fn attach(port: u16, user: &str, keys: &[Key]) -> Vec<Connection> {
    let attached = in_turns(keys.iter().cloned(), |key| {
        let user = user.to_owned();
        async move {
            let client = log_in(port, &user, key).await;
            client.forward(0).await.expect("a forward");
            client
        }
    });
    attached.await
}

/// The private memory of a process and its descendants, once it stands still for two seconds.
fn settled(pid: i32) -> u64 {
    let look = || {
        let pids: BTreeSet<i32> = family(pid);
        private_kib(&pids)
    };
    let until = Instant::now() + Duration::from_secs(20);
    let (mut last, mut still) = (look(), 0);
    while still < 4 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(500));
        let now = look();
        still = if now.abs_diff(last) <= STILL { still + 1 } else { 0 };
        last = now;
    }
    last
}
