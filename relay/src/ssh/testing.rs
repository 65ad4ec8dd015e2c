//! A connection without a task, for the unit tests of what hangs on it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::model::KeyBlob;
use tidegate_ssh::wire::Writer;
use tidegate_ssh::{Config, Core, Door, testing};
use tokio::net::{TcpListener, TcpStream};

use super::channel::Channel;
use super::connection::Shared;
use super::leg::{Leg, time};
use super::socket::Socket;
use super::{BeforeWrite, Doorkeeper, HostKey, Settings};
use crate::supervisor::Supervisor;

/// A socket of this machine, and what it is connected to.
#[expect(clippy::disallowed_methods, reason = "the test is the peer")]
pub(super) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, peer) = tokio::join!(listener.accept(), peer);
    (accepted.unwrap().0, peer.unwrap())
}

/// Knows nobody.
pub(super) struct Nobody;

impl Doorkeeper for Nobody {
    fn offered(&self, _: &str, _: &KeyBlob) -> bool {
        false
    }

    fn proven(&self, _: &str, _: &KeyBlob) -> bool {
        false
    }
}

impl Door for Nobody {
    fn offered(&mut self, _: &str, _: &[u8]) -> bool {
        false
    }

    fn proven(&mut self, _: &str, _: &[u8]) -> bool {
        false
    }
}

/// What the parts of a connection share, and its peer.
pub(super) async fn shared() -> (Arc<Shared>, TcpStream) {
    let random = Box::new(tidegate_ssh::random::System);
    with_core(|config| Core::new(config, random, time())).await
}

/// The same, as after a login and without encryption.
pub(super) async fn within() -> (Arc<Shared>, TcpStream) {
    let random = Box::new(tidegate_ssh::random::System);
    with_core(|config| testing::plain_core_within(config, random, [7; 32])).await
}

/// The channel that the relay opens as the `number`th on a connection [`within`], confirmed by a peer
/// that takes all there is.
pub(super) fn channel(shared: &Arc<Shared>, number: u32) -> Channel {
    let mut leg = shared.lock();
    let id = leg.core.open_forwarded("localhost", 22, ("", 0)).unwrap();
    let mut confirmed = Vec::new();
    Writer::new(&mut confirmed).u8(91).u32(number).u32(number).u32(1 << 30).u32(32 << 10);
    // By the clock of a plain core its keys are new.
    let opened = leg.core.handle(&confirmed, 0, &mut Nobody, Duration::ZERO).unwrap();
    assert!(matches!(opened, Some(tidegate_ssh::Event::Opened { channel }) if channel == id));
    Channel::new(shared, &mut leg, id)
}

async fn with_core(core: impl FnOnce(Arc<Config>) -> Core) -> (Arc<Shared>, TcpStream) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(vec![HostKey::generate(&dir.path().join("key")).unwrap()]);
    let core = core(Arc::new(settings.config()));
    let (socket, peer) = sockets().await;
    let address = socket.peer_addr().unwrap();
    let socket = Socket::new(socket, BeforeWrite::default());
    let shared =
        Shared::new(1, address, socket, Leg::new(core), Arc::new(settings), Supervisor::new());
    (shared, peer)
}
