//! Simulated staff: many SSH connections from one process, each of which notes when its socket
//! ends.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Logins that are under way at once: below what one source may have before authentication.
const AT_ONCE: usize = 24;

struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A socket that notes when it was told of its end.
struct Noting {
    socket: TcpStream,
    end: Arc<Mutex<Option<Instant>>>,
}

impl Noting {
    fn note(&self) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.get_or_insert_with(Instant::now);
    }
}

/// The library drops the socket as soon as it has read a DISCONNECT.
impl Drop for Noting {
    fn drop(&mut self) {
        self.note();
    }
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        match &read {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => self.note(),
            Poll::Ready(Err(_)) => self.note(),
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// One connection with one open channel.
struct Member {
    end: Arc<Mutex<Option<Instant>>>,
    _handle: Handle<AnyHost>,
    _channel: russh::ChannelStream<Msg>,
}

/// Staff with one session each.
pub struct Crowd {
    members: Vec<Member>,
    runtime: tokio::runtime::Runtime,
}

impl Crowd {
    /// Logs in `targets.len()` times and opens a channel to each target, a host and a port behind
    /// which something echoes; returns when every channel has echoed.
    pub fn gather(relay: SocketAddr, login: &str, key: &Path, targets: &[(String, u16)]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let key = Arc::new(load_secret_key(key, None).expect("a key"));
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let joining: Vec<_> = targets
            .iter()
            .cloned()
            .map(|(host, port)| {
                let (key, turns, login) = (Arc::clone(&key), Arc::clone(&turns), login.to_owned());
                runtime.spawn(async move {
                    let _turn = turns.acquire().await.expect("a turn");
                    join(relay, login, key, host, port).await
                })
            })
            .collect();
        let members = joining
            .into_iter()
            .map(|joining| runtime.block_on(joining).expect("a member"))
            .collect();
        Self { members, runtime }
    }

    /// When each connection's socket ended, once all have or `within` has passed.
    pub fn ends(&self, within: Duration) -> Vec<Option<Instant>> {
        let until = Instant::now() + within;
        loop {
            let ends: Vec<_> = self
                .members
                .iter()
                .map(|member| *member.end.lock().unwrap_or_else(PoisonError::into_inner))
                .collect();
            if ends.iter().all(Option::is_some) || Instant::now() >= until {
                return ends;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // A channel's end is sent by a task, which needs the runtime.
        let _guard = self.runtime.enter();
        self.members.clear();
    }
}

/// Logs in and opens one channel to a target of any bytes, which no stock client sends; gives what
/// went wrong, `None` if nothing did.
pub fn open_once(relay: SocketAddr, login: &str, key: &Path, host: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let key = Arc::new(load_secret_key(key, None).expect("a key"));
    let opening = async {
        let config = Arc::new(client::Config::default());
        let mut handle = client::connect(config, relay, AnyHost).await?;
        let key = PrivateKeyWithHashAlg::new(key, None);
        handle.authenticate_publickey(login, key).await?;
        handle.channel_open_direct_tcpip(host, 443, "127.0.0.1", 65535).await.map(drop)
    };
    let opened = runtime.expect("a runtime").block_on(opening);
    opened.err().map(|error: russh::Error| error.to_string())
}

async fn join(
    relay: SocketAddr,
    login: String,
    key: Arc<russh::keys::PrivateKey>,
    host: String,
    port: u16,
) -> Member {
    let socket = TcpStream::connect(relay).await.expect("a connection");
    socket.set_nodelay(true).expect("an option");
    let end = Arc::new(Mutex::new(None));
    let noting = Noting { socket, end: Arc::clone(&end) };
    let config = Arc::new(client::Config::default());
    let mut handle =
        client::connect_stream(config, noting, AnyHost).await.expect("an SSH handshake");
    let key = PrivateKeyWithHashAlg::new(key, None);
    let result = handle.authenticate_publickey(login, key).await.expect("an answer");
    assert!(result.success(), "{result:?}");
    let channel = handle
        .channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 65535)
        .await
        .expect("an open channel");
    let mut channel = channel.into_stream();
    channel.write_all(b"ping").await.expect("a write");
    channel.flush().await.expect("a write");
    let mut answer = [0; 4];
    channel.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"ping");
    Member { end, _handle: handle, _channel: channel }
}
