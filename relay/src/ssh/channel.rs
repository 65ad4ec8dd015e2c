//! Channels: a byte stream for what is joined, a console for what the relay itself answers.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use russh::server::Msg;
use russh::{ChannelId, ChannelStream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Tells when the peer closed a channel, or its connection ended. Data that came before may still
/// wait to be read.
#[derive(Clone, Debug)]
pub struct Closed(CancellationToken);

impl Closed {
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// Which of a connection's channels the peer has closed. The library tells a reader only of EOF.
#[derive(Clone, Debug, Default)]
pub(super) struct Closings(Arc<Mutex<HashMap<ChannelId, CancellationToken>>>);

impl Closings {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ChannelId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token of a channel, made when first asked for.
    pub fn of(&self, id: ChannelId) -> CancellationToken {
        self.lock().entry(id).or_default().clone()
    }

    pub fn close(&self, id: ChannelId) {
        self.of(id).cancel();
    }

    pub fn close_all(&self) {
        self.lock().values().for_each(CancellationToken::cancel);
    }

    fn forget(&self, id: ChannelId) {
        self.lock().remove(&id);
    }
}

/// A channel as a stream: reading ends at the peer's EOF, shutting down sends ours, dropping it
/// sends CLOSE.
pub struct Channel {
    id: ChannelId,
    stream: ChannelStream<Msg>,
    closings: Closings,
}

impl Channel {
    pub(super) fn new(channel: russh::Channel<Msg>, closings: Closings) -> Self {
        Self { id: channel.id(), stream: channel.into_stream(), closings }
    }

    pub fn closed(&self) -> Closed {
        Closed(self.closings.of(self.id))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.closings.forget(self.id);
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A session channel on which the relay answers a person or a terminal by itself.
pub struct Console {
    channel: russh::Channel<Msg>,
    closed: Closed,
    /// The peer asked for a terminal: lines end in CRLF.
    crlf: bool,
}

impl Console {
    pub(super) fn new(channel: russh::Channel<Msg>, closings: &Closings, crlf: bool) -> Self {
        let closed = Closed(closings.of(channel.id()));
        Self { channel, closed, crlf }
    }

    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }

    /// Writes text to the peer's standard output; ends quietly when the peer is gone.
    pub async fn print(&self, text: &str) {
        self.write(None, text).await;
    }

    /// Writes text to the peer's standard error.
    pub async fn complain(&self, text: &str) {
        self.write(Some(1), text).await;
    }

    async fn write(&self, stream: Option<u32>, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = if self.crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
        let mut writer = self.channel.make_writer_ext(stream);
        tokio::select! {
            () = self.closed.wait() => {}
            _ = writer.write_all(text.as_bytes()) => {}
        }
    }

    /// Ends the channel with an exit status.
    pub async fn exit(self, status: u8) {
        let _ = self.channel.exit_status(u32::from(status)).await;
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
    }
}
