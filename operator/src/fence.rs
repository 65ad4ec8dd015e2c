//! The API client that writes go through. Touches the network and the boot clock.
//!
//! Between a writer's look at the lease and the byte that leaves the machine there is a library, a
//! queue, perhaps a pause of the whole process. So the same question is asked once more where it
//! counts: right before each write to the socket, below TLS. A leader that was stopped past its lease
//! finds its connections shut; nothing that it had prepared is sent.
//!
//! What was sent in time must not be done late either: each request tells the server how long it may
//! take, which is never longer than the lease. And what the kernel was given in time it would send again
//! and again for minutes, should the network be parted meanwhile: by `TCP_USER_TIMEOUT` it drops the
//! connection once a byte has not been acknowledged for as long as lies between the end of what this
//! replica counts on and the lease's own, so that nothing arrives when another leads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::{BoxError, Service, ServiceBuilder};

use crate::lease::{DURATION, HOLD, Held};

/// No write is waited for longer, on either side.
pub const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// How long the kernel may go on sending what was not acknowledged.
const UNACKNOWLEDGED: Duration = DURATION.saturating_sub(HOLD);

/// A client whose requests leave the machine only while the lease is held.
pub fn client(config: &Config, held: &Held) -> Result<Client, kube::Error> {
    let plain = connector();
    let fenced = Fenced { inner: plain, held: held.clone() };
    let connector = config.rustls_https_connector_with_connector(fenced)?;
    let http: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let held = held.clone();
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_request(move |request| bounded(request, held.remaining().unwrap_or_default()))
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// What makes the connections, below TLS.
fn connector() -> HttpConnector {
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_connect_timeout(Some(LONGEST_WRITE));
    plain.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    plain
}

/// The request, with the time that the server may take for it.
fn bounded(mut request: Request<Body>, remaining: Duration) -> Request<Body> {
    let limit = remaining.min(LONGEST_WRITE).as_millis().max(1);
    let uri = request.uri();
    let path = uri.path();
    let all = match uri.query() {
        Some(query) if !query.is_empty() => format!("{path}?{query}&timeout={limit}ms"),
        _ => format!("{path}?timeout={limit}ms"),
    };
    let mut parts = uri.clone().into_parts();
    // Not reached: what was a path and gets digits is one still. Without it the server's own limit
    // holds, and the fence all the same.
    if let Ok(all) = all.try_into() {
        parts.path_and_query = Some(all);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// A connector, or a connection, that sends nothing unless the lease is held.
#[derive(Clone, Debug)]
struct Fenced<T> {
    inner: T,
    held: Held,
}

impl<T> Fenced<T> {
    fn open(&self) -> io::Result<()> {
        if self.held.remaining().is_some() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not sent, since this replica no longer surely leads",
        ))
    }
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl<C> Service<Uri> for Fenced<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    type Response = Fenced<C::Response>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let held = self.held.clone();
        let connecting = self.inner.call(to);
        Box::pin(async move {
            let inner = connecting.await.map_err(Into::into)?;
            Ok(Fenced { inner, held })
        })
    }
}

impl<T: Connection> Connection for Fenced<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl<T: Read + Unpin> Read for Fenced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Fenced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open()?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidegate_process::clock;

    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<u8>>);

    impl Write for Sink {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn not_a_byte_is_sent_once_the_lease_is_over() {
        let held = Held::new();
        held.extend(clock::boot().plus(Duration::from_mins(1)));
        let mut fenced = Fenced { inner: Sink::default(), held: held.clone() };
        let mut send = |bytes: &'static [u8]| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            Pin::new(&mut fenced).poll_write(&mut cx, bytes)
        };
        assert!(matches!(send(b"before"), Poll::Ready(Ok(6))));
        held.give_up();
        assert!(matches!(send(b"after"), Poll::Ready(Err(_))));
        assert_eq!(*fenced.inner.0.lock().unwrap(), b"before");
    }

    #[tokio::test]
    async fn the_kernel_sends_nothing_for_longer_than_the_lease_lasts() {
        assert_eq!(UNACKNOWLEDGED, Duration::from_secs(3));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connection = connector().call(to).await.unwrap();
        let timeout = rustix::net::sockopt::tcp_user_timeout(connection.inner()).unwrap();
        assert_eq!(timeout, 3000);
    }

    #[test]
    fn a_request_says_how_long_it_may_take() {
        for (given, expected) in [
            ("https://a:1/api/v1/x", "https://a:1/api/v1/x?timeout=2500ms"),
            ("https://a:1/x?force=true", "https://a:1/x?force=true&timeout=2500ms"),
            ("/x?", "/x?timeout=2500ms"),
        ] {
            let request = Request::builder().uri(given).body(Body::empty()).unwrap();
            let bounded = bounded(request, Duration::from_millis(2500));
            assert_eq!(bounded.uri().to_string(), expected);
        }
        let request = Request::builder().uri("/x").body(Body::empty()).unwrap();
        let bounded = bounded(request, Duration::from_hours(1));
        assert_eq!(bounded.uri().to_string(), "/x?timeout=10000ms");
    }
}
