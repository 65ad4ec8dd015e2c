//! A session channel on which the relay answers by itself.

use std::io;
use std::sync::Arc;

use tidegate_ssh::Id;

use super::channel::{Closed, Held};
use super::connection::Shared;
use super::leg::Leg;

/// A session channel on which the relay answers by itself. What the peer sends on it is thrown away.
/// Dropping it sends CLOSE without an exit status, which OpenSSH takes for exit status 255.
pub struct SessionChannel(Held);

impl std::fmt::Debug for SessionChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SessionChannel").field(&self.0.id()).finish()
    }
}

/// The type of extended data that is standard error (RFC 4254 section 5.2).
const STDERR: u32 = 1;

impl SessionChannel {
    pub(super) fn new(shared: &Arc<Shared>, leg: &mut Leg, id: Id) -> Self {
        let held = Held::new(shared, leg, id);
        held.port.discard();
        Self(held)
    }

    /// Writes to the peer's standard output, as it is: with a pty, lines must end in CRLF. Fails
    /// once the channel is closed.
    pub async fn stdout(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write(data, |leg, id, piece| leg.core.send(id, piece).is_ok()).await
    }

    /// Writes to the peer's standard error.
    pub async fn stderr(&mut self, data: &[u8]) -> io::Result<()> {
        let send =
            |leg: &mut Leg, id, piece: &[u8]| leg.core.send_extended(id, STDERR, piece).is_ok();
        self.0.write(data, send).await
    }

    /// Ends the session with `status`: exit-status, EOF, CLOSE, after all that was written.
    pub fn finish(self, status: u8) {
        self.0.finish(|leg, id| {
            leg.core.exit_status(id, u32::from(status));
            leg.core.eof(id);
        });
    }

    pub fn closed(&self) -> Closed {
        self.0.closed()
    }
}
