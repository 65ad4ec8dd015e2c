//! A client that uses no connection twice. Touches the network.
//!
//! When the way to the API server dies in silence, connections that lie idle die with it: a watch that
//! is begun again on one of them would wait for an answer in vain, once for each, and a revocation
//! would be seen too late (invariant 3).

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// A client by the same configuration, whose connections come about within `connect`. The one that
/// asks bounds how long it waits for answers.
pub fn client(config: &Config, connect: Duration) -> Result<Client, kube::Error> {
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_connect_timeout(Some(connect));
    plain.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(plain)?;
    let http: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
