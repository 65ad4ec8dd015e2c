//! The TCP connection under an SSH connection, owned by the relay: it can be ended from outside, at
//! once, by whoever holds it, and nothing that the kernel still keeps for the peer goes out after
//! that. With TLS or a WebSocket between it and SSH, those are under the same lock and end with it.
//! Touches the network; never waits.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tidegate_transport::layer::HEADROOM;
use tidegate_transport::stack::Stack;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::BeforeWrite;
use crate::clock::{self, Boot};

/// Bytes that may wait in the kernel without having been sent: what a fresh keystroke queues behind,
/// and what a cut by CHANNEL_CLOSE alone can no longer call back. Two full SSH packets; the bytes in
/// flight are not counted, so it costs no throughput.
const NOT_SENT: u32 = 64 * 1024;
/// How long to wait after a write that failed for want of the kernel's memory: no event tells that there
/// is some again.
const PAUSE: Duration = Duration::from_millis(10);
/// A connection whose writes fail for want of memory for so long is given up.
const SHORTAGE: Duration = Duration::from_secs(10);
/// How often a write that a signal interrupted is tried again at once.
const INTERRUPTS: usize = 8;
/// A sweep older than this no longer lets anybody write.
const FRESH: Duration = Duration::from_millis(50);
/// Bytes that go into the layers at once, and with what the layers add the most that waits in them: two
/// TLS records.
const AHEAD: usize = 32 * 1024;
/// Reads that give no plaintext, such as of a long record's parts, after which others get their turn.
const READS: usize = 8;

/// A socket, shared by the SSH connection on it and by whoever may end it.
pub(super) struct Socket {
    state: Mutex<State>,
    killed: CancellationToken,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Something waits in the layers for the kernel.
    waits: AtomicBool,
    before_write: BeforeWrite,
}

/// What is between the socket and SSH.
struct Layers {
    stack: Stack,
    /// What was read before SSH began, and SSH reads first.
    first: Vec<u8>,
    /// The peer has said that nothing more comes.
    ended: bool,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Came {
    /// 0 is the peer's end.
    pub bytes: usize,
    /// The kernel may have more.
    pub more: bool,
}

struct State {
    /// Gone once the connection has ended, by whichever side.
    tcp: Option<TcpStream>,
    /// `None`: SSH uses the socket itself.
    layers: Option<Box<Layers>>,
    reading: Option<Waker>,
    writing: Option<Waker>,
    /// Since when the kernel takes nothing of what is to be written.
    stuck: Option<Boot>,
    /// Since when it has no memory for it, and when to try again.
    short: Option<(Boot, Boot)>,
    /// The errors of the next writes.
    #[cfg(test)]
    faults: std::collections::VecDeque<i32>,
}

impl State {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(code) = self.faults.pop_front() {
            return Err(io::Error::from_raw_os_error(code));
        }
        self.tcp.as_ref().ok_or_else(ended)?.try_write(bytes)
    }
}

/// Whether an error says that the kernel has no memory now; that passes.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::NOBUFS, Errno::NOMEM];
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::Interrupted
        || shortages.iter().any(|errno| Some(errno.raw_os_error()) == code)
}

/// Shows that what must be looked at before a write has been looked at just now.
#[derive(Clone, Copy)]
pub(super) struct Swept(Boot);

impl Swept {
    /// The process may have stood still since then.
    fn is_fresh(self) -> bool {
        clock::boot().since(self.0) < FRESH
    }
}

/// What became of bytes that were to be written.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// So many of them.
    Some(usize),
    /// None now: the kernel is full or has no memory, or the last sweep was too long ago.
    Full,
    /// The connection takes no more, ever.
    Broken,
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the relay ended the connection")
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl Socket {
    pub fn new(tcp: TcpStream, before_write: BeforeWrite) -> Self {
        // A failure of either costs only latency.
        let options = socket2::SockRef::from(&tcp);
        for (option, set) in [
            ("TCP_NODELAY", options.set_tcp_nodelay(true)),
            ("TCP_NOTSENT_LOWAT", options.set_tcp_notsent_lowat(NOT_SENT)),
        ] {
            if let Err(error) = set {
                tracing::debug!(%error, option, "a socket option was refused");
            }
        }
        Self {
            state: Mutex::new(State {
                tcp: Some(tcp),
                layers: None,
                reading: None,
                writing: None,
                stuck: None,
                short: None,
                #[cfg(test)]
                faults: std::collections::VecDeque::new(),
            }),
            killed: CancellationToken::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            before_write,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on reads and writes are SSH's and go through these layers; `first` was read of it.
    pub fn begin(&self, stack: Stack, first: Vec<u8>) {
        let mut state = self.lock();
        if state.tcp.is_some() {
            let layers = Layers { stack, first, ended: false };
            state.layers = Some(Box::new(layers));
        }
    }

    /// Ends the connection now: the peer gets a reset, what was not sent is thrown away, the
    /// descriptor is closed when this returns, and the task that waits on the socket wakes.
    pub fn kill(&self) {
        self.end(true);
        self.killed.cancel();
    }

    /// Cancelled by [`Socket::kill`].
    pub fn killed(&self) -> &CancellationToken {
        &self.killed
    }

    /// Closes the socket, in peace where nobody has killed it yet.
    pub fn close(&self) {
        self.end(false);
    }

    fn end(&self, reset: bool) {
        let (tcp, wakers) = {
            let mut state = self.lock();
            let wakers = [state.reading.take(), state.writing.take()];
            state.layers = None;
            self.waits.store(false, Ordering::Release);
            (state.tcp.take(), wakers)
        };
        if let Some(tcp) = tcp {
            if reset
                && let Err(error) = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))
            {
                // Unlikely; then the peer gets a FIN behind what the kernel still holds.
                tracing::warn!(%error, "a socket could not be reset");
            }
            drop(tcp);
        }
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Bytes read from and written to the peer, SSH and all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }

    /// Since when the kernel takes nothing of what is to be written; `None` while it does.
    pub fn stuck_since(&self) -> Option<Boot> {
        self.lock().stuck
    }

    /// Nobody could write before `now`: that time does not count.
    pub fn stood_still(&self, now: Boot) {
        let mut state = self.lock();
        state.stuck = state.stuck.map(|_| now);
    }

    /// To be called before a write, without a lock that ending any connection could want.
    pub fn sweep(&self) -> Swept {
        (self.before_write.0)();
        Swept(clock::boot())
    }

    /// Reads what is there. A fault of a layer is an error of the kind `InvalidData`.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Came>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        match state.layers.take() {
            None => self.read_raw(state, cx, buffer),
            Some(mut layers) => {
                let read = self.read_layers(state, &mut layers, cx, buffer);
                let plain = layers.first.is_empty() && layers.stack.is_plain();
                state.layers = (!plain).then_some(layers);
                read
            }
        }
    }

    fn read_raw(
        &self,
        state: &mut State,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<Came>> {
        let Some(tcp) = &mut state.tcp else { return Poll::Ready(Err(ended())) };
        let most = buffer.len();
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(tcp).poll_read(cx, &mut buffer);
        if read.is_pending() {
            keep(&mut state.reading, cx);
        }
        ready!(read)?;
        let bytes = buffer.filled().len();
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        Poll::Ready(Ok(Came { bytes, more: bytes == most }))
    }

    fn read_layers(
        &self,
        state: &mut State,
        layers: &mut Layers,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<Came>> {
        if !layers.first.is_empty() {
            let bytes = layers.first.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(layers.first.drain(..bytes)) {
                *to = from;
            }
            if layers.first.is_empty() {
                layers.first = Vec::new();
            }
            return Poll::Ready(Ok(Came { bytes, more: true }));
        }
        if layers.ended {
            return Poll::Ready(Ok(Came { bytes: 0, more: false }));
        }
        if layers.stack.is_plain() {
            return self.read_raw(state, cx, buffer);
        }
        for _ in 0..READS {
            let room = buffer.get_mut(HEADROOM..).unwrap_or_default();
            let came = ready!(self.read_raw(state, cx, room))?;
            if came.bytes == 0 {
                layers.ended = true;
                return Poll::Ready(Ok(came));
            }
            let raw = HEADROOM..HEADROOM.saturating_add(came.bytes);
            let got = layers.stack.receive(buffer, raw);
            // What a layer answers, also to a fault.
            self.waits.store(!layers.stack.output().is_empty(), Ordering::Release);
            let got = got.map_err(|fault| {
                layers.ended = true;
                io::Error::new(io::ErrorKind::InvalidData, fault)
            })?;
            layers.ended |= got.ended;
            if got.plain > 0 || got.ended {
                return Poll::Ready(Ok(Came { bytes: got.plain, more: came.more }));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what the kernel takes at once. With layers, what they hold goes first, then as much as they
    /// take: with no `bytes`, only what they hold.
    pub fn write(&self, swept: Swept, bytes: &[u8]) -> Written {
        if !swept.is_fresh() {
            return Written::Full;
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        match state.layers.take() {
            None => self.write_raw(state, bytes),
            Some(mut layers) => {
                let written = self.write_layers(state, &mut layers, bytes);
                if written == Written::Broken {
                    let all = layers.stack.output().len();
                    layers.stack.output().consume(all);
                }
                self.waits.store(!layers.stack.output().is_empty(), Ordering::Release);
                state.layers = Some(layers);
                written
            }
        }
    }

    fn write_layers(&self, state: &mut State, layers: &mut Layers, bytes: &[u8]) -> Written {
        match self.write_held(state, layers) {
            Written::Some(_) => {}
            other => return other,
        }
        let Some(bytes) = bytes.get(..bytes.len().min(AHEAD)).filter(|bytes| !bytes.is_empty())
        else {
            return Written::Some(0);
        };
        match layers.stack.send(bytes) {
            Ok(count) if count > 0 => match self.write_held(state, layers) {
                Written::Broken => Written::Broken,
                Written::Some(_) | Written::Full => Written::Some(count),
            },
            Ok(_) | Err(_) => Written::Broken,
        }
    }

    /// What the layers hold; `Some`: they hold nothing any more.
    fn write_held(&self, state: &mut State, layers: &mut Layers) -> Written {
        while !layers.stack.output().is_empty() {
            match self.write_raw(state, layers.stack.output().as_slice()) {
                Written::Some(count) => layers.stack.output().consume(count),
                other => return other,
            }
        }
        Written::Some(0)
    }

    /// Whether something waits in the layers that [`Socket::write`] would write.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    fn write_raw(&self, state: &mut State, bytes: &[u8]) -> Written {
        if state.short.is_some_and(|(_, again)| clock::boot() < again) {
            return Written::Full;
        }
        let mut sent = state.send(bytes);
        for _ in 0..INTERRUPTS {
            if !matches!(&sent, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
                break;
            }
            sent = state.send(bytes);
        }
        match sent {
            Ok(count) => {
                state.stuck = None;
                state.short = None;
                self.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
                Written::Some(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.short = None;
                state.stuck.get_or_insert_with(clock::boot);
                Written::Full
            }
            Err(error) if is_shortage(&error) => {
                let now = clock::boot();
                let since = state.short.map_or(now, |(since, _)| since);
                if now.since(since) >= SHORTAGE {
                    tracing::warn!(%error, "a connection is given up, since writes fail");
                    state.short = None;
                    return Written::Broken;
                }
                state.short = Some((since, now.plus(PAUSE)));
                state.stuck.get_or_insert(now);
                Written::Full
            }
            Err(_) => {
                state.short = None;
                Written::Broken
            }
        }
    }

    /// When a write that failed for want of memory is to be tried again.
    pub fn retry_at(&self) -> Option<Boot> {
        self.lock().short.map(|(_, again)| again)
    }

    /// Whether the kernel takes more; the task of `cx` is woken when it does, or when the socket ends. Of
    /// [`Socket::retry_at`] it has to wake by itself.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.tcp.is_some() && state.short.is_some() {
            keep(&mut state.writing, cx);
            return Poll::Pending;
        }
        let Some(tcp) = &state.tcp else { return Poll::Ready(()) };
        let ready = tcp.poll_write_ready(cx).map(drop);
        if ready.is_pending() {
            keep(&mut state.writing, cx);
        }
        ready
    }

    /// Says goodbye in the layers and sends a FIN behind what was written; `false`: there is still
    /// something to be written before.
    pub fn finish(&self, swept: Swept) -> bool {
        if let Some(layers) = &mut self.lock().layers {
            layers.stack.close();
        }
        if self.write(swept, &[]) == Written::Full {
            return false;
        }
        if let Some(tcp) = &self.lock().tcp {
            // A peer that is gone already needs none.
            let _ = socket2::SockRef::from(tcp).shutdown(Shutdown::Write);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rustix::io::Errno;

    use super::super::testing::sockets;
    use super::*;

    async fn socket() -> (Socket, TcpStream) {
        let (tcp, peer) = sockets().await;
        tcp.writable().await.unwrap();
        (Socket::new(tcp, BeforeWrite::default()), peer)
    }

    fn fail(socket: &Socket, errors: &[Errno]) {
        socket.lock().faults.extend(errors.iter().map(|error| error.raw_os_error()));
    }

    #[tokio::test]
    async fn nothing_is_written_on_an_old_sweep() {
        let (socket, _peer) = socket().await;
        let now = clock::boot().since_start();
        let old = Swept(Boot::from_start(now.saturating_sub(FRESH)));
        assert_eq!(socket.write(old, b"late"), Written::Full);
        assert_eq!((socket.bytes(), socket.stuck_since()), ((0, 0), None));
        assert_eq!(socket.write(socket.sweep(), b"now"), Written::Some(3));
    }

    #[tokio::test]
    async fn want_of_memory_passes() {
        let (socket, _peer) = socket().await;
        for error in [Errno::NOBUFS, Errno::NOMEM] {
            fail(&socket, &[error]);
            assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Full, "{error}");
            let again = socket.retry_at().unwrap();
            assert!(again.since(clock::boot()) <= PAUSE && socket.stuck_since().is_some());
            let writable = poll_fn(|cx| Poll::Ready(socket.poll_writable(cx))).await;
            assert!(writable.is_pending(), "readiness would be told at once, for ever");
            tokio::time::sleep(PAUSE * 2).await;
            assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Some(3), "{error}");
            assert_eq!((socket.retry_at(), socket.stuck_since()), (None, None));
        }
        // A signal costs nothing.
        fail(&socket, &[Errno::INTR, Errno::INTR]);
        assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Some(3));
    }

    #[tokio::test]
    async fn want_of_memory_for_long_ends_the_connection_and_so_does_anything_else() {
        let (socket, _peer) = socket().await;
        fail(&socket, &[Errno::NOBUFS]);
        assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Full);
        let now = clock::boot().since_start();
        let long_ago = Boot::from_start(now.saturating_sub(SHORTAGE));
        socket.lock().short = Some((long_ago, long_ago));
        fail(&socket, &[Errno::NOBUFS]);
        assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Broken);
        fail(&socket, &[Errno::NOBUFS]);
        assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Full);
        tokio::time::sleep(PAUSE * 2).await;
        fail(&socket, &[Errno::PIPE]);
        assert_eq!(socket.write(socket.sweep(), b"abc"), Written::Broken);
        assert_eq!(socket.retry_at(), None, "nothing is to be tried again");
    }
}
