//! A connection without a task, for the unit tests of what hangs on it.

use std::sync::Arc;

use tidegate_ssh::Core;
use tokio::net::{TcpListener, TcpStream};

use super::connection::Shared;
use super::leg::{Leg, time};
use super::socket::Socket;
use super::{BeforeWrite, HostKey, Settings};
use crate::supervisor::Supervisor;

/// A socket of this machine, and what it is connected to.
#[expect(clippy::disallowed_methods, reason = "the test is the peer")]
pub(super) async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, peer) = tokio::join!(listener.accept(), peer);
    (accepted.unwrap().0, peer.unwrap())
}

/// What the parts of a connection share, and its peer.
pub(super) async fn shared() -> (Arc<Shared>, TcpStream) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(vec![HostKey::generate(&dir.path().join("key")).unwrap()]);
    let core =
        Core::new(Arc::new(settings.config()), Box::new(tidegate_ssh::random::System), time());
    let (socket, peer) = sockets().await;
    let address = socket.peer_addr().unwrap();
    let socket = Socket::new(socket, BeforeWrite::default());
    let shared =
        Shared::new(1, address, socket, Leg::new(core), Arc::new(settings), Supervisor::new());
    (shared, peer)
}
