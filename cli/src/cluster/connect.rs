//! The way to the API server, as kubectl finds it.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::Trouble;
use crate::args::Where;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(30);

/// A connection to the API server, and where the user stands in it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// By `-n`, else the context's.
    pub namespace: String,
    /// `-n` was given.
    pub named: bool,
    pub all_namespaces: bool,
    /// `--mesh`, as written.
    pub mesh: Option<String>,
    /// The file and the context of this connection; `None`: where kubectl looks by default, or none.
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// By the kubeconfig, or by the pod's service account where there is none. Nothing is asked yet.
    pub async fn connect(place: &Where) -> Result<Self, Trouble> {
        let (mut config, current) = config(place).await?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(REQUEST);
        config.write_timeout = Some(REQUEST);
        let default = config.default_namespace.clone();
        let client = Client::try_from(config)
            .map_err(|error| Trouble::new(format_args!("cannot use the kubeconfig: {error}")))?;
        Ok(Self {
            client,
            namespace: place.namespace.clone().unwrap_or(default),
            named: place.namespace.is_some(),
            all_namespaces: place.all_namespaces,
            mesh: place.mesh.clone(),
            kubeconfig: place.kubeconfig.clone().or_else(the_file),
            context: current,
        })
    }

    /// Waits for one request, which must not take for ever. `what` is tried, as after `cannot`; `role` is
    /// the ClusterRole that permits it.
    pub async fn ask<T>(
        &self,
        what: &str,
        role: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(REQUEST, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Trouble::of(&error, what, role)),
            Err(_) => Err(Trouble::late(what, REQUEST.as_secs())),
        }
    }
}

/// The one file that `KUBECONFIG` names; of several together there is no one.
fn the_file() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").filter(|named| !named.is_empty())?;
    let mut files = std::env::split_paths(&named);
    files.next().filter(|_| files.next().is_none())
}

/// The configuration, and the name of its context.
async fn config(place: &Where) -> Result<(Config, Option<String>), Trouble> {
    let read = match &place.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath)
            if place.kubeconfig.is_none() && place.context.is_none() =>
        {
            return Config::incluster().map(|config| (config, None)).map_err(|_| {
                Trouble::new(
                    "there is no kubeconfig and this is no pod; give --kubeconfig FILE or set KUBECONFIG, \
                     or ask a directory with --manifests DIR",
                )
            });
        }
        Err(error) => return Err(unusable(&error)),
    };
    let proxy = declares_proxy(&kubeconfig, place.context.as_deref());
    let current = place.context.clone().or_else(|| kubeconfig.current_context.clone());
    let options = KubeConfigOptions { context: place.context.clone(), ..Default::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(&error))?;
    if !proxy {
        // Only what the kubeconfig says; proxies of the environment are for the web.
        config.proxy_url = None;
    }
    Ok((config, current))
}

fn declares_proxy(kubeconfig: &Kubeconfig, context: Option<&str>) -> bool {
    let name = context.or(kubeconfig.current_context.as_deref()).unwrap_or_default();
    let context = kubeconfig.contexts.iter().find(|context| context.name == name);
    let cluster = context.and_then(|context| Some(&context.context.as_ref()?.cluster));
    let named = |named: &&kube::config::NamedCluster| Some(&named.name) == cluster;
    let cluster = kubeconfig.clusters.iter().find(named);
    cluster.and_then(|cluster| cluster.cluster.as_ref()?.proxy_url.as_ref()).is_some()
}

fn unusable(error: &KubeconfigError) -> Trouble {
    match error {
        KubeconfigError::CurrentContextNotSet => {
            Trouble::new("the kubeconfig has no current context; choose one with --context NAME")
        }
        KubeconfigError::LoadContext(name) => Trouble::new(format_args!(
            "the kubeconfig has no context {name:?}; `kubectl config get-contexts` lists those that it has"
        )),
        KubeconfigError::ReadConfig(error, path) => {
            Trouble::new(format_args!("cannot read the kubeconfig {}: {error}", path.display()))
        }
        other => Trouble::new(format_args!("cannot use the kubeconfig: {other}")),
    }
}
