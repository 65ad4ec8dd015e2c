//! russh as a client.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelMsg, Disconnect, Limits, Preferred, cipher, kex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{Client, Job, PATIENCE, blocks};

struct Forwarded(mpsc::UnboundedSender<Channel<Msg>>);

impl client::Handler for Forwarded {
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
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        // The job may have failed already.
        let _ = self.0.send(channel);
        Ok(())
    }
}

pub struct Russh {
    runtime: tokio::runtime::Runtime,
}

impl Russh {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime }
    }
}

impl Client for Russh {
    fn name(&self) -> &'static str {
        "russh"
    }

    fn version(&self) -> String {
        let russh::SshId::Standard(id) = client::Config::default().client_id else {
            return String::new();
        };
        id.rsplit('_').next().unwrap_or_default().to_owned()
    }

    fn run(&mut self, job: &Job<'_>) -> Result<(), String> {
        let bounded = async { tokio::time::timeout(PATIENCE, everything(job)).await };
        let done = self.runtime.block_on(bounded);
        done.map_err(|_| "it takes too long".to_owned())?.map_err(|error| error.to_string())
    }
}

fn config(job: &Job<'_>) -> client::Config {
    let mut config = client::Config::default();
    let mut ciphers = vec![cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];
    if let Some(wanted) = job.ciphers {
        ciphers = vec![cipher::Name::try_from(wanted).unwrap()];
    }
    let methods = vec![
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::ECDH_SHA2_NISTP256,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ];
    config.preferred =
        Preferred { kex: methods.into(), cipher: ciphers.into(), ..Preferred::default() };
    if let Ok(rekey @ 1..) = usize::try_from(job.rekey) {
        config.limits = Limits::new(rekey, rekey, Duration::from_hours(1));
    }
    config
}

async fn everything(job: &Job<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let (sender, mut forwarded) = mpsc::unbounded_channel();
    let relay = ("127.0.0.1", job.relay.port);
    let mut handle = client::connect(Arc::new(config(job)), relay, Forwarded(sender)).await?;
    let key = Arc::new(load_secret_key(&job.key.file, None)?);
    let hash = handle.best_supported_rsa_hash().await?.flatten();
    let key = PrivateKeyWithHashAlg::new(key, hash);
    if !handle.authenticate_publickey("alice", key).await?.success() {
        return Err("the key is refused".into());
    }

    handle.tcpip_forward("localhost", 0).await?;
    let terminal = handle.channel_open_direct_tcpip("kiosk-17", 22, "127.0.0.1", 0).await?;
    let (mut reader, mut writer) = tokio::io::split(terminal.into_stream());
    let sending = async {
        for block in blocks(job.size) {
            writer.write_all(&block).await?;
        }
        writer.shutdown().await
    };
    let mut got = Vec::new();
    let (sent, read) = tokio::join!(sending, reader.read_to_end(&mut got));
    sent?;
    read?;
    if got != blocks(job.size).flatten().collect::<Vec<_>>() {
        return Err(format!("{} of {} bytes came back, or others", got.len(), job.size).into());
    }

    let mut channel = forwarded.recv().await.ok_or("no channel")?.into_stream();
    let mut question = Vec::new();
    channel.read_to_end(&mut question).await?;
    channel.write_all(&question).await?;
    channel.shutdown().await?;

    let mut session = handle.channel_open_session().await?;
    session.exec(true, "after").await?;
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(message) = session.wait().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => err.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    if (status, &*out, &*err) != (Some(3), b"after pty=false\r\n", b"this is stderr\r\n") {
        return Err(format!("the command ended as {status:?} with {out:?} and {err:?}").into());
    }
    // Its task ends with the connection.
    handle.disconnect(Disconnect::ByApplication, "", "").await?;
    let _ = handle.await;
    Ok(())
}
