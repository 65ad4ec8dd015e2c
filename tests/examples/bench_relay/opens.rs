//! Channel opens at a steady rate, each until the terminal's first byte. They are due by the clock,
//! whether the relay keeps up or not, and each is counted from when it was due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_ssh_client::driver::Connection;
use tokio::runtime::Runtime;

use crate::client::{key, log_in, open};
use crate::compare::{Plan, Row, compare, percentile};
use crate::metric::Metric;
use crate::relays::{Relay, both};

/// Terminals, each with a connection of staff for itself: one connection carries 256 channels.
const TERMINALS: usize = 16;

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub per_second: u32,
    pub seconds: u32,
}

/// One relay with its terminals and staff. Fields are dropped in this order: an sshd ends with its
/// clients.
struct Scene {
    terminals: Vec<Connection>,
    staff: Vec<Arc<Connection>>,
    relay: Relay,
}

pub fn opens(plan: &Plan, load: Load, runtime: &Runtime) -> Vec<Row> {
    let scenes = both(TERMINALS).map(|relay| runtime.block_on(scene(relay)));
    let setting = format!("{} each second for {} s", load.per_second, load.seconds);
    let metrics = [Metric::OpenRate, Metric::OpenRefused, Metric::OpenMedian, Metric::OpenP99];
    let sample = |which: usize| {
        let scene = &scenes[which];
        let (rate, refused, times) = runtime.block_on(run(scene, load));
        vec![rate, refused, percentile(times.clone(), 0.5), percentile(times, 0.99)]
    };
    compare(plan, "opens", &setting, &metrics, sample)
}

async fn scene(relay: Relay) -> Scene {
    let mut scene = Scene { terminals: Vec::new(), staff: Vec::new(), relay };
    let relay = &scene.relay;
    let login = key(&relay.staff);
    for place in &relay.places {
        let terminal = log_in(relay.port, &place.login.user, key(&place.login)).await;
        terminal.forward(u32::from(place.listen)).await.expect("a forward");
        let staff = log_in(relay.port, &relay.staff.user, login.clone()).await;
        // The first begins the session, which is written down.
        open(&staff, &place.target).await.expect("an open");
        scene.terminals.push(terminal);
        scene.staff.push(Arc::new(staff));
    }
    scene
}

/// Opens answered each second, how many were refused, and how long each of the others took in ms. A
/// relay that is behind may refuse some, since it bounds what a terminal has not answered.
async fn run(scene: &Scene, load: Load) -> (f64, f64, Vec<f64>) {
    let begun = Instant::now() + Duration::from_millis(50);
    let step = Duration::from_secs(1) / load.per_second;
    let mut opening = Vec::new();
    for n in 0..load.per_second * load.seconds {
        let due = begun + step * n;
        tokio::time::sleep_until(due.into()).await;
        let index = n as usize % scene.staff.len();
        let staff = Arc::clone(&scene.staff[index]);
        let target = scene.relay.places[index].target.clone();
        opening.push(tokio::spawn(async move {
            open(&staff, &target).await.map(|()| (due, Instant::now()))
        }));
    }
    let (mut times, mut refusals, mut last) = (Vec::new(), Vec::new(), begun);
    for opening in opening {
        match opening.await.expect("an open's task") {
            Ok((due, at)) => {
                times.push(at.saturating_duration_since(due).as_secs_f64() * 1e3);
                last = last.max(at);
            }
            Err(error) => refusals.push(error),
        }
    }
    if let Some(error) = refusals.first() {
        eprintln!("opens: {}: {} were refused: {error}", scene.relay.name, refusals.len());
    }
    assert!(!times.is_empty(), "{} answered no open", scene.relay.name);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let (answered, refused) = (times.len() as f64, refusals.len() as f64);
    (answered / last.saturating_duration_since(begun).as_secs_f64(), refused, times)
}
