//! The one task of a connection: reads and handles what came (`intake`), writes what the core sealed,
//! and looks at the clock. Each time it wakes it looks at everything; it never waits while it holds a
//! lock, and with a buffer for a moment only.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_policy::model::KeyBlob;
use tidegate_ssh::{DisconnectCode, Door, Fatal, Inbound, RekeyLimits};
use tokio::time::Sleep;

use super::Doorkeeper;
use super::buffers::Buffer;
use super::connection::{Ended, FAREWELL, Shared};
use super::leg::{Sealed, time};
use super::partial::Partial;
use crate::clock::{self, Boot};

/// Reads after which other tasks get their turn.
const READS: usize = 4;
/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_mins(1);
/// By how much a look may be late. Beyond that the process stood still (a stop signal, a machine that
/// was suspended), and what the peer sent meanwhile lies unread.
const LATE: Duration = Duration::from_secs(5);

/// Why nothing more is read.
pub(super) enum Stop {
    /// The peer has gone, or said so.
    Closed,
    /// It broke the protocol or a limit; it is told so.
    Fatal(Fatal),
    /// What is below SSH is broken, and nothing more can be said in it; in words for the log.
    Layers(String),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// The core's questions about keys, for the doorkeeper of this connection.
pub(super) struct AtDoor(Arc<dyn Doorkeeper>);

impl Door for AtDoor {
    fn offered(&mut self, user: &str, key: &[u8]) -> bool {
        self.0.offered(user, &KeyBlob::new(key.to_vec()))
    }

    fn proven(&mut self, user: &str, key: &[u8]) -> bool {
        self.0.proven(user, &KeyBlob::new(key.to_vec()))
    }

    fn had_enough(&mut self) -> Option<&'static str> {
        self.0.had_enough()
    }

    fn turned_away(&mut self) -> Option<&'static str> {
        self.0.turned_away()
    }
}

/// What only the connection's own task touches.
pub(super) struct Task {
    pub shared: Arc<Shared>,
    pub door: AtDoor,
    pub inbound: Inbound,
    /// The beginning of a packet whose rest has not come; nothing while `buffer` has it.
    pub partial: Partial,
    /// What was read and will be gone on with in a moment.
    pub buffer: Option<Box<Buffer>>,
    /// Since when something that the peer has sent may wait unread for another leg.
    pub behind: Option<Boot>,
    began: Boot,
    /// When the peer last sent something, and how often it was asked for a sign of life since.
    pub heard: Boot,
    pub asked: u32,
    /// When the clock is looked at next, at the latest.
    next: Boot,
    pub proven: bool,
    /// How it will have ended, once the peer has been told to go and has gone.
    pub parting: Option<Ended>,
    /// Our FIN is sent.
    finished: bool,
    /// Bytes that came after the peer was told to go.
    pub dropped: usize,
    alarm: Option<(Boot, Pin<Box<Sleep>>)>,
}

impl Task {
    pub fn new(shared: Arc<Shared>, door: Arc<dyn Doorkeeper>, limits: RekeyLimits) -> Self {
        let now = clock::boot();
        Self {
            shared,
            door: AtDoor(door),
            inbound: Inbound::new(limits),
            partial: Partial::default(),
            buffer: None,
            behind: None,
            began: now,
            heard: now,
            asked: 0,
            next: now.plus(LOOK),
            proven: false,
            parting: None,
            finished: false,
            dropped: 0,
            alarm: None,
        }
    }

    /// Runs until the connection is over.
    pub async fn run(mut self) -> Ended {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.shared.waker.register(cx.waker());
        if self.shared.socket.killed().is_cancelled() {
            return Poll::Ready(Ended::Killed);
        }
        if let Some(ended) = self.look(clock::boot()) {
            return Poll::Ready(ended);
        }
        self.write(cx);
        for _ in 0..READS {
            if self.is_clogged() {
                self.write(cx);
                // What is left wakes us when the peer takes some of it.
                if self.is_clogged() {
                    self.put_down();
                    return self.rest(cx);
                }
            }
            match self.read(cx) {
                Poll::Pending => {
                    self.write(cx);
                    return self.rest(cx);
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(stop)) => {
                    if let Some(ended) = self.stop(stop) {
                        return Poll::Ready(ended);
                    }
                }
            }
        }
        self.write(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing more is to be done now: sleeps until the next look at the clock at the latest.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let now = clock::boot();
            let next = self.next_look(now);
            self.next = next;
            let sleep = match &mut self.alarm {
                // Too early costs a look.
                Some((at, sleep)) if *at <= next => sleep,
                Some((at, sleep)) => {
                    *at = next;
                    sleep.set(tokio::time::sleep(next.since(now)));
                    sleep
                }
                alarm @ None => {
                    let sleep = Box::pin(tokio::time::sleep(next.since(now)));
                    &mut alarm.insert((next, sleep)).1
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.alarm = None;
            let now = clock::boot();
            if let Some(ended) = self.look(now) {
                return Poll::Ready(ended);
            }
            if self.patience().is_some_and(|end| now >= end) {
                // What waited has gone on, and more can be read.
                self.put_down();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.write(cx);
        }
    }

    /// When something has to be done though nothing comes.
    fn next_look(&self, now: Boot) -> Boot {
        let settings = &self.shared.settings;
        let mut next = now.plus(LOOK);
        if let Some(left) = self.shared.left_at() {
            // Nothing else ends it any more.
            next = next.min(left.plus(FAREWELL));
        } else {
            if self.proven {
                let silent = settings.keepalive.saturating_mul(self.asked.saturating_add(1));
                next = next.min(self.heard.plus(silent));
            } else {
                next = next.min(self.began.plus(settings.login_grace));
            }
            if let Some(stuck) = self.shared.socket.stuck_since() {
                next = next.min(stuck.plus(settings.dead_after()));
            }
        }
        if let Some(end) = self.patience() {
            next = next.min(end);
        }
        if let Some(again) = self.shared.socket.retry_at() {
            next = next.min(again);
        }
        if let Some(core) = self.shared.lock().core.deadline() {
            next = next.min(Boot::from_start(core));
        }
        // The timer's ticks are milliseconds, and what is due just now has been looked at.
        next.max(now.plus(Duration::from_millis(1)))
    }

    /// Does what is due now. `Some`: the connection is over.
    fn look(&mut self, now: Boot) -> Option<Ended> {
        let shared = &self.shared;
        if now >= self.next.plus(LATE) {
            // The peer is judged by what it does from now on.
            self.heard = now;
            self.asked = 0;
            shared.socket.stood_still(now);
        }
        self.next = now.plus(LOOK);
        let settings = &shared.settings;
        if let Some(left) = shared.left_at() {
            self.parting.get_or_insert(Ended::Closed);
            if now >= left.plus(FAREWELL) {
                let ended = self.parting.take().filter(|ended| *ended != Ended::Closed);
                let ended = ended.unwrap_or(Ended::Killed);
                shared.kill(ended.clone());
                return Some(ended);
            }
            return None;
        }
        if !self.proven && now >= self.began.plus(settings.login_grace) {
            self.parting = Some(Ended::Grace);
            let text = format!(
                "no key was proven within {} s; connect again, with the host key accepted and the key \
                 unlocked beforehand",
                settings.login_grace.as_secs()
            );
            shared.disconnect(DisconnectCode::ByApplication, &text);
            return None;
        }
        let kill = |ended: Ended| {
            shared.kill(ended.clone());
            Some(ended)
        };
        let dead = settings.dead_after();
        if shared.socket.stuck_since().is_some_and(|since| now >= since.plus(dead)) {
            return kill(Ended::Dead);
        }
        if self.proven && now >= self.heard.plus(dead) {
            if !shared.lock().is_clogged() {
                return kill(Ended::Dead);
            }
            // Nothing is read of it now; that it takes what is written is a sign of life, too.
            self.heard = now;
            self.asked = 0;
        }
        let silent = settings.keepalive.saturating_mul(self.asked.saturating_add(1));
        let ask = self.proven && now >= self.heard.plus(silent);
        let ticked = {
            let mut leg = shared.lock();
            if ask {
                self.asked = self.asked.saturating_add(1);
                leg.core.ping();
            }
            leg.core.tick(time())
        };
        ticked.err().and_then(|fatal| self.stop(fatal.into()))
    }

    /// Writes and seals as much as goes.
    fn write(&mut self, cx: &mut Context<'_>) {
        let shared = &self.shared;
        let (wants, over) = {
            let mut leg = shared.lock();
            let sealed = !leg.core.output().is_empty() || leg.core.is_ready();
            (sealed || shared.socket.waits(), leg.core.is_over())
        };
        if wants {
            let swept = shared.socket.sweep();
            let mut sealed = Sealed::default();
            shared.advance(&mut shared.lock(), swept, &mut sealed, Some(cx));
            sealed.settle();
        }
        if over && !self.finished && shared.lock().core.output().is_empty() {
            // The peer closes when it has read what we said last.
            self.finished = shared.socket.finish(shared.socket.sweep());
            if !self.finished && shared.socket.poll_writable(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Nothing more is read, or it is read for the FIN alone. `Some`: the connection is over.
    fn stop(&mut self, stop: Stop) -> Option<Ended> {
        let fatal = match stop {
            Stop::Closed => {
                // A goodbye in TLS or a WebSocket is answered, as far as that goes at once.
                self.shared.socket.finish(self.shared.socket.sweep());
                return Some(self.parting.take().unwrap_or(Ended::Closed));
            }
            Stop::Layers(why) => {
                tracing::debug!(connection = self.shared.id, why, "an SSH connection ends");
                self.shared.socket.finish(self.shared.socket.sweep());
                return Some(self.parting.take().unwrap_or(Ended::Protocol(why)));
            }
            Stop::Fatal(fatal) => fatal,
        };
        tracing::debug!(connection = self.shared.id, error = %fatal, "an SSH connection ends");
        // One that tried too many keys has broken nothing.
        let ended = match fatal.code {
            // What comes behind a DISCONNECT of ours is no fault of the peer's.
            _ if self.shared.left_at().is_some() => Ended::Closed,
            DisconnectCode::NoMoreAuthMethods => Ended::Closed,
            _ => Ended::Protocol(super::printable(&fatal.text, 200)),
        };
        self.parting.get_or_insert(ended);
        self.shared.disconnect(fatal.code, &fatal.text);
        None
    }

    /// Whether the peer takes so little that nothing more is read of it.
    fn is_clogged(&self) -> bool {
        self.parting.is_none() && self.shared.lock().is_clogged()
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::Written;
    use super::super::testing::{self, Nobody};
    use super::*;

    /// A task whose peer has logged in and takes nothing more.
    async fn stuck() -> (Task, tokio::net::TcpStream) {
        let (shared, peer) = testing::within().await;
        let much = vec![0; 64 * 1024];
        while !matches!(shared.socket.write(shared.socket.sweep(), &much), Written::Full) {
            tokio::task::yield_now().await;
        }
        let mut task = Task::new(shared, Arc::new(Nobody), RekeyLimits::default());
        task.proven = true;
        (task, peer)
    }

    #[tokio::test]
    async fn a_stand_still_of_ours_is_no_silence_of_the_peers() {
        let (mut task, _peer) = stuck().await;
        let begun = task.began;
        let at = |seconds| begun.plus(Duration::from_secs(seconds));
        assert_eq!((task.look(at(25)), task.asked), (None, 1));
        // Stopped for half an hour.
        assert_eq!((task.look(at(1800)), task.asked), (None, 0));
        assert_eq!(task.heard, at(1800));
        assert_eq!((task.look(at(1825)), task.asked), (None, 1));
        assert_eq!((task.look(at(1850)), task.asked), (None, 2));
        assert_eq!(task.look(at(1874)), None);
        assert_eq!(task.look(at(1876)), Some(Ended::Dead));
        // One that only says nothing.
        let (mut task, _peer) = stuck().await;
        let begun = task.began;
        let at = |seconds| begun.plus(Duration::from_secs(seconds));
        for seconds in [25, 50, 74] {
            assert_eq!(task.look(at(seconds)), None);
        }
        assert_eq!(task.look(at(77)), Some(Ended::Dead));
    }

    #[tokio::test]
    async fn through_a_farewell_it_sleeps_though_much_is_overdue() {
        let (mut task, _peer) = stuck().await;
        task.shared.speaking.store(true, std::sync::atomic::Ordering::Release);
        let now = clock::boot();
        task.heard = Boot::from_start(Duration::ZERO);
        assert!(task.next_look(now).since(now) <= Duration::from_millis(1));
        task.shared.disconnect(DisconnectCode::ByApplication, "the window has closed");
        assert!(task.next_look(now).since(now) >= FAREWELL);
    }
}
