//! The TCP connection under an SSH connection, owned by the relay: it can be ended from outside, at
//! once, by whoever holds it, and nothing that the kernel still keeps for the peer goes out after
//! that. Touches the network; never waits.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::BeforeWrite;
use crate::clock::{self, Boot};

/// Bytes that may wait in the kernel without having been sent: what a fresh keystroke queues behind,
/// and what a cut by CHANNEL_CLOSE alone can no longer call back. Two full SSH packets; the bytes in
/// flight are not counted, so it costs no throughput.
const NOT_SENT: u32 = 64 * 1024;

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
    /// Bytes that were read before the SSH library took over, until it has read them again.
    again: Vec<u8>,
    reader: Waiting,
    writer: Waiting,
}

/// One direction in which the SSH library waits for the peer.
#[derive(Default)]
struct Waiting {
    since: Option<Boot>,
    waker: Option<Waker>,
}

impl Waiting {
    fn begin(&mut self, cx: &Context<'_>) {
        self.since.get_or_insert_with(clock::boot);
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn end(&mut self) {
        self.since = None;
        self.waker = None;
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the relay ended the connection")
}

impl Socket {
    pub fn new(tcp: TcpStream, before_write: BeforeWrite) -> Arc<Self> {
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
        Arc::new(Self {
            state: Mutex::new(State {
                tcp: Some(tcp),
                again: Vec::new(),
                reader: Waiting::default(),
                writer: Waiting::default(),
            }),
            killed: CancellationToken::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            before_write,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection now: the peer gets a reset, what was not sent is thrown away, the
    /// descriptor is closed when this returns, and every task that waits on the socket wakes.
    pub fn kill(&self) {
        self.close(true);
        self.killed.cancel();
    }

    /// Cancelled by [`Socket::kill`].
    pub fn killed(&self) -> &CancellationToken {
        &self.killed
    }

    fn close(&self, reset: bool) {
        let (tcp, wakers) = {
            let mut state = self.lock();
            let wakers = [state.reader.waker.take(), state.writer.waker.take()];
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

    /// For how long the library has been waiting for the peer, in the worse of the two directions.
    /// It is zero while the library does not even want to read: a slow consumer is not a dead peer.
    pub fn waiting(&self) -> Duration {
        let now = clock::boot();
        let state = self.lock();
        let longest = [state.reader.since, state.writer.since].into_iter().flatten().min();
        longest.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Puts bytes back in front of what comes next; only before the library reads.
    pub fn read_again(&self, bytes: &[u8]) {
        self.lock().again.extend_from_slice(bytes);
    }
}

/// The stream that the SSH library reads and writes. Dropping it closes the socket, in peace where
/// nobody has killed it yet.
pub(super) struct Stream(pub Arc<Socket>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.close(false);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Some(tcp) = &mut state.tcp else { return Poll::Ready(Err(ended())) };
        if !state.again.is_empty() {
            let count = state.again.len().min(buf.remaining());
            buf.put_slice(&state.again.drain(..count).collect::<Vec<u8>>());
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(tcp).poll_read(cx, buf);
        if read.is_pending() {
            state.reader.begin(cx);
        } else {
            state.reader.end();
            let count = buf.filled().len() - before;
            self.0.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // It may kill this very socket, so it is called without the lock.
        (self.0.before_write.0)();
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Some(tcp) = &mut state.tcp else { return Poll::Ready(Err(ended())) };
        let written = Pin::new(tcp).poll_write(cx, buf);
        match &written {
            Poll::Pending => state.writer.begin(cx),
            Poll::Ready(count) => {
                state.writer.end();
                let count = count.as_ref().map_or(0, |count| *count as u64);
                self.0.bytes_out.fetch_add(count, Ordering::Relaxed);
            }
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream keeps nothing of its own.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0.lock().tcp {
            Some(tcp) => match Pin::new(tcp).poll_shutdown(cx) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
            None => Poll::Ready(Err(ended())),
        }
    }
}
