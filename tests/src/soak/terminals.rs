//! Terminals as stock `ssh -R` with ServerAliveInterval: they attach, answer what is opened to them
//! and ask now and then whether the relay is there. Some dial again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use tidegate_ssh_client::driver::{Connection, Serve};
use tokio::task::{JoinHandle, JoinSet};

use crate::crowd;

use super::stage::{Machine, Stage};

/// Between two keepalives of a terminal: what people set ServerAliveInterval to.
const ALIVE: Duration = Duration::from_secs(30);

/// Dials of a terminal before it counts as kept out.
const TRIES: usize = 3;

/// A terminal with the task that keeps it; dropping it ends both.
pub struct Attached(JoinHandle<()>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn dial(stage: &Stage, machine: Machine) -> std::io::Result<Connection> {
    let (source, port, key) = (machine.source(), stage.gate.port, machine.key());
    let offer = Arc::clone(&stage.offer);
    let login = Connection::login_from(source, port, offer, "terminal", key, Serve::Echo).await?;
    let listen = u32::from(machine.listen());
    login.forward(listen).await?;
    Ok(login)
}

/// Tries more than once, as a service manager does: on a machine that stands still the relay closes who
/// has not asked for a forward within 2 s.
async fn dial_again(stage: &Stage, machine: Machine) -> std::io::Result<Connection> {
    for _ in 1..TRIES {
        if let Ok(attached) = dial(stage, machine).await {
            return Ok(attached);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    dial(stage, machine).await
}

/// All that stay, once each has its forward.
pub async fn attach(stage: &Arc<Stage>) -> Vec<Attached> {
    let all = (0..stage.plan.terminals).map(Machine);
    let attached = crowd::in_turns(all, |machine| {
        let stage = Arc::clone(stage);
        async move { (machine, dial(&stage, machine).await) }
    });
    let kept = attached.await.into_iter().map(|(machine, attached)| {
        let attached =
            attached.unwrap_or_else(|error| panic!("{} was not attached: {error}", machine.name()));
        Attached(tokio::spawn(keep(Arc::clone(stage), machine, attached)))
    });
    kept.collect()
}

/// Keeps a terminal attached as the service manager of a stock one does: it dials again where it lost its
/// connection.
///
/// The relay closes a terminal's connection by itself in one case: it stood still for half a second over
/// the end of one of its sessions (docs/limits.md, "Of the cut"), as it may where other programs want the
/// processors. Losing it at any other time is wrong.
async fn keep(stage: Arc<Stage>, machine: Machine, mut attached: Connection) {
    let mut draws = stage.draws(1, machine.0);
    // Not all of them at once.
    let mut due = Instant::now() + ALIVE.mul_f64(draws.random());
    let site = &stage.sites[machine.0 % stage.sites.len()];
    loop {
        let lost = tokio::select! {
            () = attached.closed() => Some(attached.why().unwrap_or_default().to_owned()),
            () = tokio::time::sleep_until(due.into()) => {
                due += ALIVE;
                attached.keepalive().await.err().map(|error| format!("no keepalive: {error}"))
            }
        };
        let Some(why) = lost else {
            stage.tally.count("keepalives answered");
            continue;
        };
        let name = machine.name();
        if site.has_just_ended() {
            eprintln!("soak: the terminal {name} was reset: {why}");
            stage.tally.reset(machine.0);
        } else {
            stage.tally.wrong(format!("the terminal {name} was lost: {why}"));
        }
        match dial_again(&stage, machine).await {
            Ok(again) => attached = again,
            Err(error) => {
                stage.tally.wrong(format!("the terminal {name} could not dial again: {error}"));
                return;
            }
        }
    }
}

/// Those that dial again and again, some while their former connection still stands.
pub fn begin_restless(stage: &Arc<Stage>, load: &mut JoinSet<()>) {
    for n in 0..stage.plan.restless() {
        load.spawn(restless(Arc::clone(stage), Machine(stage.plan.terminals + n)));
    }
}

async fn restless(stage: Arc<Stage>, machine: Machine) {
    let mut draws = stage.draws(2, machine.0);
    let mut former: Option<Connection> = None;
    loop {
        // Three takeovers of a live connection within 60 s would be a fight (DESIGN.md section 6).
        tokio::time::sleep(Duration::from_millis(draws.random_range(25_000..60_000))).await;
        if draws.random_bool(0.7) {
            former = None;
        }
        match dial_again(&stage, machine).await {
            Ok(attached) => {
                stage.tally.count("terminals that dialled again");
                former = Some(attached);
            }
            Err(error) => {
                let name = machine.name();
                stage.tally.wrong(format!("the terminal {name} could not dial again: {error}"));
            }
        }
        if former.as_ref().is_some_and(|it| it.ended().is_some()) {
            former = None;
        }
    }
}
