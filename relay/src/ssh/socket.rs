//! The TCP connection under an SSH connection, owned by the relay: it can be closed from outside at
//! any moment, and nothing that the kernel still holds for it goes out afterwards.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What must hold before bytes are written to this connection's peer; `false` closes it.
///
/// It is asked before each write, so that nothing goes out after a gap in which the whole process
/// stood still (suspend, SIGSTOP) past a deadline.
pub type MayWrite = Box<dyn Fn() -> bool + Send + Sync>;

/// A connection's socket, shared by the SSH connection on it and by whoever may end it.
pub struct Socket {
    tcp: TcpStream,
    killed: AtomicBool,
    /// The peer or the SSH connection has closed its side.
    finished: AtomicBool,
    notify: Notify,
    may_write: std::sync::OnceLock<MayWrite>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("killed", &self.is_killed()).finish_non_exhaustive()
    }
}

impl Socket {
    pub fn new(tcp: TcpStream) -> Arc<Self> {
        // Latency of keystrokes; a failure costs only that.
        let _ = tcp.set_nodelay(true);
        Arc::new(Self {
            tcp,
            killed: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            notify: Notify::new(),
            may_write: std::sync::OnceLock::new(),
        })
    }

    /// Sets, once, what is asked before each write.
    pub fn guard(&self, may_write: MayWrite) {
        let _ = self.may_write.set(may_write);
    }

    /// Closes the connection now. What the kernel has not sent yet is thrown away, the peer sees a
    /// reset or the end of the stream, and every task that waits on this socket wakes.
    pub fn kill(&self) {
        if self.killed.swap(true, Ordering::AcqRel) {
            return;
        }
        let linger = rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO));
        let shut = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Both);
        if let (Err(error), _) | (_, Err(error)) = (linger, shut) {
            // ENOTCONN: the peer was faster.
            tracing::debug!(%error, "closing a socket");
        }
        self.notify.notify_waiters();
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Resolves once the peer has closed its side, or the socket was killed.
    pub async fn finished(&self) {
        let mut wait = std::pin::pin!(self.notify.notified());
        wait.as_mut().enable();
        if self.finished.load(Ordering::Acquire) || self.is_killed() {
            return;
        }
        wait.await;
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

/// The stream that the SSH connection reads and writes.
pub struct Stream(pub Arc<Socket>);

fn killed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "closed by the relay")
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.0.is_killed() {
                return Poll::Ready(Err(killed()));
            }
            ready!(self.0.tcp.poll_read_ready(cx))?;
            match self.0.tcp.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    if read == 0 && buf.remaining() > 0 {
                        self.0.finish();
                    }
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.0.finish();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.may_write.get().is_some_and(|may_write| !may_write()) {
            self.0.kill();
        }
        loop {
            if self.0.is_killed() {
                return Poll::Ready(Err(killed()));
            }
            ready!(self.0.tcp.poll_write_ready(cx))?;
            match self.0.tcp.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&self.0.tcp, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}
