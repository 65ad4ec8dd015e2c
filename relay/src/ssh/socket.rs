//! The TCP connection under an SSH connection, owned by the relay: it can be ended from outside, at
//! once, by whoever holds it, and nothing that the kernel still keeps for the peer goes out after
//! that. Touches the network; never waits.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::BeforeWrite;
use crate::clock::{self, Boot};

/// Bytes that may wait in the kernel without having been sent: what a fresh keystroke queues behind,
/// and what a cut by CHANNEL_CLOSE alone can no longer call back. Two full SSH packets; the bytes in
/// flight are not counted, so it costs no throughput.
const NOT_SENT: u32 = 64 * 1024;
/// A sweep older than this no longer lets anybody write.
const FRESH: Duration = Duration::from_millis(50);

/// A socket, shared by the SSH connection on it and by whoever may end it.
pub(super) struct Socket {
    state: Mutex<State>,
    killed: CancellationToken,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    before_write: BeforeWrite,
}

struct State {
    /// Gone once the connection has ended, by whichever side.
    tcp: Option<TcpStream>,
    reading: Option<Waker>,
    writing: Option<Waker>,
    /// Since when the kernel takes nothing of what is to be written.
    stuck: Option<Boot>,
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
    /// None now: the kernel is full, or the last sweep was too long ago.
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
            state: Mutex::new(State { tcp: Some(tcp), reading: None, writing: None, stuck: None }),
            killed: CancellationToken::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            before_write,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// To be called before a write, without a lock that ending any connection could want.
    pub fn sweep(&self) -> Swept {
        (self.before_write.0)();
        Swept(clock::boot())
    }

    /// Reads what is there. 0 bytes are the peer's end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(tcp) = &mut state.tcp else { return Poll::Ready(Err(ended())) };
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(tcp).poll_read(cx, &mut buffer);
        if read.is_pending() {
            keep(&mut state.reading, cx);
        }
        ready!(read)?;
        let count = buffer.filled().len();
        self.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    /// Writes what the kernel takes at once.
    pub fn write(&self, swept: Swept, bytes: &[u8]) -> Written {
        if !swept.is_fresh() {
            return Written::Full;
        }
        let mut state = self.lock();
        let Some(tcp) = &state.tcp else { return Written::Broken };
        match tcp.try_write(bytes) {
            Ok(count) => {
                state.stuck = None;
                self.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
                Written::Some(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.stuck.get_or_insert_with(clock::boot);
                Written::Full
            }
            Err(_) => Written::Broken,
        }
    }

    /// Whether the kernel takes more; the task of `cx` is woken when it does, or when the socket ends.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let Some(tcp) = &state.tcp else { return Poll::Ready(()) };
        let ready = tcp.poll_write_ready(cx).map(drop);
        if ready.is_pending() {
            keep(&mut state.writing, cx);
        }
        ready
    }

    /// Sends a FIN behind what was written.
    pub fn finish(&self) {
        if let Some(tcp) = &self.lock().tcp {
            // A peer that is gone already needs none.
            let _ = socket2::SockRef::from(tcp).shutdown(Shutdown::Write);
        }
    }
}
