//! The policy source `kube`: the resources of a cluster, listed and watched, compiled as they come.
//!
//! Touches the network through kube's client, reading alone, and the disk for the journal. No object
//! is kept in memory: what the index makes of it, and its version.
//!
//! Its age is that of the kind that has been silent for the longest, and counts from a complete list,
//! or from the earlier of the watch's last sign of life and the API server's last proof that it reads
//! its store. The proof is needed: with etcd away an API server goes on with watches and bookmarks
//! from its memory, and what another one of its fleet revokes is not seen here.

mod clocks;
mod follow;
pub(crate) mod journal;
mod keeper;
mod publish;
mod raw;
mod reflect;
mod skim;
mod status;
mod stream;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use kube::Client;
use tidegate_policy::model::{Label, ObjectKey};
use tokio::sync::oneshot;

use super::{Feed, Reload, age, remember};
use crate::clock::{self, Now};
use crate::metrics::Metrics;
use crate::state::{StateDir, StateError};
use crate::supervisor::Supervisor;
use follow::{End, Parts};
use journal::Entry;
use keeper::Keeper;
use raw::Raw;
pub use status::Status;
use world::World;

/// Why the source cannot be started. An API server that is away is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the thread that keeps the policy cannot be started: {0}")]
    Keeper(std::io::Error),
    #[error("the reading of the policy that was kept was stopped")]
    Stopped,
}

/// A source that may not have a policy yet.
#[derive(Debug)]
pub struct Starting {
    /// Why there is none, or no complete one.
    pub status: Arc<Status>,
    pub reload: Reload,
    first: oneshot::Receiver<Feed>,
}

impl Starting {
    /// Waits until there is a policy, for as long as it takes; `None` where the source has ended.
    pub async fn policy(&mut self) -> Option<Feed> {
        (&mut self.first).await.ok()
    }
}

/// Begins to follow the Relay `relay` of `namespace` and all that its Mesh serves. The source goes on
/// for as long as somebody holds the feed. Where the API server is away, the policy that an earlier
/// process left in the state directory is in force, with its age.
pub async fn start(
    client: Client,
    namespace: Label,
    relay: Label,
    state: &StateDir,
    metrics: Arc<Metrics>,
    supervisor: &Supervisor,
) -> Result<Starting, KubeError> {
    let journal = keeper::path(state)?;
    let boot_id = remember::boot_id();
    let load = {
        let (path, namespace, relay) = (journal.clone(), namespace.clone(), relay.clone());
        let boot_id = boot_id.clone();
        move || load(&path, &namespace, &relay, boot_id.as_deref())
    };
    let loaded = tokio::task::spawn_blocking(load).await.map_err(|_| KubeError::Stopped)?;
    let length = loaded.as_ref().map(|loaded| loaded.length);
    let keeper = Keeper::start(journal.clone(), length).map_err(KubeError::Keeper)?;
    let status = Arc::new(Status::default());
    let reload = Reload::default();
    let (first, feed) = oneshot::channel();
    let parts = Parts {
        client,
        namespace,
        relay,
        metrics,
        tasks: supervisor.clone(),
        keeper,
        boot_id,
        status: Arc::clone(&status),
        restored: loaded.map(|loaded| (loaded.world, loaded.as_of)),
        first,
        reload: reload.clone(),
        journal,
    };
    let owner = supervisor.clone();
    supervisor.spawn("policy source", async move {
        // Its end is a failure unless nobody wants it: without the source no revocation is seen.
        match AssertUnwindSafe(follow::run(parts)).catch_unwind().await {
            Ok(End::Unwanted) => {}
            Ok(End::AnotherMesh) => owner.critical("policy source", async {}),
            Err(panic) => owner.critical("policy source", async move { resume_unwind(panic) }),
        }
    });
    Ok(Starting { status, reload, first: feed })
}

/// What an earlier process left.
struct Loaded {
    world: World,
    as_of: Now,
    /// Bytes of the journal that count.
    length: u64,
}

/// Reads the journal; one that is not of this Relay, or damaged, is none: the API server has it all.
fn load(path: &Path, namespace: &Label, relay: &Label, boot_id: Option<&str>) -> Option<Loaded> {
    let unread = |error: &std::io::Error| {
        tracing::warn!(path = %path.display(), %error, "the policy that was kept cannot be read");
    };
    let found = journal::find(path).inspect_err(unread).ok()??;
    let mesh = Label::parse(&found.head.mesh).ok()?;
    if found.head != journal::Head::new(namespace.as_str(), relay.as_str(), mesh.as_str()) {
        return None;
    }
    let mut world =
        World::new(ObjectKey { namespace: namespace.clone(), name: mesh }, relay.clone());
    let replayed = journal::replay(path, found.length, |entry| match entry {
        Entry::Put(object, value) => {
            if let Some(raw) = Raw::new(object.kind, value) {
                world.put(raw, None);
            }
        }
        Entry::Remove(object) => world.remove(&object, None),
    });
    replayed.inspect_err(unread).ok()?;
    let as_of = found.commit.as_of.now(boot_id);
    tracing::info!(age = ?age(as_of, clock::now()), "the policy of before was read");
    Some(Loaded { world, as_of, length: found.length })
}
