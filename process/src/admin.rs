//! The admin port: `/metrics`, `/healthz`, `/readyz`. Nothing here changes state.
//!
//! Touches the network (one listener). Bounded (invariant 8): one request per connection, of at most
//! 16 KiB, within 10 s; at the cap of connections the oldest gives way, so that slow peers cannot
//! keep a probe out.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections at once; a scraper and a few probes need one each.
const CONNECTIONS: usize = 64;
/// From accept to the last byte of the answer.
const LIFE: Duration = Duration::from_secs(10);
/// Of one connection, all bytes that it sends.
const LONGEST_REQUEST: usize = 16 << 10;
/// The text format's version, as scrapers negotiate it.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the admin port shows.
pub trait Shown: Send + Sync + 'static {
    /// Why this process should get no new work, one sentence each; empty: it is ready.
    fn not_ready(&self) -> Vec<String>;

    /// The metrics in the text format, brought up to date. The error is a sentence.
    fn metrics(&self) -> Result<String, String>;
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for --admin: {source}")]
pub struct AdminError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// A bound admin port.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source| AdminError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address as bound: the port is real where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves what every program shows; see [`Self::serve_pages`].
    pub async fn serve(self, shown: Arc<dyn Shown>) {
        let pages = Router::new()
            .route("/metrics", get(render))
            .route("/readyz", get(readyz))
            .with_state(shown);
        self.serve_pages(pages, "there are /metrics, /healthz and /readyz here\n").await;
    }

    /// Serves `pages` and `/healthz` for ever; to be spawned by the supervisor and dropped to stop.
    /// `names` is the line that names them all to who asks for another.
    pub async fn serve_pages(self, pages: Router, names: &'static str) {
        let router = pages
            .route("/healthz", get(async || "ok\n"))
            .fallback(async move || (StatusCode::NOT_FOUND, names))
            .layer(from_fn(read_only_once));
        let listener = Bounded { listener: self.listener, live: VecDeque::new() };
        // It never ends by itself: accept errors are waited out.
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin port ended");
        }
    }
}

/// Refuses everything but GET and HEAD, and ends the connection with the answer.
async fn read_only_once(request: Request, next: Next) -> Response {
    let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        next.run(request).await
    } else {
        let allow = [(header::ALLOW, "GET, HEAD")];
        (StatusCode::METHOD_NOT_ALLOWED, allow, "nothing here changes state\n").into_response()
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn render(State(shown): State<Arc<dyn Shown>>) -> Response {
    rendered(shown.metrics())
}

/// The answer with metrics in the text format, or that there are none.
pub fn rendered<E: std::fmt::Display>(metrics: Result<String, E>) -> Response {
    match metrics {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be rendered\n").into_response()
        }
    }
}

async fn readyz(State(shown): State<Arc<dyn Shown>>) -> Response {
    let reasons = shown.not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let mut text = String::new();
    for reason in reasons {
        // One line each, whatever it names.
        let reason: String =
            reason.chars().map(|c| if c.is_ascii() && !c.is_control() { c } else { '?' }).collect();
        let _ = writeln!(text, "{reason}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// A listener whose connections are few, short and small.
struct Bounded {
    listener: TcpListener,
    /// Oldest first; a connection cancels its own token when it is dropped.
    live: VecDeque<CancellationToken>,
}

impl Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.live.retain(|token| !token.is_cancelled());
                    if self.live.len() >= CONNECTIONS
                        && let Some(oldest) = self.live.pop_front()
                    {
                        oldest.cancel();
                    }
                    let over = CancellationToken::new();
                    self.live.push_back(over.clone());
                    return (Brief::new(stream, over), peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot accept");
                    // Out of descriptors, most likely: nothing tells when there are some again.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that errs once its time, its bytes or its place are used up.
struct Brief {
    stream: TcpStream,
    life: Pin<Box<tokio::time::Sleep>>,
    gave_way: Pin<Box<WaitForCancellationFutureOwned>>,
    over: CancellationToken,
    /// Bytes that it may still send.
    left: usize,
}

impl Drop for Brief {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Brief {
    fn new(stream: TcpStream, over: CancellationToken) -> Self {
        Self {
            stream,
            life: Box::pin(tokio::time::sleep(LIFE)),
            gave_way: Box::pin(over.clone().cancelled_owned()),
            over,
            left: LONGEST_REQUEST,
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        use std::future::Future as _;
        let over =
            self.life.as_mut().poll(cx).is_ready() || self.gave_way.as_mut().poll(cx).is_ready();
        if over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let got = buf.filled().len().saturating_sub(before);
            match self.left.checked_sub(got) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
        read
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
