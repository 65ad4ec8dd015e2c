//! The far end of an authenticated connection, of either role.

use std::net::SocketAddr;

use jiff::Timestamp;
use tidegate_policy::way::Way;

use crate::denies::Denies;
use crate::ssh::{Connection, Negotiated, Reason};

/// Where a login user or a terminal came from, and how the connection is ended.
#[derive(Debug)]
pub struct Peer {
    /// Unique in this process.
    pub id: u64,
    pub from: SocketAddr,
    /// The port of ours that it came in by, and what it speaks there.
    pub way: Way,
    /// Its client's version line, cleaned.
    pub client: String,
    pub since: Timestamp,
    /// By what its first key exchange is kept secret.
    pub negotiated: Negotiated,
    /// What it was refused.
    pub denies: Denies,
    pub connection: Connection,
}

impl Peer {
    pub fn new(
        connection: Connection,
        listener_port: u16,
        client: String,
        since: Timestamp,
        negotiated: Negotiated,
    ) -> Self {
        Self {
            id: connection.id(),
            from: connection.peer(),
            way: Way { port: listener_port, transport: connection.transport() },
            client,
            since,
            negotiated,
            denies: Denies::default(),
            connection,
        }
    }

    /// Says why and closes the connection, within 200 ms whatever has become of it.
    pub fn end(&self, reason: &str) {
        self.connection.disconnect(Reason::ByApplication, reason);
    }

    /// Closes the socket without a word.
    pub fn kill(&self) {
        self.connection.kill();
    }

    /// Resolves when the connection is over.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Whether the connection is over or about to be.
    pub fn is_gone(&self) -> bool {
        self.connection.is_ending()
    }
}
