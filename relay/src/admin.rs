//! The admin port: `/metrics`, `/healthz`, `/readyz`. Nothing here changes state.
//!
//! Touches the network (one listener). Bounded (invariant 8): one request per connection, of at most
//! 16 KiB, within 10 s; at the cap of connections the oldest gives way.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the admin port shows of the core.
pub trait Health: Send + Sync + 'static {
    /// Why this replica should get no new connections, one sentence each; empty: it is ready.
    fn not_ready(&self) -> Vec<String>;

    /// Brings the gauges up to date, right before they are rendered.
    fn refresh(&self, metrics: &Metrics);
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for --admin: {source}")]
pub struct AdminError {
    pub address: SocketAddr,
    #[source]
    pub source: std::io::Error,
}

/// A bound admin port.
#[derive(Debug)]
pub struct Admin {
    _listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |source| AdminError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { _listener: listener, address })
    }

    /// The address as bound: the port is real where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever; to be spawned by the supervisor and dropped to stop.
    pub async fn serve(self, _metrics: Arc<Metrics>, _health: Arc<dyn Health>) {
        unimplemented!()
    }
}
