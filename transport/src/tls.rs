//! TLS 1.2 and 1.3 by rustls, as a server without certificates of clients: a way through firewalls
//! and nothing more, since the relay's identity is its SSH host key and never TLS.
//!
//! rustls keeps at most one record that is not whole; a handshake may be [`HANDSHAKE`] bytes. Its interface
//! without buffers would save a copy of what comes in, but panics where its caller's buffer is not what it
//! remembers (rustls 0.23.46), which an alert after a fault is enough for.

use std::io::{ErrorKind, Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;

/// The type of certificates and keys, and what a connection is made with.
pub use rustls::ServerConfig as Config;
pub use rustls::pki_types;
use rustls::server::NoServerSessionStorage;

use crate::Fault;
use crate::layer::{Layer, Received};

/// The most bytes that a client may send before its handshake is complete. A ClientHello is some 2 KiB
/// with post-quantum shares, and no client is asked for a certificate.
pub const HANDSHAKE: usize = 32 * 1024;

/// What connections are made with. No sessions are kept for resumption: the other replicas have none
/// of them, and the connections here live for hours.
pub fn config(
    chain: Vec<pki_types::CertificateDer<'static>>,
    key: pki_types::PrivateKeyDer<'static>,
) -> Result<Config, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = Config::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| fault("the certificate and key cannot be used for TLS", &error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn fault(what: &str, error: &rustls::Error) -> Fault {
    let text: String = format!("{what}: {error}")
        .chars()
        .map(|it| if matches!(it, ' '..='~') { it } else { '?' })
        .take(300)
        .collect();
    Fault::new(text)
}

/// The layer of a server.
#[derive(Debug)]
pub struct Tls {
    connection: rustls::ServerConnection,
    /// Bytes that came before the handshake was complete.
    handshake: usize,
    closed: bool,
}

impl Tls {
    pub fn new(config: Arc<Config>) -> Result<Self, Fault> {
        let mut connection = rustls::ServerConnection::new(config)
            .map_err(|error| fault("no TLS connection can be made", &error))?;
        // Callers bound what they send; nothing that they have sent may be left out.
        connection.set_buffer_limit(None);
        Ok(Self { connection, handshake: 0, closed: false })
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Into memory: it takes everything.
            if self.connection.write_tls(out).is_err() {
                break;
            }
        }
    }

    /// Takes some of `raw`; how many bytes.
    fn take(&mut self, mut raw: &[u8]) -> Result<usize, Fault> {
        let count = self.connection.read_tls(&mut raw).unwrap_or(0);
        if count == 0 {
            return Err(Fault::new("the peer sends a TLS record or message that is too long"));
        }
        if self.connection.is_handshaking() {
            self.handshake = self.handshake.saturating_add(count);
            if self.handshake > HANDSHAKE {
                return Err(Fault::new("the peer sends a TLS handshake of more than 32768 bytes"));
            }
        }
        match self.connection.process_new_packets() {
            Ok(_) => Ok(count),
            Err(rustls::Error::AlertReceived(alert)) => {
                Err(Fault::new(format!("the peer ends TLS with the alert {alert:?}")))
            }
            Err(error) => Err(fault("what the peer sends is no TLS that can be spoken", &error)),
        }
    }
}

impl Layer for Tls {
    fn receive(
        &mut self,
        buffer: &mut [u8],
        raw: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<Received, Fault> {
        let mut got = Received { plain: 0, ended: self.closed };
        let mut at = raw.start;
        while at < raw.end && !got.ended {
            let taken = self.take(buffer.get(at..raw.end).unwrap_or_default());
            self.flush(out);
            match taken {
                Ok(count) => at = at.saturating_add(count),
                Err(fault) => {
                    self.closed = true;
                    return Err(fault);
                }
            }
            loop {
                let room = buffer.get_mut(got.plain..at).unwrap_or_default();
                if room.is_empty() {
                    return Err(Fault::new("the relay left too little room for plaintext of TLS"));
                }
                match self.connection.reader().read(room) {
                    Ok(0) => got.ended = true,
                    Ok(count) => {
                        got.plain = got.plain.saturating_add(count);
                        continue;
                    }
                    // Nothing more is there.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => got.ended = true,
                }
                break;
            }
        }
        self.closed |= got.ended;
        Ok(got)
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.connection.writer().write_all(plain).is_err() {
            return Err(Fault::new("TLS takes nothing more"));
        }
        self.flush(out);
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.flush(out);
    }
}
