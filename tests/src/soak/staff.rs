//! Staff: each logs in, opens a service that echoes, moves bytes that are known at every offset both
//! ways and compares each, and ends. Some stay until the relay cuts them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use tidegate_ssh_client::driver::{Channel, Connection, Serve};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::pattern::{Check, piece};

use super::stage::{Machine, SERVICE, Slot, Stage};
use super::tally::Cut;
use super::windows::Window;

/// From a window's file, and from a terminal's end, until sessions begin; refusals until then are waited out.
const IN_FORCE: Duration = Duration::from_secs(10);
/// Sessions begin only where the window has this much left.
const WORTHWHILE: Duration = Duration::from_secs(3);
/// Before a window's end, nothing that fails is the relay's fault.
const CLOSE_BY: Duration = Duration::from_secs(1);
/// Bytes that are under way at most: less than the window that a channel begins with, 64 KiB.
const AHEAD: u64 = 32 << 10;
/// An echo that takes longer has been lost.
const LOST: Duration = Duration::from_secs(30);
/// A session that lives this long after its deadline is not being cut.
const NEVER: Duration = Duration::from_secs(10);
/// What the two clocks of a measurement may differ by, read one after the other.
const EARLY: Duration = Duration::from_millis(50);
/// Between two bytes of a session that stays.
const BEAT: Duration = Duration::from_millis(250);

/// Why an exchange did not come to its end.
enum Broken {
    /// The connection or the channel ended, as was seen then.
    Ended(Instant),
    /// The bytes are wrong, or do not come.
    Wrong(String),
}

impl Broken {
    fn ended() -> Self {
        Self::Ended(Instant::now())
    }
}

pub fn begin(stage: &Arc<Stage>, load: &mut JoinSet<()>) {
    for n in 0..stage.plan.staff {
        load.spawn(slot(Arc::clone(stage), Slot(n)));
    }
}

async fn slot(stage: Arc<Stage>, slot: Slot) {
    let mut draws = stage.draws(4, slot.0);
    tokio::time::sleep(Duration::from_millis(draws.random_range(0..3000))).await;
    loop {
        let site = &stage.sites[draws.random_range(0..stage.sites.len())];
        let machine = site.terminals[draws.random_range(0..site.terminals.len())];
        match site.open() {
            Some(window) if window.left() > WORTHWHILE => {
                session(&stage, slot, machine, &window, &mut draws).await;
                tokio::time::sleep(Duration::from_millis(draws.random_range(0..500))).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn session(
    stage: &Arc<Stage>,
    slot: Slot,
    machine: Machine,
    window: &Window,
    draws: &mut StdRng,
) {
    let (login, port, offer) = (slot.login(), stage.gate.port, Arc::clone(&stage.offer));
    let key = slot.key();
    let staff =
        Connection::login_from(slot.source(), port, offer, &login, key, Serve::Nothing).await;
    let staff = match staff {
        Ok(staff) => staff,
        Err(error) => {
            stage.tally.wrong(format!("{login} was not let in: {error}"));
            return;
        }
    };
    let who = format!("{login} on {}", machine.name());
    let Some(mut channel) = admitted(stage, &staff, machine, window, &who).await else { return };
    if window.left().is_zero() {
        // Who was admitted late may have been so by the next window, whose end is not looked at here.
        return;
    }
    stage.tally.count("sessions begun");
    let moved = match draws.random_range(0..10) {
        0..3 => stay(stage, &mut channel, window).await,
        // Gone without a word, in the middle.
        3 => {
            let _ = timeout(
                Duration::from_millis(draws.random_range(10..2000)),
                exchange(stage, &mut channel, 1 << 20, Duration::from_millis(20)),
            )
            .await;
            stage.tally.count("sessions that staff dropped");
            return;
        }
        kind => brief(stage, &staff, channel, machine, kind == 4, draws).await,
    };
    match moved {
        Ok(()) => stage.tally.count("sessions that staff ended"),
        Err(Broken::Wrong(sentence)) => stage.tally.wrong(format!("{who}: {sentence}")),
        Err(Broken::Ended(seen)) => ended(stage, &staff, machine, seen, window).await,
    }
}

/// The session's first channel. A window that was just written may not be in force yet, and a terminal
/// that lost its connection dials again.
async fn admitted(
    stage: &Stage,
    staff: &Connection,
    machine: Machine,
    window: &Window,
    who: &str,
) -> Option<Channel> {
    let begun = Instant::now();
    loop {
        match staff.channel(&machine.host(), SERVICE).await {
            Ok(channel) => return Some(channel),
            Err(_) if window.left() < CLOSE_BY => return None,
            Err(error) if begun.elapsed() > IN_FORCE => {
                stage.tally.wrong(format!("{who} was refused in an open window: {error}"));
                return None;
            }
            Err(_) => {
                stage.tally.count("opens before a window was in force or a terminal back");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// One transfer or two side by side, with new keys in between where `rekey` says so.
async fn brief(
    stage: &Stage,
    staff: &Connection,
    mut channel: Channel,
    machine: Machine,
    rekey: bool,
    draws: &mut StdRng,
) -> Result<(), Broken> {
    let mut size = || 1_u64 << draws.random_range(8..19);
    let (first, second) = (size() + 1, size() + 3);
    let pace = Duration::from_millis(draws.random_range(1..200));
    let two = draws.random_bool(0.25);
    let one = async {
        let (before, after) = if rekey { (first / 2, first - first / 2) } else { (first, 0) };
        let mut check = exchange(stage, &mut channel, before, pace).await?;
        if rekey {
            let _ = staff.rekey().await;
            stage.tally.count("rekeys by staff");
            check = more(stage, &mut channel, check, after, pace).await?;
        }
        finish(stage, channel, check).await
    };
    let other = async {
        if !two {
            return Ok(());
        }
        let Ok(mut channel) = staff.channel(&machine.host(), SERVICE).await else {
            // With the window at its end.
            return Ok(());
        };
        stage.tally.count("further channels");
        let check = exchange(stage, &mut channel, second, pace).await?;
        finish(stage, channel, check).await
    };
    let (one, other) = tokio::join!(one, other);
    one.and(other)
}

/// Sends so many bytes, each compared as it comes back.
async fn exchange(
    stage: &Stage,
    channel: &mut Channel,
    bytes: u64,
    pace: Duration,
) -> Result<Check, Broken> {
    more(stage, channel, Check::default(), bytes, pace).await
}

async fn more(
    stage: &Stage,
    channel: &mut Channel,
    mut check: Check,
    bytes: u64,
    pace: Duration,
) -> Result<Check, Broken> {
    let (begun, mut sent) = (check.at, check.at);
    let all = begun + bytes;
    while check.at < all {
        while sent < all && sent - check.at < AHEAD {
            let length = (all - sent).min(8 << 10);
            let part = piece(sent, usize::try_from(length).expect("8 KiB"));
            channel.send(part.to_vec()).await.map_err(|_| Broken::ended())?;
            sent += length;
            tokio::time::sleep(pace).await;
        }
        let Ok(came) = timeout(LOST, channel.next()).await else {
            let left = sent - check.at;
            return Err(Broken::Wrong(format!("{left} bytes did not come back within {LOST:?}")));
        };
        match came {
            Ok(Some(bytes)) => {
                stage.tally.add("bytes that came back", bytes.len() as u64);
                check.next(&bytes).map_err(|wrong| Broken::Wrong(format!("there came {wrong}")))?;
                if check.at > sent {
                    return Err(Broken::Wrong("more bytes came than were sent".to_owned()));
                }
            }
            Ok(None) | Err(_) => return Err(Broken::ended()),
        }
    }
    Ok(check)
}

/// EOF, to which the terminal's EOF is the answer.
async fn finish(stage: &Stage, mut channel: Channel, check: Check) -> Result<(), Broken> {
    channel.finish().await.map_err(|_| Broken::ended())?;
    match timeout(LOST, channel.next()).await {
        Ok(Ok(None)) => {
            stage.tally.add("bytes of whole transfers, each way", check.at);
            Ok(())
        }
        Ok(Ok(Some(bytes))) => {
            Err(Broken::Wrong(format!("{} bytes more than were sent came back", bytes.len())))
        }
        Ok(Err(_)) => Err(Broken::ended()),
        Err(_) => Err(Broken::Wrong(format!("the terminal's EOF did not come within {LOST:?}"))),
    }
}

/// A few bytes now and then until the relay ends it.
async fn stay(stage: &Stage, channel: &mut Channel, window: &Window) -> Result<(), Broken> {
    stage.tally.count("sessions that stay");
    let mut check = Check::default();
    loop {
        check = more(stage, channel, check, 61, BEAT).await?;
        let end = window.end().at;
        if Instant::now().saturating_duration_since(end) > NEVER {
            return Err(Broken::Wrong(format!("it lives {NEVER:?} after its deadline")));
        }
    }
}

/// A connection whose channel ended: by a cut, or it was lost. One that has just asked for a further
/// channel may stay, since it is not left without a session until that is refused.
async fn ended(
    stage: &Stage,
    staff: &Connection,
    machine: Machine,
    seen: Instant,
    window: &Window,
) {
    let _ = timeout(Duration::from_secs(1), staff.closed()).await;
    let at = staff.ended().unwrap_or(seen);
    let end = window.end();
    let late =
        if at >= end.at { (at - end.at).as_secs_f64() } else { -(end.at - at).as_secs_f64() };
    if late >= -EARLY.as_secs_f64() {
        stage.tally.cut(Cut { at, late: late * 1e3, why: end.why });
        stage.tally.count("sessions that were cut");
        return;
    }
    // The terminal's task may come to it later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    if stage.tally.was_reset(machine.0, at) {
        stage.tally.count("sessions lost with a terminal that was reset");
    } else {
        let (name, early) = (machine.name(), end.at - at);
        stage.tally.wrong(format!("a session on {name} ended {early:.1?} before its deadline"));
    }
}
