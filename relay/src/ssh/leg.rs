//! One connection's core and what hangs on it, under the connection's lock, and how what it sealed
//! gets into the socket. Whoever holds this lock takes no other connection's.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::Context;
use std::time::Duration;

use tidegate_ssh::{Core, Id};
use tokio::sync::oneshot;

use super::channel::Channel;
use super::connection::{Ended, OpenError, Shared};
use super::port::Port;
use super::socket::{Swept, Written};
use super::splice::Way;
use crate::clock::{self, Now};

/// Sealed bytes beyond which nothing more is read from a peer that does not take them. It is twice
/// what data alone may make, so that only one that asks much and reads nothing gets there.
const CLOGGED: usize = 256 * 1024;

/// How often is sealed and written under one lock, 64 KiB at most each time, before others have it.
const ROUNDS: usize = 16;

/// What is guarded by a connection's lock.
pub(super) struct Leg {
    pub core: Core,
    /// The channels that somebody holds.
    pub ports: HashMap<Id, Arc<Port>>,
    /// Those that the relay has asked for.
    pub opening: HashMap<Id, oneshot::Sender<Result<Channel, OpenError>>>,
    /// Connections that hold data for this one until it goes on.
    waiting: Vec<Arc<Shared>>,
    /// The peer takes nothing any more; what is sealed goes nowhere.
    pub broken: bool,
    /// The connection is over: what is made of it now has ended already.
    pub over: bool,
}

/// Time as the core wants it.
pub(super) fn time() -> Duration {
    clock::boot().since_start()
}

/// Bytes of ways that were sealed while a lock was held, to be settled when it is not.
#[derive(Default)]
pub(super) struct Sealed {
    drained: Vec<(Id, u32)>,
    /// `true`: nothing of that way waits any more.
    ways: Vec<(Arc<Way>, u32, bool)>,
}

impl Sealed {
    /// Tells those who sent it that it is gone. To be called without any connection's lock.
    pub fn settle(self) {
        for (way, bytes, empty) in self.ways {
            way.sealed(bytes, empty);
        }
    }
}

impl Leg {
    pub fn new(core: Core) -> Self {
        Self {
            core,
            ports: HashMap::new(),
            opening: HashMap::new(),
            waiting: Vec::new(),
            broken: false,
            over: false,
        }
    }

    /// Wakes `shared` when what it holds may go on. It does not rely on that, and looks for itself once
    /// it has waited long enough.
    pub fn wait(&mut self, shared: &Arc<Shared>) {
        if !shared.waits.swap(true, Ordering::AcqRel) {
            self.waiting.push(Arc::clone(shared));
        }
    }

    /// What is held may go on, unless something is in front of it.
    pub fn release_written(&mut self) {
        if !self.waiting.is_empty() && self.core.output().is_empty() && !self.core.is_ready() {
            self.release();
        }
    }

    /// Everything is written, or never will be.
    pub fn release(&mut self) {
        for shared in self.waiting.drain(..) {
            shared.waits.store(false, Ordering::Release);
            shared.waker.wake();
        }
    }

    /// Whether the peer leaves so much unread that nothing more is read of it.
    pub fn is_clogged(&mut self) -> bool {
        !self.broken && self.core.output().len() > CLOGGED
    }

    /// Seals of what waits as much as may be sealed now.
    fn pump(&mut self, now: Now, sealed: &mut Sealed) {
        if !self.core.is_ready() {
            return;
        }
        let ports = &self.ports;
        let mut may = |id: Id| {
            let way = ports.get(&id).and_then(|port| port.fed_by());
            way.is_none_or(|way| way.may_pass(now))
        };
        self.core.pump(&mut sealed.drained, &mut may);
        for (id, bytes) in sealed.drained.drain(..) {
            let Some(port) = self.ports.get(&id) else { continue };
            port.sealed.notify_one();
            if let Some(way) = port.fed_by() {
                sealed.ways.push((way, bytes, self.core.queued_on(id) == 0));
            }
        }
    }
}

/// Ends the connection where a panic comes by that began behind it: its task may be asleep.
struct OnPanic<'a> {
    shared: &'a Shared,
    /// Somebody else's, that runs destructors.
    before: bool,
}

impl<'a> OnPanic<'a> {
    fn kill(shared: &'a Shared) -> Self {
        Self { shared, before: std::thread::panicking() }
    }
}

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.before {
            self.shared.kill(Ended::Fault);
        }
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Leg> {
        self.leg.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked in the middle of a change: nothing in it can be relied upon, and nobody
            // else may come to grief by it.
            self.kill(Ended::Fault);
            let mut leg = poisoned.into_inner();
            leg.core.bury();
            leg.broken = true;
            self.leg.clear_poison();
            leg
        })
    }

    /// Does something to this connection for the sake of another one, or of nobody's: a panic in it ends
    /// this connection alone (DESIGN.md section 8), and `None` is returned. No lock is to be held.
    pub fn shield<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(act)) {
            Ok(done) => Some(done),
            Err(payload) => {
                self.supervisor.panicked("ssh connection", &*payload);
                // A payload's own destructor may panic.
                std::mem::forget(payload);
                self.kill(Ended::Fault);
                None
            }
        }
    }

    /// Writes what is sealed, seals what waits, and so on until the kernel or the bound of what may be
    /// sealed ahead says stop. The task of `cx`, else the connection's own, goes on when it can.
    pub fn advance(
        &self,
        leg: &mut Leg,
        swept: Swept,
        sealed: &mut Sealed,
        mut cx: Option<&mut Context<'_>>,
    ) {
        let now = clock::now();
        for _ in 0..ROUNDS {
            let full = self.write_out(leg, swept, cx.as_deref_mut());
            let before = leg.core.output().len();
            leg.pump(now, sealed);
            if full || leg.core.output().len() == before {
                return;
            }
        }
        self.waker.wake();
    }

    /// Writes what is sealed; `true` where the kernel did not take all of it.
    pub fn write_out(&self, leg: &mut Leg, swept: Swept, cx: Option<&mut Context<'_>>) -> bool {
        if leg.core.output().is_empty() && !self.socket.waits() {
            return false;
        }
        while !leg.core.output().is_empty() || self.socket.waits() {
            match self.write_some(leg, swept) {
                Written::Some(count) => leg.core.output().consume(count),
                Written::Full => {
                    match cx {
                        None => self.waker.wake(),
                        Some(cx) => {
                            if self.socket.poll_writable(cx).is_ready() {
                                // A sweep that was too old, or room since then: once more.
                                cx.waker().wake_by_ref();
                            }
                        }
                    }
                    return true;
                }
                Written::Broken => {
                    // Reading tells how it ended; what the peer sent before still counts.
                    leg.broken = true;
                    let all = leg.core.output().len();
                    leg.core.output().consume(all);
                    break;
                }
            }
        }
        leg.release_written();
        false
    }

    fn write_some(&self, leg: &mut Leg, swept: Swept) -> Written {
        if leg.broken {
            return Written::Broken;
        }
        self.socket.write(swept, leg.core.output().as_slice())
    }

    /// Writes a run that was sealed in place, right behind what was sealed before it.
    pub fn write_run(&self, leg: &mut Leg, swept: Swept, run: &[u8]) {
        let mut run = run;
        while !run.is_empty() && leg.core.output().is_empty() && !leg.broken {
            match self.socket.write(swept, run) {
                Written::Some(count) => run = run.get(count..).unwrap_or_default(),
                Written::Full => break,
                Written::Broken => leg.broken = true,
            }
        }
        if !run.is_empty() && !leg.broken {
            leg.core.output().append(run);
            self.waker.wake();
        }
    }

    /// Whether this connection may hold what it has for `other`: not if that one does so, too. To be
    /// undone by whoever reads here, with [`Shared::let_go`].
    pub fn hold(&self, other: &Self) -> bool {
        // In one order with the other's, so that one of them at least sees what the other did.
        self.holds.store(true, Ordering::SeqCst);
        let may = !other.holds.load(Ordering::SeqCst);
        if !may {
            self.let_go();
        }
        may
    }

    /// Nothing is held.
    pub fn let_go(&self) {
        self.holds.store(false, Ordering::SeqCst);
    }

    /// Lets `act` do something with the core, and sends what comes of it. Never to be called with a
    /// connection's lock held.
    pub fn with<T>(&self, act: impl FnOnce(&mut Leg) -> T) -> T {
        let _fault = OnPanic::kill(self);
        let (done, wants) = {
            let mut leg = self.lock();
            let done = act(&mut leg);
            let wants = !leg.core.output().is_empty() || leg.core.is_ready();
            (done, wants)
        };
        if wants {
            self.flush();
        }
        done
    }

    /// Sends what waits, as far as it goes.
    pub fn flush(&self) {
        let _fault = OnPanic::kill(self);
        let swept = self.socket.sweep();
        let mut sealed = Sealed::default();
        self.advance(&mut self.lock(), swept, &mut sealed, None);
        sealed.settle();
    }

    /// What the peer sent on a channel went on: it may send as much again.
    pub fn credit(&self, id: Id, bytes: u32) {
        self.shield(|| {
            let wants = {
                let mut leg = self.lock();
                leg.core.consumed(id, bytes, time());
                !leg.core.output().is_empty()
            };
            if wants {
                let swept = self.socket.sweep();
                // Nothing is sealed here, so that credits of two connections do not call each other.
                self.write_out(&mut self.lock(), swept, None);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;

    #[tokio::test]
    async fn a_panic_under_the_lock_ends_the_connection_and_harms_nobody_who_comes_later() {
        let (shared, _peer) = testing::shared().await;
        let done: Option<()> = shared.shield(|| {
            let _leg = shared.lock();
            panic!("on purpose");
        });
        assert_eq!((done, shared.supervisor.panics()), (None, 1));
        assert!(shared.socket.killed().is_cancelled());
        // What was half changed is gone.
        assert!(shared.with(|leg| leg.core.is_over() && leg.core.output().is_empty()));
        assert!(!shared.leg.is_poisoned());
        shared.flush();
        assert_eq!(shared.supervisor.panics(), 1);
    }
}
