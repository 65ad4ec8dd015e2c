//! A channel in somebody's hand: to be joined to another one, or read and written by the relay.

use std::io;
use std::sync::Arc;

use tidegate_ssh::Id;
use tokio_util::sync::CancellationToken;

use super::connection::Shared;
use super::leg::Leg;
use super::port::Port;

/// Bytes that may wait for the peer on a channel that the relay itself writes to.
const WAITING: usize = 64 * 1024;

/// Tells when a channel is closed, by the peer, by the relay or with its connection. Data that came
/// before may still wait to be read.
#[derive(Clone, Debug)]
pub struct Closed(CancellationToken);

impl Closed {
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_cancelled()
    }
}

pub(super) fn killed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the relay ended the connection")
}

pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the peer closed the channel")
}

/// What [`Channel`] and the console share: the place at the connection, and CLOSE when dropped.
pub(super) struct Held {
    pub shared: Arc<Shared>,
    pub port: Arc<Port>,
    /// Its CLOSE is on its way, behind what waits.
    finished: bool,
}

impl Held {
    /// Takes the channel `id` of the connection whose lock gave `leg`.
    pub fn new(shared: &Arc<Shared>, leg: &mut Leg, id: Id) -> Self {
        let port = Port::new(id, shared.channels.child_token());
        if leg.over {
            port.eof();
        }
        leg.ports.insert(id, Arc::clone(&port));
        Self { shared: Arc::clone(shared), port, finished: false }
    }

    pub fn id(&self) -> Id {
        self.port.id
    }

    pub fn closed(&self) -> Closed {
        Closed(self.port.closed.clone())
    }

    /// Queues data by `send` as soon as not too much waits.
    pub async fn write(
        &self,
        data: &[u8],
        send: impl Fn(&mut Leg, Id, &[u8]) -> bool,
    ) -> io::Result<()> {
        for piece in data.chunks(WAITING / 2) {
            loop {
                let sealed = self.port.sealed.notified();
                tokio::pin!(sealed);
                sealed.as_mut().enable();
                if self.shared.socket.killed().is_cancelled() {
                    return Err(killed());
                }
                if self.port.closed.is_cancelled() {
                    return Err(closed());
                }
                let taken = self.shared.with(|leg| {
                    let room = leg.core.queued_on(self.id()) < WAITING / 2;
                    room.then(|| send(leg, self.id(), piece))
                });
                match taken {
                    Some(true) => break,
                    Some(false) => return Err(closed()),
                    None => {}
                }
                tokio::select! {
                    () = sealed => {}
                    () = self.port.closed.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    /// CLOSE behind what waits, and behind what `last` queues.
    pub fn finish(mut self, last: impl FnOnce(&mut Leg, Id)) {
        self.finished = true;
        self.shared.with(|leg| {
            last(leg, self.port.id);
            leg.core.finish(self.port.id);
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self { shared, port, finished } = self;
        shared.shield(|| {
            shared.with(|leg| {
                leg.ports.remove(&port.id);
                // A CLOSE on its way is not passed by another; on a connection that is over there is
                // none, and what waits unread is given up.
                if !*finished || leg.core.is_over() {
                    leg.core.close(port.id);
                }
            });
        });
        port.discard();
        port.closed.cancel();
    }
}

/// A channel that is open. Dropping it sends CLOSE; what waits to be sent is gone then.
pub struct Channel(Held);

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Channel").field(&self.0.id()).finish()
    }
}

impl Channel {
    pub(super) fn new(shared: &Arc<Shared>, leg: &mut Leg, id: Id) -> Self {
        Self(Held::new(shared, leg, id))
    }

    pub(super) fn id(&self) -> Id {
        self.0.id()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(super) fn port(&self) -> &Port {
        &self.0.port
    }

    pub fn closed(&self) -> Closed {
        self.0.closed()
    }

    /// What the peer has sent and nobody has read yet, as soon as there is any; nothing at its end.
    /// Fails once the relay has ended the connection.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        let port = &self.0.port;
        loop {
            if self.0.shared.socket.killed().is_cancelled() {
                return Err(killed());
            }
            match port.read() {
                None => return Ok(Vec::new()),
                Some(data) if !data.is_empty() => {
                    let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    self.0.shared.credit(port.id, bytes);
                    return Ok(data);
                }
                Some(_) => {}
            }
            tokio::select! {
                () = port.came.notified() => {}
                () = self.0.shared.socket.killed().cancelled() => {}
            }
        }
    }

    /// Queues data for the peer, once not too much waits there. Fails once the channel is closed.
    pub async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write(data, |leg, id, piece| leg.core.send(id, piece).is_ok()).await
    }

    /// Sends EOF and CLOSE behind what waits.
    pub fn finish(self) {
        self.0.finish(|leg, id| leg.core.eof(id));
    }
}
