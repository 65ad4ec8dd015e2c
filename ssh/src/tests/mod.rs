//! Tests of the transport as a whole, against a client of our own.

mod demands;
mod exchange;
mod hostile;
mod legs;
mod shares;
mod speed;
mod split;
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey};
use ssh_key::public::Ed25519PublicKey;
use tidegate_ssh_client::Client;

use crate::random::{NoRandom, Random};
use crate::{Config, Fatal, Handled, HostKey, Inbound, Next, Transport};

/// The same bytes for the same seed.
pub struct Seeded(u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        for part in bytes.chunks_mut(32) {
            self.0 += 1;
            part.copy_from_slice(&digest(&SHA256, &self.0.to_be_bytes()).as_ref()[..part.len()]);
        }
        Ok(())
    }
}

pub fn ed25519(seed: u8) -> HostKey {
    let public: [u8; 32] = Ed25519KeyPair::from_seed_unchecked(&[seed; 32])
        .unwrap()
        .public_key()
        .as_ref()
        .try_into()
        .unwrap();
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(public),
        private: Ed25519PrivateKey::from_bytes(&[seed; 32]),
    };
    HostKey::from_private_key(&pair.into()).unwrap()
}

/// Made by ssh-keygen for these tests.
pub const ECDSA: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQQP4DK+j2wU+Xkg+T1RF+0lEeyWyd2A
+UShuhi0rioKKQc9ra4yvd7Wy9AGqlF/uvGAlmjNN29boP2Lv8lObIr0AAAAoPx8Su78fE
ruAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA/gMr6PbBT5eSD5
PVEX7SUR7JbJ3YD5RKG6GLSuKgopBz2trjK93tbL0AaqUX+68YCWaM03b1ug/Yu/yU5siv
QAAAAhAIsDkm2Av4a8CWi5Gb+W3DYqFI/DKzgvx0Qcm0nfEfeRAAAAAAECAwQFBgc=
-----END OPENSSH PRIVATE KEY-----
";

pub fn config() -> Config {
    Config::new(vec![ed25519(1), HostKey::from_openssh(ECDSA).unwrap()])
}

/// A server as the driver and the core make one of the two halves.
pub struct Server {
    pub inbound: Inbound,
    pub transport: Transport,
    buffer: Vec<u8>,
    /// Messages that are not the transport's.
    pub got: Vec<Vec<u8>>,
    pub disconnected: Option<(u32, String)>,
    pub exhausted: usize,
    pub keys: usize,
}

impl Server {
    pub fn new(config: Config) -> Self {
        Self {
            inbound: Inbound::new(config.rekey),
            transport: Transport::new(Arc::new(config), Box::new(Seeded(1 << 32)), Duration::ZERO),
            buffer: Vec::new(),
            got: Vec::new(),
            disconnected: None,
            exhausted: 0,
            keys: 0,
        }
    }

    /// Takes bytes from the client, at time `now`.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), Fatal> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match self.inbound.next(&mut self.buffer, at)? {
                Next::Incomplete { need } => {
                    assert!(need > self.buffer.len() - at, "it asks for what it has");
                    break;
                }
                Next::Version { line, next } => {
                    self.transport.version(&self.buffer[line]);
                    at = next;
                }
                Next::Message { message, next, .. } => {
                    let message = &self.buffer[message];
                    match self.transport.handle(message, now)? {
                        Handled::Nothing => {}
                        Handled::Keys { opener, reset } => {
                            self.keys += 1;
                            self.inbound.install(opener, reset);
                        }
                        Handled::Disconnected { code, text } => {
                            self.disconnected = Some((code, text));
                        }
                        Handled::Other => self.got.push(message.to_vec()),
                    }
                    at = next;
                }
                Next::Exhausted => {
                    self.exhausted += 1;
                    self.transport.rekey(now);
                }
            }
        }
        self.buffer.drain(..at);
        Ok(())
    }

    pub fn take(&mut self) -> Vec<u8> {
        let output = self.transport.output();
        let bytes = output.as_slice().to_vec();
        output.consume(bytes.len());
        bytes
    }

    pub fn send(&mut self, message: &[u8]) {
        self.transport.write(|w| {
            w.bytes(message);
        });
    }
}

/// Carries bytes to and fro until both sides are silent.
pub fn settle(server: &mut Server, client: &mut Client) -> Result<(), Fatal> {
    loop {
        let to_client = server.take();
        let to_server = client.take();
        if to_client.is_empty() && to_server.is_empty() {
            return Ok(());
        }
        client.receive(&to_client);
        server.receive(&to_server, Duration::ZERO)?;
    }
}

/// Both sides after the first key exchange.
pub fn connected(config: Config, client: Client) -> (Server, Client) {
    let (mut server, mut client) = (Server::new(config), client);
    settle(&mut server, &mut client).unwrap();
    assert!(server.transport.is_open() && client.is_open());
    (server, client)
}
