//! Where a relay process has its policy, its host key and its name from: a directory of manifests on
//! one machine, or a cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tidegate_policy::model::Label;

use crate::admin::{self, Admin};
use crate::hostkeys::{self, Keyring, Offered};
use crate::kube::{self, Cluster};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::serve::ServeArgs;
use crate::signals::Signals;
use crate::source::{self, Feed};
use crate::state::{StateDir, StateError};
use crate::supervisor::Supervisor;

/// The state directory within a volume that is not the relay's alone.
pub const WITHIN_VOLUME: &str = "relay";

/// What a gate is begun with.
pub struct Origin {
    pub state: StateDir,
    pub keyring: Keyring,
    /// The host keys to begin with.
    pub offered: Offered,
    pub feed: Feed,
    pub signals: Signals,
    /// The replica's name, as sessions and claims carry it in `relayPod`.
    pub name: String,
    /// Where the admin port is served already.
    pub admin: Option<SocketAddr>,
    /// Of a cluster alone.
    pub cluster: Option<Cluster>,
    pub readiness: Option<Arc<Readiness>>,
}

/// From a directory: the relay makes its own host keys, and its name is that of its Relay.
pub async fn manifests(args: &ServeArgs, tasks: &Supervisor) -> anyhow::Result<Origin> {
    let manifests = args.manifests.as_deref().context("give --manifests DIR or --kube")?;
    let state = StateDir::open(&args.state)?;
    let source = source::directory::start(manifests, &state, args.relay.as_deref(), tasks).await?;
    let mut keyring = Keyring::of_state(&state);
    let offered = hostkeys::first(&mut keyring, &source.feed, None).await?;
    let signals = Signals::new(source.reload)?;
    let name = source::current(&source.feed).relay.name.to_string();
    Ok(Origin {
        state,
        keyring,
        offered,
        feed: source.feed,
        signals,
        name,
        admin: None,
        cluster: None,
        readiness: None,
    })
}

/// From a cluster: the host keys are mounted Secrets, and the name is the pod's. Waits until there is a
/// policy and the host key that it wants, with the admin port saying why there is none; `None` where it is told to end meanwhile.
pub async fn cluster(
    args: &ServeArgs,
    tasks: &Supervisor,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<Origin>> {
    let relay = args.relay.as_deref().unwrap_or_default();
    let relay = Label::parse(relay)
        .with_context(|| format!("{relay:?} is no name of a Relay; give it with --relay NAME"))?;
    let cluster = kube::connect(&args.cluster).await?;
    let path = args.host_key.as_deref().context("give the relays' host key by --host-key FILE")?;
    let mut keyring = Keyring::mounted(path.to_owned());
    let state = volume(&args.state)?;
    let mut starting = source::kube::start(
        cluster.watching.clone(),
        cluster.namespace.clone(),
        relay.clone(),
        &state,
        Arc::clone(metrics),
        tasks,
    )
    .await?;
    let mut signals = Signals::new(starting.reload.clone())?;
    let readiness = Arc::new(Readiness::new(Arc::clone(&starting.status)));
    let admin = match args.admin {
        None => None,
        Some(address) => {
            let admin = Admin::bind(address).await?;
            let address = admin.address();
            let health = Arc::clone(&readiness) as _;
            tasks.critical("admin port", admin::serve(admin, Arc::clone(metrics), health));
            Some(address)
        }
    };
    let (namespace, pod) = (&cluster.namespace, &cluster.pod);
    tracing::info!(%namespace, %pod, %relay, "waiting for the policy");
    let feed = tokio::select! {
        feed = starting.policy() => match feed {
            Some(feed) => feed,
            None => return Err(tasks.failed().await.into()),
        },
        failure = tasks.failed() => return Err(failure.into()),
        // There is nobody to wait for.
        _ = signals.next() => return Ok(None),
    };
    let waits = |why| readiness.waits_for(why);
    let offered = tokio::select! {
        offered = hostkeys::first(&mut keyring, &feed, Some(&waits)) => offered?,
        failure = tasks.failed() => return Err(failure.into()),
        _ = signals.next() => return Ok(None),
    };
    Ok(Some(Origin {
        state,
        keyring,
        offered,
        feed,
        signals,
        name: cluster.pod.clone(),
        admin,
        cluster: Some(cluster),
        readiness: Some(readiness),
    }))
}

/// The state directory in a pod's volume. The root of an emptyDir belongs to root and its group, so
/// that the relay keeps a directory of its own within.
fn volume(path: &Path) -> Result<StateDir, StateError> {
    match StateDir::open(path) {
        Err(StateError::TooOpen { .. } | StateError::WrongOwner { .. }) => {
            StateDir::open(&within(path))
        }
        opened => opened,
    }
}

fn within(path: &Path) -> PathBuf {
    path.join(WITHIN_VOLUME)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_volume_that_others_can_read_has_a_directory_that_they_cannot() {
        let volume_root = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o2777);
        std::fs::set_permissions(volume_root.path(), open).unwrap();
        let state = volume(volume_root.path()).unwrap();
        assert!(state.root().ends_with(WITHIN_VOLUME));
        assert!(matches!(volume(volume_root.path()), Err(StateError::InUse { .. })));
        let own = tempfile::tempdir().unwrap();
        let path = own.path().join("state");
        assert!(volume(&path).unwrap().root().ends_with("state"));
    }
}
