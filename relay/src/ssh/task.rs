//! The one task of a connection: reads, hands what came to the core, passes data on, writes what the
//! core sealed, and looks at the clock. Each time it wakes it looks at everything; it never waits
//! while it holds a lock or a buffer.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_policy::model::KeyBlob;
use tidegate_ssh::{DisconnectCode, Door, Fatal, Inbound, Next, RekeyLimits};
use tokio::time::Sleep;

use super::Doorkeeper;
use super::buffers::{self, Scratch};
use super::connection::{Ended, FAREWELL, Shared};
use super::leg::{Sealed, time};
use super::tell;
use crate::clock::{self, Boot};

/// Reads after which other tasks get their turn.
const READS: usize = 4;
/// Bytes that are read of a peer that was told to go: with some of them unread its kernel may drop what
/// it was told.
const LAST: usize = 1 << 20;
/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_mins(1);

/// Why nothing more is read.
pub(super) enum Stop {
    /// The peer has gone, or said so.
    Closed,
    /// It broke the protocol or a limit; it is told so.
    Fatal(Fatal),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// The core's questions about keys, for the doorkeeper of this connection.
struct AtDoor(Arc<dyn Doorkeeper>);

impl Door for AtDoor {
    fn offered(&mut self, user: &str, key: &[u8]) -> bool {
        self.0.offered(user, &KeyBlob::new(key.to_vec()))
    }

    fn proven(&mut self, user: &str, key: &[u8]) -> bool {
        self.0.proven(user, &KeyBlob::new(key.to_vec()))
    }
}

/// What only the connection's own task touches.
pub(super) struct Task {
    shared: Arc<Shared>,
    door: AtDoor,
    inbound: Inbound,
    /// The beginning of a packet whose rest has not come.
    partial: Vec<u8>,
    began: Boot,
    /// When the peer last sent something, and how often it was asked for a sign of life since.
    heard: Boot,
    asked: u32,
    proven: bool,
    /// How it will have ended, once the peer has been told to go and has gone.
    parting: Option<Ended>,
    /// Our FIN is sent.
    finished: bool,
    /// Bytes that came after the peer was told to go.
    dropped: usize,
    alarm: Option<(Boot, Pin<Box<Sleep>>)>,
}

impl Task {
    pub fn new(shared: Arc<Shared>, door: Arc<dyn Doorkeeper>, limits: RekeyLimits) -> Self {
        let now = clock::boot();
        Self {
            shared,
            door: AtDoor(door),
            inbound: Inbound::new(limits),
            partial: Vec::new(),
            began: now,
            heard: now,
            asked: 0,
            proven: false,
            parting: None,
            finished: false,
            dropped: 0,
            alarm: None,
        }
    }

    /// `first`: bytes that were read already.
    pub fn begin(&mut self, first: Vec<u8>) {
        self.partial = first;
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
            if let Some(ended) = self.look(clock::boot()) {
                return Poll::Ready(ended);
            }
            self.write(cx);
        }
    }

    /// When something has to be done though nothing comes.
    fn next_look(&self, now: Boot) -> Boot {
        let settings = &self.shared.settings;
        let mut next = now.plus(LOOK);
        if let Some(left) = self.shared.left_at() {
            next = next.min(left.plus(FAREWELL));
        }
        if self.proven {
            let silent = settings.keepalive.saturating_mul(self.asked.saturating_add(1));
            next = next.min(self.heard.plus(silent));
        } else {
            next = next.min(self.began.plus(settings.login_grace));
        }
        if let Some(stuck) = self.shared.socket.stuck_since() {
            next = next.min(stuck.plus(settings.dead_after()));
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
        let kill = |ended: Ended| {
            shared.kill(ended.clone());
            Some(ended)
        };
        if !self.proven && now >= self.began.plus(settings.login_grace) {
            return kill(Ended::Grace);
        }
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
            (!leg.core.output().is_empty() || leg.core.is_ready(), leg.core.is_over())
        };
        if wants {
            let swept = shared.socket.sweep();
            let mut sealed = Sealed::default();
            shared.advance(&mut shared.lock(), swept, &mut sealed, Some(cx));
            sealed.settle();
        }
        if over && !self.finished && shared.lock().core.output().is_empty() {
            // The peer closes when it has read what we said last.
            self.finished = true;
            shared.socket.finish();
        }
    }

    /// Nothing more is read, or it is read for the FIN alone. `Some`: the connection is over.
    fn stop(&mut self, stop: Stop) -> Option<Ended> {
        let fatal = match stop {
            Stop::Closed => return Some(self.parting.take().unwrap_or(Ended::Closed)),
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

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        buffers::with(|scratch| self.read_into(cx, scratch))
    }

    fn read_into(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<(), Stop>> {
        if self.dropped > LAST {
            // It has had its word, and the clock ends it.
            return Poll::Pending;
        }
        let kept = self.partial.len();
        if let Some(place) = scratch.buffer.get_mut(..kept) {
            place.copy_from_slice(&self.partial);
        }
        let room = scratch.buffer.get_mut(kept..).unwrap_or_default();
        let count = match self.shared.socket.poll_read(cx, room) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Stop::Closed)),
            Poll::Ready(Ok(count)) => count,
        };
        self.heard = clock::boot();
        self.asked = 0;
        self.shared.heard.notify_waiters();
        if self.parting.is_some() {
            self.partial = Vec::new();
            self.dropped = self.dropped.saturating_add(count);
            return Poll::Ready(Ok(()));
        }
        let filled = kept.saturating_add(count);
        let done = self.take(filled, scratch);
        scratch.batch.deliver(&mut scratch.buffer);
        let rest = scratch.buffer.get(done.as_ref().map_or(filled, |at| *at)..filled);
        self.partial = rest.unwrap_or_default().to_vec();
        Poll::Ready(done.map(drop))
    }

    /// Handles every packet that is complete; where the first that is not begins.
    fn take(&mut self, filled: usize, scratch: &mut Scratch) -> Result<usize, Stop> {
        let Scratch { buffer, batch } = scratch;
        let mut at = 0;
        loop {
            let bytes = buffer.get_mut(..filled).unwrap_or_default();
            match self.inbound.next(bytes, at)? {
                Next::Incomplete { .. } => return Ok(at),
                Next::Version { line, next } => {
                    let line = bytes.get(line).unwrap_or_default();
                    self.shared.lock().core.version(line);
                    at = next;
                }
                Next::Exhausted => self.shared.lock().core.rekey(time()),
                Next::Message { frame, message, next, sequence } => {
                    at = next;
                    let place = message.start.saturating_sub(frame.start);
                    let message = bytes.get(message).unwrap_or_default();
                    let event = {
                        let mut leg = self.shared.lock();
                        let event = leg.core.handle(message, sequence, &mut self.door, time())?;
                        match event {
                            Some(event) => tell::data(&mut leg, event, message, frame, place),
                            None => continue,
                        }
                    };
                    let event = match event {
                        tell::Told::Done => continue,
                        tell::Told::Pass(item) => {
                            if !batch.fits(&item.way) {
                                batch.deliver(buffer);
                            }
                            batch.push(item);
                            continue;
                        }
                        tell::Told::Other(event) => event,
                    };
                    if !batch.is_empty() {
                        batch.deliver(buffer);
                    }
                    self.event(event)?;
                }
            }
        }
    }

    fn event(&mut self, event: tidegate_ssh::Event) -> Result<(), Stop> {
        match event {
            tidegate_ssh::Event::Keys { opener, reset_sequence, .. } => {
                self.inbound.install(opener, reset_sequence);
                Ok(())
            }
            event => {
                self.proven |= matches!(event, tidegate_ssh::Event::Authenticated { .. });
                tell::tell(&self.shared, event)
            }
        }
    }
}
