//! The API server of a relay in a cluster: how it is reached, and who this relay is there.
//!
//! Touches the network, through kube's own client alone: it dials the address that its configuration
//! names and no other, so the rule of `clippy.toml` that a relay dials nobody holds for all else. No
//! proxy is ever used, whatever the environment says. Every request has an end in time.

pub(crate) mod answer;
#[cfg(test)]
pub(crate) mod mock;
pub(crate) mod pause;
pub mod sessions;
mod unpooled;
pub(crate) mod watch;

use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tidegate_policy::model::Label;

/// How long a connection may take to come about.
pub const CONNECT: Duration = Duration::from_secs(2);
/// How long the API server may send nothing. Watches are asked to end after 30 s.
pub const SILENCE: Duration = Duration::from_secs(35);
/// How long a request may take to be sent.
const WRITE: Duration = Duration::from_secs(5);

/// Who this relay is in its cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct KubeArgs {
    /// The namespace of the Mesh and its Relays [default: $POD_NAMESPACE, else the pod's]
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The pod that this relay runs in, by name [default: $POD_NAME]
    #[arg(long, value_name = "NAME")]
    pub pod_name: Option<String>,
}

/// A connection to the API server, and who this relay is there. Clones share the connection.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// For watches: it uses no connection twice.
    pub watching: Client,
    /// The Mesh's.
    pub namespace: Label,
    /// This relay's pod, as sessions and claims carry it in `relayPod`.
    pub pod: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

/// Why there is no way to the API server. An API server that is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot use the kubeconfig that KUBECONFIG names: {0}")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    #[error(
        "this is no pod with a service account, and KUBECONFIG is not set: {0}; set KUBECONFIG to run outside of a cluster"
    )]
    InCluster(#[source] kube::config::InClusterError),
    #[error("cannot make a client for the API server: {0}")]
    Client(#[source] kube::Error),
    #[error(
        "{0:?} is no namespace; give the Mesh's with --namespace, or set POD_NAMESPACE from the downward API"
    )]
    Namespace(String),
    #[error(
        "{0:?} is no name of a pod; give it with --pod-name, or set POD_NAME from the downward API"
    )]
    Pod(String),
}

/// Makes the client, by KUBECONFIG where it is set and else by the pod's service account. Nothing is
/// asked of the API server yet, which may be away.
pub async fn connect(args: &KubeArgs) -> Result<Cluster, ConnectError> {
    let config = match variable("KUBECONFIG") {
        Some(_) => outside().await.map_err(ConnectError::Kubeconfig)?,
        None => Config::incluster().map_err(ConnectError::InCluster)?,
    };
    let namespace = args
        .namespace
        .clone()
        .or_else(|| variable("POD_NAMESPACE"))
        .unwrap_or_else(|| config.default_namespace.clone());
    let pod = args.pod_name.clone().or_else(|| variable("POD_NAME")).unwrap_or_default();
    cluster(config, &namespace, &pod)
}

/// The same for a configuration that is given.
pub fn cluster(mut config: Config, namespace: &str, pod: &str) -> Result<Cluster, ConnectError> {
    let namespace =
        Label::parse(namespace).map_err(|_| ConnectError::Namespace(namespace.to_owned()))?;
    if !is_pod(pod) {
        return Err(ConnectError::Pod(pod.to_owned()));
    }
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(WRITE);
    // Else the time that a connection sat idle would count as silence.
    config.reset_reader_on_write = true;
    config.proxy_url = None;
    // A claim that is tried twice behind our back would not be ours to judge.
    config.default_retry = false;
    let watching = unpooled::client(&config, CONNECT).map_err(ConnectError::Client)?;
    let client = Client::try_from(config).map_err(ConnectError::Client)?;
    Ok(Cluster { client, watching, namespace, pod: pod.to_owned() })
}

async fn outside() -> Result<Config, kube::config::KubeconfigError> {
    let Some(kubeconfig) = Kubeconfig::from_env()? else {
        return Config::from_kubeconfig(&KubeConfigOptions::default()).await;
    };
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// RFC 1123 subdomain, as pods are named.
fn is_pod(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.bytes().all(plain)
        && end(name.bytes().next())
        && end(name.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(namespace: &str, pod: &str) -> Result<Cluster, ConnectError> {
        cluster(Config::new("http://127.0.0.1:1".parse().unwrap()), namespace, pod)
    }

    #[tokio::test]
    async fn who_it_is_must_be_told() {
        let cluster = with("tidegate", "eu-7d9c5b-x2x9z").unwrap();
        assert_eq!(
            (cluster.namespace.as_str(), cluster.pod.as_str()),
            ("tidegate", "eu-7d9c5b-x2x9z")
        );
        for bad in ["", "a/b", "A", "-a", "a_b"] {
            assert!(matches!(with("tidegate", bad), Err(ConnectError::Pod(_))), "{bad}");
            assert!(matches!(with(bad, "eu-0"), Err(ConnectError::Namespace(_))), "{bad}");
        }
    }
}
