//! Channels: a byte stream for what is joined, and a console on which the relay itself answers.
//!
//! The library's own queue of a channel is left unread (its receiver is dropped at once), since it
//! counts packets, can't tell EOF from CLOSE, and keeps the whole connection waiting where its
//! reader is gone but not dropped. [`Pipe`] takes its place: it counts bytes and can be emptied from
//! outside.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use russh::server::Msg;
use russh::{ChannelId, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::Shared;

/// Bytes of one channel that may wait for their reader. The library tops a window up on receipt, not
/// on consumption, so a channel that is full holds up its whole connection; an inner OpenSSH has at
/// most 2 MiB in flight per channel, so that an idle reader of one never gets that far.
pub(super) const PIPE: usize = 4 << 20;
/// Bytes that may wait on all channels of one connection together.
const CONNECTION: usize = 32 << 20;
/// Channels that a peer may leave neither confirmed nor refused.
const UNANSWERED: usize = 64;
/// An emptied queue larger than this gives its memory back.
const KEPT: usize = 64 * 1024;

type Writer = Pin<Box<dyn AsyncWrite + Send + Sync>>;

/// How much of one connection waits for its readers. Only the library's loop adds to it, so only one
/// ever waits for room.
#[derive(Default)]
struct Room {
    bytes: AtomicUsize,
    freed: Notify,
    /// The library's loop waits for room.
    full: AtomicBool,
}

impl Room {
    fn free(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_one();
    }
}

/// What has come in on one channel, and how to write to it.
pub(super) struct Pipe {
    state: Mutex<State>,
    room: Arc<Room>,
    closed: CancellationToken,
    by_peer: bool,
}

/// Where a channel is in its life. It only goes forward.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Open,
    /// Nothing can be written any more, by the doing of either side.
    Closed,
    /// Nothing can be read any more either.
    Killed,
}

#[derive(Default)]
struct State {
    incoming: VecDeque<u8>,
    /// No more will come: the peer's EOF or CLOSE, or the connection's end.
    eof: bool,
    phase: Phase,
    /// What comes in is dropped: a console has no input, or the channel was dropped.
    discard: bool,
    writer: Option<Writer>,
    reading: Option<Waker>,
    writing: Option<Waker>,
}

impl State {
    /// Drops what waits to be read, and says how much that was.
    fn drop_incoming(&mut self) -> usize {
        std::mem::take(&mut self.incoming).len()
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came in, and waits while the readers have too much to read.
    pub async fn push(&self, data: &[u8]) {
        while !self.try_push(data) {
            self.room.full.store(true, Ordering::Release);
            self.room.freed.notified().await;
        }
        self.room.full.store(false, Ordering::Release);
    }

    fn try_push(&self, data: &[u8]) -> bool {
        let mut state = self.lock();
        if state.discard || state.phase > Phase::Open {
            return true;
        }
        let here = state.incoming.len();
        let all = self.room.bytes.load(Ordering::Acquire);
        if here > 0 && (here + data.len() > PIPE || all + data.len() > CONNECTION) {
            return false;
        }
        self.room.bytes.fetch_add(data.len(), Ordering::AcqRel);
        state.incoming.extend(data);
        let waker = state.reading.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// The peer sends no more.
    pub fn eof(&self) {
        let waker = {
            let mut state = self.lock();
            state.eof = true;
            state.reading.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// The peer closed the channel, or the connection is over (`killed`: by the relay, so that what
    /// has not been read yet is not read any more).
    pub fn close(&self, killed: bool) {
        let (writer, wakers) = {
            let mut state = self.lock();
            state.eof = true;
            state.phase = state.phase.max(if killed { Phase::Killed } else { Phase::Closed });
            if killed {
                self.room.free(state.drop_incoming());
            }
            (state.writer.take(), [state.reading.take(), state.writing.take()])
        };
        // It may hold a lock of the library's that the connection's own task waits for.
        drop(writer);
        self.closed.cancel();
        self.room.freed.notify_one();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn discard(&self) {
        let mut state = self.lock();
        state.discard = true;
        self.room.free(state.drop_incoming());
    }

    fn poll_read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.phase == Phase::Killed {
            return Poll::Ready(Err(killed()));
        }
        if state.incoming.is_empty() {
            if state.eof {
                return Poll::Ready(Ok(()));
            }
            state.reading = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = state.incoming.len();
        while buf.remaining() > 0 && !state.incoming.is_empty() {
            let (front, _) = state.incoming.as_slices();
            let count = front.len().min(buf.remaining());
            buf.put_slice(front.get(..count).unwrap_or_default());
            state.incoming.drain(..count);
        }
        let read = before - state.incoming.len();
        if state.incoming.is_empty() && state.incoming.capacity() > KEPT {
            state.incoming = VecDeque::new();
        }
        drop(state);
        self.room.free(read);
        Poll::Ready(Ok(()))
    }

    /// Lets `write` at the writer, unless nothing can be written any more.
    fn poll_writer<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Writer, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = self.lock();
        if state.phase == Phase::Killed {
            return Poll::Ready(Err(killed()));
        }
        let Some(writer) = &mut state.writer else { return Poll::Ready(Err(closed())) };
        let written = write(writer, cx);
        state.writing = written.is_pending().then(|| cx.waker().clone());
        written
    }
}

fn killed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the relay ended the connection")
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the peer closed the channel")
}

/// The channels of one connection. The library calls handlers also for ids that were never opened:
/// what is not in here does not exist.
#[derive(Default)]
pub(super) struct Table {
    rows: Mutex<Rows>,
    confirmed: Notify,
    room: Arc<Room>,
}

#[derive(Default)]
struct Rows {
    pipes: HashMap<ChannelId, Arc<Pipe>>,
    by_peer: usize,
    /// Channels that the relay asked for and that are not confirmed yet.
    asked: usize,
    /// Those that are confirmed and not fetched yet by whoever asked.
    unclaimed: HashMap<ChannelId, Arc<Pipe>>,
    /// How the connection ended: killed or not.
    over: Option<bool>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the library's loop waits for a reader: the peer sends more than is taken.
    pub fn is_full(&self) -> bool {
        self.room.full.load(Ordering::Acquire)
    }

    /// Channels that the peer has open or asks for.
    pub fn by_peer(&self) -> usize {
        self.lock().by_peer
    }

    pub fn get(&self, id: ChannelId) -> Option<Arc<Pipe>> {
        self.lock().pipes.get(&id).cloned()
    }

    pub fn contains(&self, id: ChannelId) -> bool {
        self.lock().pipes.contains_key(&id)
    }

    /// Enters a channel that the peer opens.
    pub fn enter(&self, id: ChannelId) -> Arc<Pipe> {
        let mut rows = self.lock();
        rows.by_peer += 1;
        rows.enter(id, true, &self.room)
    }

    /// The relay is about to ask for a channel; not while too many are unanswered.
    pub fn ask(&self) -> bool {
        let mut rows = self.lock();
        let may = rows.asked < UNANSWERED;
        rows.asked += usize::from(may);
        may
    }

    /// The peer confirmed a channel; one that nobody asked for is not entered.
    pub fn confirmed(&self, id: ChannelId) {
        let mut rows = self.lock();
        if rows.unclaimed.len() < rows.asked && !rows.pipes.contains_key(&id) {
            let pipe = rows.enter(id, false, &self.room);
            rows.unclaimed.insert(id, pipe);
            drop(rows);
            self.confirmed.notify_waiters();
        }
    }

    /// The pipe of a channel that [`Table::ask`] asked for, as soon as the handler has entered it:
    /// the library tells the asker first. Pending for ever where the connection ends before.
    pub async fn claim(&self, id: ChannelId) -> Arc<Pipe> {
        loop {
            let confirmed = self.confirmed.notified();
            tokio::pin!(confirmed);
            confirmed.as_mut().enable();
            let pipe = self.lock().unclaimed.remove(&id);
            if let Some(pipe) = pipe {
                self.answered();
                return pipe;
            }
            confirmed.await;
        }
    }

    /// What [`Table::ask`] asked for has come or was refused.
    pub fn answered(&self) {
        let mut rows = self.lock();
        rows.asked = rows.asked.saturating_sub(1);
    }

    /// The peer closed the channel.
    pub fn close(&self, id: ChannelId) {
        if let Some(pipe) = self.leave(id) {
            pipe.close(false);
        }
    }

    fn leave(&self, id: ChannelId) -> Option<Arc<Pipe>> {
        let mut rows = self.lock();
        let pipe = rows.pipes.remove(&id)?;
        if pipe.by_peer {
            rows.by_peer = rows.by_peer.saturating_sub(1);
        }
        Some(pipe)
    }

    /// The connection is over.
    pub fn end(&self, killed: bool) {
        let pipes: Vec<_> = {
            let mut rows = self.lock();
            rows.over = Some(killed || rows.over == Some(true));
            rows.unclaimed.clear();
            rows.by_peer = 0;
            rows.pipes.drain().map(|(_, pipe)| pipe).collect()
        };
        for pipe in pipes {
            pipe.close(killed);
        }
    }
}

impl Rows {
    fn enter(&mut self, id: ChannelId, by_peer: bool, room: &Arc<Room>) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe {
            state: Mutex::default(),
            room: Arc::clone(room),
            closed: CancellationToken::new(),
            by_peer,
        });
        if let Some(killed) = self.over {
            pipe.close(killed);
        } else {
            self.pipes.insert(id, Arc::clone(&pipe));
        }
        pipe
    }
}

/// What [`Channel`] and [`SessionChannel`] share: the place in the table, and CLOSE when dropped.
struct Held {
    id: ChannelId,
    pipe: Arc<Pipe>,
    half: Option<ChannelWriteHalf<Msg>>,
    shared: Arc<Shared>,
}

impl Held {
    fn new(half: ChannelWriteHalf<Msg>, pipe: Arc<Pipe>, shared: Arc<Shared>) -> Self {
        {
            let mut state = pipe.lock();
            if state.phase == Phase::Open {
                state.writer = Some(Box::pin(half.make_writer()));
            }
        }
        Self { id: half.id(), pipe, half: Some(half), shared }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.table.leave(self.id);
        self.pipe.discard();
        let gone = {
            let mut state = self.pipe.lock();
            drop(state.writer.take());
            let gone = state.phase > Phase::Open;
            state.phase = state.phase.max(Phase::Closed);
            gone
        };
        self.pipe.closed.cancel();
        // A CLOSE before a DISCONNECT would make `ssh -W` exit 0 in silence.
        if gone || self.shared.is_leaving() {
            return;
        }
        let Some(half) = self.half.take() else { return };
        let shared = Arc::clone(&self.shared);
        self.shared.supervisor.spawn("channel close", async move {
            tokio::select! {
                () = shared.socket.killed().cancelled() => {}
                _ = half.close() => {}
            }
        });
    }
}

/// Tells when a channel is closed, by the peer, by the relay or with its connection. Data that came
/// before may still wait to be read.
#[derive(Clone, Debug)]
pub struct Closed(CancellationToken);

impl Closed {
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// A channel as a byte stream. Reading 0 bytes is the peer's EOF, or the end of a channel or
/// connection that the peer closed; shutting down sends our EOF; dropping it sends CLOSE. Once the
/// relay killed the connection, reading and writing fail at once and what was not read is gone.
///
/// A write that was begun and then given up (a future dropped while pending) may still be sent: after
/// that, drop the channel.
pub struct Channel(Held);

impl Channel {
    pub(super) fn new(half: ChannelWriteHalf<Msg>, pipe: Arc<Pipe>, shared: Arc<Shared>) -> Self {
        Self(Held::new(half, pipe, shared))
    }

    pub fn closed(&self) -> Closed {
        Closed(self.0.pipe.closed.clone())
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Channel").field(&self.0.id).finish()
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.pipe.poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.0.pipe.poll_writer(cx, |writer, cx| writer.as_mut().poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is in the connection's queue already.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.pipe.poll_writer(cx, |writer, cx| writer.as_mut().poll_shutdown(cx))
    }
}

/// A session channel on which the relay answers by itself. What the peer sends on it is thrown away.
/// Dropping it sends CLOSE without an exit status, which OpenSSH takes for exit status 255.
pub struct SessionChannel {
    held: Held,
    stderr: Writer,
}

impl std::fmt::Debug for SessionChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SessionChannel").field(&self.held.id).finish()
    }
}

impl SessionChannel {
    pub(super) fn new(half: ChannelWriteHalf<Msg>, pipe: Arc<Pipe>, shared: Arc<Shared>) -> Self {
        pipe.discard();
        let stderr = Box::pin(half.make_writer_ext(Some(1)));
        Self { held: Held::new(half, pipe, shared), stderr }
    }

    /// Writes to the peer's standard output, as it is: with a pty, lines must end in CRLF. Fails
    /// once the channel is closed.
    pub async fn stdout(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let pipe = &self.held.pipe;
            let write = poll_fn(|cx| {
                pipe.poll_writer(cx, |writer, cx| writer.as_mut().poll_write(cx, data))
            });
            data = data.get(write.await?..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes to the peer's standard error.
    pub async fn stderr(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (pipe, writer) = (&self.held.pipe, &mut self.stderr);
            let write =
                poll_fn(|cx| pipe.poll_writer(cx, |_, cx| writer.as_mut().poll_write(cx, data)));
            data = data.get(write.await?..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the session with `status`: exit-status, EOF, CLOSE, after all that was written.
    pub async fn finish(mut self, status: u8) {
        let closed = self.closed();
        let Some(half) = self.held.half.take() else { return };
        let end = async {
            // Each fails only where the connection is gone.
            let _ = half.exit_status(u32::from(status)).await;
            let _ = half.eof().await;
            let _ = half.close().await;
        };
        tokio::select! {
            () = closed.wait() => {}
            () = end => {}
        }
    }

    pub fn closed(&self) -> Closed {
        Closed(self.held.pipe.closed.clone())
    }
}
