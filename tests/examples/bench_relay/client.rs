//! Simulated clients: many connections that really speak the protocol, from one process. The only
//! module that names the library behind them.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, Handle, Msg, Session};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, cipher, kex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::relays::Login;
use crate::service::GREETING;

/// For a login, a forward or an open.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's own key.
#[derive(Clone)]
pub struct Key(Arc<PrivateKey>);

impl Key {
    /// The `n`th of as many keys as anybody wants. They protect nothing.
    pub fn numbered(n: u32) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        Self(Arc::new(Ed25519Keypair::from_seed(&seed).into()))
    }

    pub fn of(login: &Login) -> Self {
        Self(Arc::new(load_secret_key(&login.key, None).expect("a key")))
    }

    /// `ssh-ed25519 AAAA…`
    pub fn public(&self) -> String {
        self.0.public_key().to_openssh().expect("a public key")
    }
}

/// Takes any host key; greets on every channel that is opened to it.
struct Peer;

impl client::Handler for Peer {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // Not awaited here: it wants room in a queue that is emptied by whoever waits for this.
        tokio::spawn(async move {
            reply.accept().await;
            let mut stream = channel.into_stream();
            if stream.write_all(&[GREETING]).await.is_ok() && stream.flush().await.is_ok() {
                let _ = stream.read(&mut [0]).await;
            }
        });
        Ok(())
    }
}

/// A connection that is logged in, ended when dropped (within a runtime).
pub struct Client {
    handle: Handle<Peer>,
}

impl Client {
    pub async fn login(port: u16, user: &str, key: &Key) -> Self {
        let config = client::Config {
            preferred: russh::Preferred {
                kex: vec![kex::CURVE25519, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT].into(),
                cipher: vec![cipher::AES_128_GCM].into(),
                ..russh::Preferred::DEFAULT
            },
            nodelay: true,
            ..client::Config::default()
        };
        let login = async {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            socket.set_nodelay(true)?;
            let mut handle = client::connect_stream(Arc::new(config), socket, Peer).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&key.0), None);
            let answer = handle.authenticate_publickey(user, key).await?;
            Ok::<_, russh::Error>((handle, answer.success()))
        };
        let (handle, success) =
            timeout(PATIENCE, login).await.expect("a login in time").expect("a login");
        assert!(success, "{user} was not let in");
        Self { handle }
    }

    /// Asks for a port, as `ssh -R` does; 0 leaves it to the relay.
    pub async fn forward(&self, port: u16) {
        let asked = self.handle.tcpip_forward("localhost", u32::from(port));
        timeout(PATIENCE, asked).await.expect("an answer in time").expect("a forward");
    }

    /// Opens a channel to a service that greets, takes the greeting and lets go.
    pub async fn open(&self, (host, port): &(String, u16)) -> Result<(), String> {
        let open = async {
            let port = u32::from(*port);
            let opened =
                self.handle.channel_open_direct_tcpip(host.as_str(), port, "127.0.0.1", 65_535);
            let mut stream = opened.await.map_err(|error| error.to_string())?.into_stream();
            let mut greeting = [0];
            stream.read_exact(&mut greeting).await.map_err(|error| error.to_string())?;
            if greeting == [GREETING] { Ok(()) } else { Err(format!("{greeting:?}")) }
        };
        timeout(PATIENCE, open).await.unwrap_or_else(|_| Err(format!("nothing in {PATIENCE:?}")))
    }

    /// Whether the relay has ended it.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }
}
