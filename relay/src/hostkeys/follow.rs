//! Follows the Mesh: offers the keys that it wants, without a restart.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::model::HostKeys;

use super::{Keyring, Missing, Offered};
use crate::gate::Gate;
use crate::published::Published;
use crate::source::{self, Feed};
use crate::ssh::Server;

/// How often a key is looked for that is wanted and not there: a kubelet takes about a minute to bring one.
const AGAIN: Duration = Duration::from_secs(2);

/// What the Mesh wants now.
fn wanted(feed: &Feed) -> HostKeys {
    source::current(feed).snapshot.mesh().host_keys
}

/// The keys to begin with. `waits` is told why there is none yet, and waiting goes on for ever; without it
/// that is an error.
pub async fn first(
    keyring: &mut Keyring,
    feed: &Feed,
    waits: Option<&dyn Fn(String)>,
) -> Result<Offered, Missing> {
    loop {
        let wanted = wanted(feed);
        match (tokio::task::block_in_place(|| keyring.follow(wanted)), waits) {
            (Ok((offered, _)), _) => return Ok(offered),
            (Err(missing), None) => return Err(missing),
            (Err(missing), Some(waits)) => {
                waits(missing.to_string());
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Who is told of other keys.
pub struct Following {
    pub gate: Arc<Gate>,
    pub feed: Feed,
    pub keyring: Keyring,
    pub offered: Offered,
    pub server: Arc<Server>,
    pub published: Published,
}

impl Following {
    /// Goes on until nobody publishes policy any more.
    pub async fn run(mut self) {
        let mut told = None;
        loop {
            let trouble = tokio::task::block_in_place(|| self.look());
            let again = async {
                match &trouble {
                    Some(_) => tokio::time::sleep(AGAIN).await,
                    None => std::future::pending().await,
                }
            };
            if trouble != told
                && let Some(why) = &trouble
            {
                tracing::error!(%why, "not all of the Mesh's host keys are offered");
            }
            tokio::select! {
                () = again => {}
                changed = self.feed.changed() => if changed.is_err() {
                    return;
                },
            }
            told = trouble;
        }
    }

    /// Offers what is wanted now; what of it cannot be had.
    fn look(&mut self) -> Option<String> {
        let policy = source::current(&self.feed);
        let mesh = policy.snapshot.mesh();
        let trouble = match self.keyring.follow(mesh.host_keys) {
            Ok((offered, trouble)) => {
                if !offered.same(&self.offered) {
                    self.offer(offered);
                }
                trouble
            }
            Err(missing) => Some(missing),
        };
        if let Err(error) = self.published.follow(&mesh.domain, &self.offered.keys()) {
            tracing::error!(%error, "the relay's known_hosts lines are those of before");
        }
        trouble.map(|missing| missing.to_string())
    }

    fn offer(&mut self, offered: Offered) {
        self.server.set_host_keys(&offered.keys());
        self.gate.host_keys.offer(&offered);
        let announced = offered.announced.as_ref().map(|named| named.key.fingerprint());
        tracing::info!(
            serves = %offered.serving.key.fingerprint(),
            announces = announced.as_deref().unwrap_or("none"),
            "new connections get other host keys"
        );
        self.offered = offered;
    }
}
