//! Takes accepted sockets, and runs each connection from its first byte to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tidegate_ssh::{Config, Core, DisconnectCode};
use tidegate_transport::arrival::Offer;
use tidegate_transport::tls;
use tokio::net::TcpStream;

use super::connection::{Connection, Ended, Shared};
use super::leg::{Leg, time};
use super::queue::Events;
use super::socket::Socket;
use super::task::Task;
use super::{Doorkeeper, HostKey, Settings, VERSION, arrive, core_keys};
use crate::supervisor::Supervisor;

/// Serves SSH on sockets. One per process.
#[derive(Debug)]
pub struct Server {
    /// Of connections to come. Each keeps the one of its beginning, host keys among it.
    config: ArcSwap<Config>,
    /// Of connections to come; none: TLS is refused.
    tls: ArcSwapOption<tls::Config>,
    settings: Arc<Settings>,
    supervisor: Supervisor,
    next: AtomicU64,
}

impl Server {
    pub fn new(settings: Settings, supervisor: Supervisor) -> Self {
        let config = ArcSwap::from_pointee(settings.config());
        Self {
            config,
            tls: ArcSwapOption::empty(),
            settings: Arc::new(settings),
            supervisor,
            next: AtomicU64::new(1),
        }
    }

    /// From now on new connections may speak TLS, with this certificate.
    pub fn set_tls(&self, config: Arc<tls::Config>) {
        self.tls.store(Some(config));
    }

    /// From now on these are the host keys of new connections: the first one signs, all are announced.
    /// Those that live go on with what they began with, also when they exchange keys anew.
    pub fn set_host_keys(&self, keys: &[HostKey]) {
        let budget = Arc::clone(&self.config.load().budget);
        let config = self.settings.config();
        self.config.store(Arc::new(Config { host_keys: core_keys(keys), budget, ..config }));
    }

    /// Serves SSH on `socket` until it ends. `door` is asked for this connection alone, so that it
    /// may remember what was proven on it.
    pub fn start(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        door: Arc<dyn Doorkeeper>,
    ) -> (Connection, Events) {
        let random = Box::new(tidegate_ssh::random::System);
        let core = Core::new(self.config.load_full(), random, time());
        let shared = Shared::new(
            self.next.fetch_add(1, Ordering::Relaxed),
            peer,
            Socket::new(socket, self.settings.before_write.clone()),
            Leg::new(core),
            Arc::clone(&self.settings),
            self.supervisor.clone(),
        );
        let events = Events(Arc::clone(&shared.events));
        let limits = self.config.load().rekey;
        let offer = Offer { tls: self.tls.load_full(), proxy: door.behind_proxy() };
        let task = Task::new(Arc::clone(&shared), Arc::clone(&door), limits);
        let mut over = Over { shared: Arc::clone(&shared), ended: Ended::Fault };
        self.supervisor.spawn("ssh connection", async move {
            over.ended = serve(&over.shared, &*door, offer, task).await;
            drop(over);
        });
        (Connection(shared), events)
    }
}

/// Marks a connection as over when dropped: however it ends, a panic included, nobody may wait for it
/// in vain.
struct Over {
    shared: Arc<Shared>,
    ended: Ended,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.shared.end(self.ended.clone());
    }
}

async fn serve(shared: &Arc<Shared>, door: &dyn Doorkeeper, offer: Offer, task: Task) -> Ended {
    let grace = shared.settings.login_grace;
    // Boxed: what it takes goes back when SSH begins.
    let arriving = Box::pin(arrive::arrive(shared, door, offer));
    let arrived = tokio::select! {
        arrived = arriving => arrived,
        () = shared.socket.killed().cancelled() => return Ended::Killed,
        () = tokio::time::sleep(grace.saturating_add(arrive::LEAVING)) => {
            shared.kill(Ended::Grace);
            return Ended::Grace;
        }
    };
    let ssh = match arrived {
        Ok(ssh) => ssh,
        Err(ended) => return ended,
    };
    if ssh.greeted {
        let mut leg = shared.lock();
        // The version line, which comes first.
        leg.core.output().consume(VERSION.len().saturating_add(2));
    }
    shared.socket.begin(ssh.stack, ssh.first);
    shared.speaking.store(true, Ordering::Release);
    if !ssh.late
        && let Some(sentence) = door.turned_away()
    {
        shared.disconnect(DisconnectCode::TooManyConnections, sentence);
    }
    task.run().await
}
