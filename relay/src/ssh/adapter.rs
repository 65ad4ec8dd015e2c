//! Turns the SSH library's callbacks into calls on a [`Peer`], and nothing else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Msg, Session};
use russh::{ChannelId, ChannelOpenFailure, cipher, compression, kex, mac};
use tidegate_policy::model::KeyBlob;
use tokio::sync::oneshot;

use super::channel::{Channel, Closings, Console};
use super::socket::{Socket, Stream};
use super::{ConsoleRequest, DirectOpen, KEEPALIVE, KEEPALIVE_MISSED, KEYS_OFFERED, Peer, Refusal};
use crate::supervisor::Supervisor;

/// The window given for each channel, in bytes; OpenSSH's own.
const WINDOW: u32 = 2 << 20;
/// Packets of one channel that may wait for their reader, at most 32 KiB each. More than an inner
/// SSH ever has in flight, so that an idle reader stalls only itself.
const CHANNEL_QUEUE: usize = 256;
/// Messages that may wait to be sealed on one connection: what a cut can no longer call back.
const CONNECTION_QUEUE: usize = 4;
/// A peer that neither reads nor answers this long is gone, keepalives included.
const STUCK: Duration = Duration::from_secs(75);

/// The library's settings, made once and shared by every connection.
#[derive(Clone)]
pub struct Settings(Arc<Config>);

impl Settings {
    /// `host_key` is the relay's identity to every peer.
    pub fn new(host_key: ssh_key::PrivateKey) -> Self {
        let preferred = russh::Preferred {
            kex: Cow::Borrowed(&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::ECDH_SHA2_NISTP256,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]),
            cipher: Cow::Borrowed(&[
                cipher::AES_128_GCM,
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
            ]),
            // Never used beside AEAD ciphers, yet some clients fail on an empty list.
            mac: Cow::Borrowed(&[mac::HMAC_SHA256, mac::HMAC_SHA512]),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..russh::Preferred::DEFAULT
        };
        Self(Arc::new(Config {
            server_id: russh::SshId::Standard(Cow::Borrowed(concat!(
                "SSH-2.0-tidegate_",
                env!("CARGO_PKG_VERSION")
            ))),
            methods: (&[russh::MethodKind::PublicKey][..]).into(),
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![host_key],
            window_size: WINDOW,
            channel_buffer_size: CHANNEL_QUEUE,
            event_buffer_size: CONNECTION_QUEUE,
            preferred,
            max_auth_attempts: KEYS_OFFERED,
            inactivity_timeout: Some(STUCK),
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: KEEPALIVE_MISSED,
            nodelay: true,
            ..Config::default()
        }))
    }
}

/// Speaks SSH on `socket` for `peer` until the connection is over. The error says how it ended
/// where that was not the peer's own doing.
pub async fn serve(
    settings: &Settings,
    socket: Arc<Socket>,
    tasks: Supervisor,
    peer: impl Peer,
) -> Result<(), russh::Error> {
    let adapter = Adapter {
        peer,
        tasks,
        closings: Closings::default(),
        consoles: HashMap::new(),
    };
    let running = russh::server::run_stream(settings.0.clone(), Stream(socket), adapter).await?;
    running.await
}

/// A way to reach a live connection from outside of it.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: russh::server::Handle,
    closings: Closings,
    tasks: Supervisor,
}

/// Why a terminal's channel could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the terminal refused to open its service")]
    Refused,
    #[error("the terminal's connection has just ended")]
    Gone,
}

impl Handle {
    /// Opens a `forwarded-tcpip` channel that names `host` and `port` as the forward was asked
    /// for. Dropping the future gives up: a channel that is confirmed later is closed at once.
    pub async fn open_forwarded(&self, host: &str, port: u32) -> Result<Channel, OpenError> {
        let (sender, receiver) = oneshot::channel();
        let (inner, closings) = (self.inner.clone(), self.closings.clone());
        let host = host.to_owned();
        self.tasks.spawn("open a forwarded channel", async move {
            let opened = match inner.channel_open_forwarded_tcpip(host, port, "0.0.0.0", 0).await {
                Ok(channel) => Ok(Channel::new(channel, closings)),
                Err(russh::Error::ChannelOpenFailure(_)) => Err(OpenError::Refused),
                Err(_) => Err(OpenError::Gone),
            };
            // Nobody waits any more: dropping the channel closes it.
            drop(sender.send(opened));
        });
        receiver.await.unwrap_or(Err(OpenError::Gone))
    }

    /// Whether the peer answers a request within `patience`. The library offers no keepalive that
    /// tells of its answer, so this asks for what no client grants: a refusal is life.
    pub async fn answers(&self, patience: Duration) -> bool {
        let asked = self.inner.cancel_forward_tcpip("keepalive@tidegate.dev".to_owned(), 0);
        tokio::time::timeout(patience, asked).await.is_ok()
    }

    /// Asks the connection to send a DISCONNECT; how long that takes depends on the peer.
    pub async fn disconnect(&self, reason: &str) {
        let by_application = russh::Disconnect::ByApplication;
        let _ = self.inner.disconnect(by_application, reason.to_owned(), "en".to_owned()).await;
    }
}

/// A channel that a peer wants opened, until it is answered; dropping it refuses.
pub struct Pending {
    channel: russh::Channel<Msg>,
    reply: ChannelOpenHandle,
    closings: Closings,
}

impl Pending {
    pub async fn accept(self) -> Channel {
        // Before the answer: the peer may close right after it.
        let channel = Channel::new(self.channel, self.closings);
        drop(channel.closed());
        self.reply.accept().await;
        channel
    }

    /// `sentence` reaches the person as text of the refusal.
    pub async fn refuse(self, why: Refusal, sentence: &str) {
        let code = match why {
            Refusal::Prohibited => 1,
            Refusal::ConnectFailed => 2,
            Refusal::ResourceShortage => 4,
        };
        self.reply.reject(ChannelOpenFailure::Other { code, reason: sentence.to_owned() }).await;
    }
}

struct Adapter<P> {
    peer: P,
    tasks: Supervisor,
    closings: Closings,
    /// Session channels that have not asked for anything yet, and whether they asked for a pty.
    consoles: HashMap<ChannelId, (russh::Channel<Msg>, bool)>,
}

/// Session channels that a peer may hold without using them.
const IDLE_CONSOLES: usize = 8;

impl<P> Drop for Adapter<P> {
    fn drop(&mut self) {
        self.closings.close_all();
    }
}

impl<P: Peer> Adapter<P> {
    fn console(
        &mut self,
        id: ChannelId,
        request: ConsoleRequest,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some((channel, crlf)) = self.consoles.remove(&id) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        self.peer.console(request, Console::new(channel, &self.closings, crlf));
        Ok(())
    }
}

/// SHA-1 signatures are refused whatever the key.
fn is_sha1(algorithm: &ssh_key::Algorithm) -> bool {
    matches!(algorithm, ssh_key::Algorithm::Rsa { hash: None } | ssh_key::Algorithm::Dsa)
}

fn blob(key: &ssh_key::PublicKey) -> Option<KeyBlob> {
    key.to_bytes().ok().map(KeyBlob::new)
}

impl<P: Peer> russh::server::Handler for Adapter<P> {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        let wanted = !is_sha1(offer.algorithm)
            && blob(offer.public_key).is_some_and(|key| self.peer.offered(user, &key));
        Ok(if wanted { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let let_in = !is_sha1(key.algorithm)
            && blob(key.public_key).is_some_and(|key| self.peer.proven(user, &key));
        Ok(if let_in { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        let handle = Handle {
            inner: session.handle(),
            closings: self.closings.clone(),
            tasks: self.tasks.clone(),
        };
        self.peer.begin(handle);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.consoles.remove(&id);
        self.closings.close(id);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.consoles.len() < IDLE_CONSOLES && self.peer.may_open_console() {
            self.consoles.insert(channel.id(), (channel, false));
            reply.accept().await;
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let pending = Pending { channel, reply, closings: self.closings.clone() };
        self.peer.open_direct(DirectOpen { host: host.to_owned(), port }, pending);
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::UnknownChannelType).await;
        self.peer.refused("an X11 channel");
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::UnknownChannelType).await;
        self.peer.refused("a forwarded-tcpip channel");
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(ChannelOpenFailure::UnknownChannelType).await;
        self.peer.refused("a connection to a Unix socket");
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.consoles.get_mut(&id) {
            Some((_, crlf)) => {
                *crlf = true;
                session.channel_success(id)
            }
            None => session.channel_failure(id),
        }
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.peer.refused("X11 forwarding");
        session.channel_failure(id)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, russh::Error> {
        self.peer.refused("agent forwarding");
        Ok(false)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.console(id, ConsoleRequest::Shell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.console(id, ConsoleRequest::Exec(command.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.console(id, ConsoleRequest::Subsystem(name.to_owned()), session)
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, russh::Error> {
        let answer = self.peer.forward(host, *port);
        if let Some(answer) = answer {
            *port = answer;
        }
        Ok(answer.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, russh::Error> {
        Ok(self.peer.cancel_forward(host, port))
    }

    async fn streamlocal_forward(
        &mut self,
        _: &str,
        _: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.peer.refused("forwarding of a Unix socket");
        Ok(false)
    }
}
