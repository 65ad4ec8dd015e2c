//! Two channels joined: what comes in on one goes out on the other, each way by itself. Data goes in
//! place: decrypted where it lay, under another channel's number, sealed where it lies, written.
//!
//! Each way asks its [`Pass`] before any of its bytes are sealed. What the other leg does not take now
//! waits in its channel's queue, at most as much as the window that the sender was given; the sender
//! gets window for it again once it is sealed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_ssh::{Id, Relayed};
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::connection::Shared;
use super::later::Later;
use super::leg::Sealed;
use crate::clock::{self, Boot, Now};

/// How long what one side sent before it closed may take to reach the other.
const DRAIN: Duration = Duration::from_secs(30);
/// Bytes that are sealed in place before they are written: as much as a peer that does not read may
/// have sealed and not taken.
const RUN: usize = 128 * 1024;

/// Bytes from which on it is worth waiting for the other leg, rather than to copy them into a queue: a
/// few keystrokes gain nothing by it, and would come late.
const WORTH: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first of the two channels to the second.
    There,
    Back,
}

/// What may pass between two channels. Asked and told from within connections: quick, and without
/// touching any connection.
pub trait Pass: Send + Sync {
    /// Whether bytes may be sealed at this instant. What is refused is dropped, so that a no has to
    /// stand: a stream that went on after it would have a hole. Whoever says no ends the splice.
    fn may_pass(&self, now: Now) -> bool;
    /// So many bytes were sealed.
    fn passed(&self, direction: Direction, bytes: u64);
    /// When whoever sent bytes that were sealed may send as many anew; `None`: at once. Asked once for
    /// all of them, in the order in which they were sealed.
    fn may_send_at(&self, _direction: Direction, _bytes: u64, _now: Boot) -> Option<Boot> {
        None
    }
    /// Bytes a second that [`Pass::may_send_at`] holds each way to; `None`: it holds to none.
    fn rate(&self) -> Option<u64> {
        None
    }
    /// Whether the end of what comes `direction` is passed on.
    fn may_end(&self, direction: Direction) -> bool;
}

/// One way of two joined channels.
pub(super) struct Way {
    from: (Arc<Shared>, Id),
    to: (Arc<Shared>, Id),
    direction: Direction,
    pass: Arc<dyn Pass>,
    /// What the sender may send anew, but not yet.
    later: Later,
    /// The sender has sent its end.
    ended: AtomicBool,
    /// And all that came before it was sealed.
    done: CancellationToken,
}

impl Way {
    fn new(from: &Channel, to: &Channel, direction: Direction, pass: &Arc<dyn Pass>) -> Arc<Self> {
        let end = |channel: &Channel| (Arc::clone(channel.shared()), channel.id());
        Arc::new(Self {
            from: end(from),
            to: end(to),
            direction,
            pass: Arc::clone(pass),
            later: Later::default(),
            ended: AtomicBool::new(false),
            done: CancellationToken::new(),
        })
    }

    pub fn may_pass(&self, now: Now) -> bool {
        self.pass.may_pass(now)
    }

    /// Puts itself between the two channels; what came before goes first.
    fn begin(self: &Arc<Self>, from: &Channel, to: &Channel) {
        if let Some(rate) = self.pass.rate() {
            self.from.0.with(|leg| leg.core.pace(self.from.1, rate));
        }
        to.port().feed(self);
        let ended = loop {
            match from.port().join(self) {
                Ok(ended) => break ended,
                Err(waiting) => {
                    // A receiver that is gone takes nothing, and that is seen by whoever waits.
                    let _ = self.to.0.with(|leg| leg.core.send(self.to.1, &waiting));
                }
            }
        };
        if ended {
            self.end();
        }
    }

    /// So many bytes that waited were sealed; `empty`: no more wait.
    pub fn sealed(&self, bytes: u32, empty: bool) {
        self.pass.passed(self.direction, u64::from(bytes));
        self.credit(bytes);
        if empty && self.ended.load(Ordering::Acquire) {
            self.done.cancel();
        }
    }

    /// Bytes went on: their sender may send as many anew, now or when its pace allows it. Without any
    /// connection's lock.
    fn credit(&self, bytes: u32) {
        let at = self
            .pass
            .rate()
            .and_then(|_| self.pass.may_send_at(self.direction, u64::from(bytes), clock::boot()));
        match at {
            None => self.give(bytes),
            Some(at) => self.later.push(at, bytes),
        }
    }

    fn give(&self, bytes: u32) {
        self.from.0.credit(self.from.1, bytes);
    }

    /// The sender has sent its end.
    pub fn end(&self) {
        let (to, id) = &self.to;
        let may = self.pass.may_end(self.direction);
        let empty = to.shield(|| {
            to.with(|leg| {
                // Under the lock, so that whoever seals the last of it sees this.
                self.ended.store(true, Ordering::Release);
                if may {
                    leg.core.eof(*id);
                }
                leg.core.queued_on(*id) == 0
            })
        });
        if empty.unwrap_or(true) {
            self.done.cancel();
        }
    }
}

/// Two joined channels. Dropping it closes both at once, and what waits is gone.
pub struct Splice {
    near: Channel,
    far: Channel,
    there: Arc<Way>,
    back: Arc<Way>,
}

/// Joins two channels of two connections.
pub fn splice(near: Channel, far: Channel, pass: &Arc<dyn Pass>) -> Splice {
    let there = Way::new(&near, &far, Direction::There, pass);
    let back = Way::new(&far, &near, Direction::Back, pass);
    let splice = Splice { near, far, there, back };
    splice.there.begin(&splice.near, &splice.far);
    splice.back.begin(&splice.far, &splice.near);
    splice
}

impl Splice {
    /// Resolves when both ways are done, or a side has closed and what it sent before has had its time
    /// to arrive. What is sent later for the sake of the pace goes by it, too: it is to be polled.
    pub async fn done(&self) {
        tokio::select! {
            biased;
            () = self.both_done() => {}
            never = self.there.later.run(|bytes| self.there.give(bytes)) => match never {},
            never = self.back.later.run(|bytes| self.back.give(bytes)) => match never {},
        }
    }

    async fn both_done(&self) {
        let (near, far) = (self.near.closed(), self.far.closed());
        let (mut near_gone, mut far_gone) = (false, false);
        let (mut there_done, mut back_done) = (false, false);
        // A side that closed reads nothing more, so only what it sent is still worth carrying.
        while !((there_done || far_gone) && (back_done || near_gone)) {
            tokio::select! {
                biased;
                () = self.there.done.cancelled(), if !there_done => there_done = true,
                () = self.back.done.cancelled(), if !back_done => back_done = true,
                () = near.wait(), if !near_gone => near_gone = true,
                () = far.wait(), if !far_gone => far_gone = true,
                () = patience(near_gone || far_gone) => break,
            }
        }
    }
}

/// Resolves when a side that closed has been given long enough; never while both are there.
async fn patience(parting: bool) {
    if parting {
        tokio::time::sleep(DRAIN).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// A packet of data that was decrypted where it lies in the buffer.
pub(super) struct Item {
    pub way: Arc<Way>,
    pub frame: Range<usize>,
    /// Within the frame.
    pub data: Range<usize>,
}

/// Packets that go on to one other leg, in the order in which they came.
#[derive(Default)]
pub(super) struct Batch(VecDeque<Item>);

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a packet of this way goes to the same leg as those that are here.
    pub fn fits(&self, way: &Way) -> bool {
        self.0.front().is_none_or(|item| Arc::ptr_eq(&item.way.to.0, &way.to.0))
    }

    pub fn push(&mut self, item: Item) {
        self.0.push_back(item);
    }

    /// Bytes of data.
    fn bytes(&self) -> usize {
        self.0.iter().map(|item| item.data.len()).sum()
    }

    /// Passes all of them on. Without any connection's lock.
    ///
    /// `patient`: the connection that they came from, if it can wait. Then, where the other leg's
    /// socket or the channel's window takes nothing now, and no other channel waits there, those that are
    /// not sealed yet stay here if they are many, and the connection is woken when it may. Of two
    /// connections never both wait for each other, since one that does reads no window.
    pub fn deliver(&mut self, buffer: &mut [u8], patient: Option<&Arc<Shared>>) {
        let Some(to) = self.0.front().map(|item| Arc::clone(&item.way.to.0)) else { return };
        let now = clock::now();
        let swept = to.socket.sweep();
        let mut sealed = Sealed::default();
        let mut credits: Vec<(Arc<Way>, u32)> = Vec::new();
        // Whose task this is has nothing to do with what goes wrong over there.
        let done = to.shield(|| {
            let mut leg = to.lock();
            to.write_out(&mut leg, swept, None);
            // What is sealed in place and not written yet.
            let mut run = 0..0;
            let mut rest = self.bytes();
            while let Some(Item { way, frame, data }) = self.0.pop_front() {
                let left = rest;
                rest = rest.saturating_sub(data.len());
                // The session is over, and its channels are about to be closed.
                if !way.may_pass(now) {
                    continue;
                }
                let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let ahead = run.len().saturating_add(leg.core.output().len());
                if ahead.saturating_add(frame.len()) > RUN {
                    to.write_run(&mut leg, swept, buffer.get(run).unwrap_or_default());
                    run = frame.start..frame.start;
                }
                if run.is_empty()
                    && left >= WORTH
                    && leg.core.is_backed_up(way.to.1)
                    // Among those that wait for their turn it gets one only from a queue.
                    && !leg.core.is_ready_besides(way.to.1)
                    && let Some(patient) = patient
                    && patient.hold(&to)
                {
                    self.0.push_front(Item { way, frame, data });
                    leg.wait(patient);
                    break;
                }
                let Some(bytes) = buffer.get_mut(frame.clone()) else { continue };
                match leg.core.relay(way.to.1, bytes, data) {
                    Relayed::InPlace => {
                        if run.end != frame.start {
                            to.write_run(&mut leg, swept, buffer.get(run).unwrap_or_default());
                            run = frame.start..frame.start;
                        }
                        run.end = frame.end;
                        way.pass.passed(way.direction, u64::from(count));
                        match credits.last_mut() {
                            Some((last, sum)) if Arc::ptr_eq(last, &way) => {
                                *sum = sum.saturating_add(count);
                            }
                            _ => credits.push((way, count)),
                        }
                    }
                    Relayed::Copied | Relayed::Dropped => {}
                }
            }
            to.write_run(&mut leg, swept, buffer.get(run).unwrap_or_default());
            to.advance(&mut leg, swept, &mut sealed, None);
        });
        if done.is_none() {
            // That connection has ended. What is left for it must not lie in front of others' data.
            self.0.clear();
        }
        for (way, bytes) in credits {
            way.credit(bytes);
        }
        sealed.settle();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::testing;
    use super::*;

    /// Lets everything pass, or panics.
    #[derive(Default)]
    struct All(AtomicBool);

    impl Pass for All {
        fn may_pass(&self, _: Now) -> bool {
            assert!(!self.0.swap(false, Ordering::Relaxed), "on purpose");
            true
        }

        fn passed(&self, _: Direction, _: u64) {}

        fn may_end(&self, _: Direction) -> bool {
            true
        }
    }

    /// A batch that holds packets of so many bytes of data each, and the buffer that they lie in.
    fn batch(way: &Arc<Way>, lengths: &[usize]) -> (Batch, Vec<u8>) {
        let (mut batch, mut buffer) = (Batch::default(), Vec::new());
        for length in lengths {
            let begin = buffer.len();
            let padding = 4 + (8 - (4 + 1 + 9 + length + 4) % 8) % 8;
            let all = u32::try_from(1 + 9 + length + padding).unwrap();
            buffer.extend(all.to_be_bytes());
            buffer.push(u8::try_from(padding).unwrap());
            buffer.extend([94, 0, 0, 0, 0]);
            buffer.extend(u32::try_from(*length).unwrap().to_be_bytes());
            buffer.resize(buffer.len() + length + padding, b'd');
            let (frame, data) = (begin..buffer.len(), 14..14 + length);
            batch.push(Item { way: Arc::clone(way), frame, data });
        }
        (batch, buffer)
    }

    #[tokio::test]
    async fn only_much_waits_for_another_leg_and_not_behind_others() {
        let (staff, _staff) = testing::within().await;
        let (terminal, _terminal) = testing::within().await;
        let from = testing::channel(&staff, 0);
        let (to, other) = (testing::channel(&terminal, 0), testing::channel(&terminal, 1));
        let pass: Arc<dyn Pass> = Arc::new(All::default());
        let way = Way::new(&from, &to, Direction::There, &pass);
        let held = |lengths: &[usize]| {
            let (mut batch, mut buffer) = batch(&way, lengths);
            batch.deliver(&mut buffer, Some(&staff));
            staff.let_go();
            batch.bytes()
        };
        assert_eq!(held(&[1, 30_000]), 0, "the socket is free");
        // More than any kernel takes.
        terminal.with(|leg| leg.core.send(to.id(), &vec![0; 16 << 20])).unwrap();
        assert_eq!(held(&[30_000, 1]), 30_001, "only the channel itself has something in front");
        assert_eq!(held(&[1; 100]), 0, "keystrokes");
        terminal.with(|leg| leg.core.send(other.id(), &vec![0; 16 << 20])).unwrap();
        assert_eq!(held(&[30_000, 1]), 0, "another channel waits for its turn");
    }

    #[tokio::test]
    async fn a_panic_behind_one_packet_leaves_none_in_front_of_anothers_data() {
        let (staff, _staff) = testing::within().await;
        let (terminal, _terminal) = testing::within().await;
        let (from, to) = (testing::channel(&staff, 0), testing::channel(&terminal, 0));
        let all = Arc::new(All::default());
        all.0.store(true, Ordering::Relaxed);
        let pass: Arc<dyn Pass> = Arc::clone(&all) as _;
        let way = Way::new(&from, &to, Direction::There, &pass);
        let (mut batch, mut buffer) = batch(&way, &[10, 20, 30]);
        batch.deliver(&mut buffer, Some(&staff));
        assert!(terminal.socket.killed().is_cancelled() && !staff.socket.killed().is_cancelled());
        assert!(batch.is_empty());
    }
}
