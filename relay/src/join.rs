//! Joins a staff channel and a terminal's channel: bytes pass both ways, each way's end of stream
//! alone, and nothing passes once the session is no longer live (invariants 1 and 2).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::clock;
use crate::session::Session;
use crate::ssh::Channel;

/// One packet's worth; the libraries on both sides send no larger ones.
const CHUNK: usize = 32 << 10;
/// How long what one side sent before it closed may take to reach the other.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs until both ways are done, a side has closed, or the session has ended. Dropping the two
/// channels, which this does on return, closes them.
pub async fn join(session: &Session, staff: Channel, terminal: Channel) {
    let (staff_closed, terminal_closed) = (staff.closed(), terminal.closed());
    let (staff_read, staff_write) = tokio::io::split(staff);
    let (terminal_read, terminal_write) = tokio::io::split(terminal);
    let (bytes_in, bytes_out) = (&session.bytes_in, &session.bytes_out);
    let up = pass(staff_read, Gated { session, to: terminal_write, bytes: bytes_in });
    let down = pass(terminal_read, Gated { session, to: staff_write, bytes: bytes_out });
    let both = async {
        let mut up = std::pin::pin!(up);
        let mut down = std::pin::pin!(down);
        let (mut up_done, mut down_done) = (false, false);
        let (mut staff_gone, mut terminal_gone) = (false, false);
        // A side that closed reads nothing more, so only what it sent is still worth carrying.
        while !((up_done || terminal_gone) && (down_done || staff_gone)) {
            tokio::select! {
                biased;
                () = &mut up, if !up_done => up_done = true,
                () = &mut down, if !down_done => down_done = true,
                () = staff_closed.wait(), if !staff_gone => staff_gone = true,
                () = terminal_closed.wait(), if !terminal_gone => terminal_gone = true,
                () = patience(staff_gone || terminal_gone) => break,
            }
        }
        // With its terminal's connection gone the session is about to end: the login user's client
        // is told why before its channel is closed.
        if terminal_gone && session.terminal.is_gone() {
            session.ended().await;
        }
    };
    tokio::select! {
        biased;
        () = session.ended() => {}
        () = both => {}
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

/// Carries bytes one way until the end of the stream, an error, or the end of the session.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let Some(chunk) = buffer.get(..read) else { return };
        if to.write_all(chunk).await.is_err() {
            // The reader is gone or the session is over; either is seen by whoever joins.
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Asks before each write whether a byte may pass now: the process may have stood still since the
/// last look at the clocks, or the write waited for the reader past the deadline.
struct Gated<'a, W> {
    session: &'a Session,
    to: W,
    /// What has passed, for the trail.
    bytes: &'a AtomicU64,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Gated<'_, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.session.may_forward(clock::now()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut self.to).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.bytes.fetch_add(u64::try_from(*count).unwrap_or(0), Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    /// A stream that stops with its terminal's connection has no end to pass on: an EOF makes the
    /// client of `ssh -J` leave before it is told why the session ends.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.session.terminal.is_gone() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}
