//! Watches the SupportSessions of this pod, and cuts what is to be cut: by `spec.cut`, by a deletion, or
//! when an object has vanished, also where that happened while nobody watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::core::DynamicObject;
use tokio::sync::watch;

use super::{Carrier, is_held, sessions};
use crate::clock;
use crate::kube::Cluster;
use crate::kube::watch::{Seen, follow, key};
use crate::record::{Outbox, SessionId};

/// Watches the Mesh's namespace. Never returns.
pub fn home<C: Carrier>(
    cluster: &Cluster,
    carrier: &Arc<C>,
    outbox: &Outbox,
) -> impl Future<Output = ()> + Send + use<C> {
    let mut watcher = Watcher::new(cluster, carrier, outbox, false);
    let api = sessions(&cluster.watching, Some(cluster.namespace.as_str()));
    let selector = format!("spec.relayPod={}", cluster.pod);
    follow(api, Some(selector), move |seen| watcher.see(seen))
}

/// Watches all others once a session belongs to one (`wide`): a Mesh without tenants needs no right
/// beyond its own namespace. Where that right is taken away, the home's sessions are watched on. Never
/// returns.
pub fn elsewhere<C: Carrier>(
    cluster: &Cluster,
    carrier: &Arc<C>,
    outbox: &Outbox,
    mut wide: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + use<C> {
    let mut watcher = Watcher::new(cluster, carrier, outbox, true);
    let api = sessions(&cluster.watching, None);
    let selector =
        format!("spec.relayPod={},metadata.namespace!={}", cluster.pod, cluster.namespace);
    async move {
        if wide.wait_for(|wide| *wide).await.is_err() {
            return std::future::pending().await;
        }
        follow(api, Some(selector), move |seen| watcher.see(seen)).await;
    }
}

struct Watcher<C> {
    pod: String,
    home: String,
    /// Whether all namespaces but `home` are watched, or it alone.
    elsewhere: bool,
    carrier: Arc<C>,
    outbox: Outbox,
    /// The sessions whose objects existed when the list that is being read was asked for, and which it
    /// has not shown yet.
    before: BTreeSet<SessionId>,
    lost: bool,
}

impl<C: Carrier> Watcher<C> {
    fn new(cluster: &Cluster, carrier: &Arc<C>, outbox: &Outbox, elsewhere: bool) -> Self {
        Self {
            pod: cluster.pod.clone(),
            home: cluster.namespace.to_string(),
            elsewhere,
            carrier: Arc::clone(carrier),
            outbox: outbox.clone(),
            before: BTreeSet::new(),
            lost: false,
        }
    }

    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Listing => {
                let existing = self.outbox.existing().into_iter();
                let watched = existing.filter(|(ns, _)| (*ns != self.home) == self.elsewhere);
                self.before = watched.map(|(_, id)| id).collect();
            }
            Seen::Put(object) => self.put(&object),
            Seen::Gone(object) => {
                if let Some(id) = self.says_ours(&object)
                    && self.is_of(id, &object) == Some(true)
                {
                    self.vanished(id);
                }
            }
            Seen::Listed(_) => {
                if std::mem::take(&mut self.lost) {
                    tracing::info!(
                        elsewhere = self.elsewhere,
                        "the API server's sessions are watched again"
                    );
                }
                for id in std::mem::take(&mut self.before) {
                    self.vanished(id);
                }
            }
            Seen::Lost(why) => {
                if !std::mem::replace(&mut self.lost, true) {
                    tracing::warn!(
                        why,
                        elsewhere = self.elsewhere,
                        "the API server's sessions cannot be watched; nothing there cuts until they can"
                    );
                }
            }
        }
    }

    /// The session, if the object says that this pod carries it. Whoever writes objects in some
    /// namespace can say so: see [`Self::is_of`].
    fn says_ours(&self, object: &DynamicObject) -> Option<SessionId> {
        let pod = object.data.pointer("/spec/relayPod").and_then(serde_json::Value::as_str);
        let name = object.metadata.name.as_ref()?;
        name.parse().ok().filter(|_| pod == Some(&*self.pod))
    }

    /// Whether it is the object that this relay made of the session; `None`: the session is not known.
    fn is_of(&self, id: SessionId, object: &DynamicObject) -> Option<bool> {
        let (namespace, _) = key(object);
        self.outbox.is_of(id, &namespace, object.metadata.uid.as_deref().unwrap_or_default())
    }

    fn put(&mut self, object: &DynamicObject) {
        let Some(id) = self.says_ours(object) else { return };
        let known = self.is_of(id, object);
        if known == Some(false) {
            return;
        }
        self.before.remove(&id);
        let cut = object.data.pointer("/spec/cut").and_then(serde_json::Value::as_bool);
        let deleted = object.metadata.deletion_timestamp.is_some();
        if self.carrier.is_live(id) {
            if cut == Some(true) || deleted {
                self.carrier.cut(id, deleted);
            }
        } else if is_held(object) && known.is_none() {
            // Of a process whose records are lost.
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            if let Ok(text) = serde_json::to_vec(object) {
                self.outbox.adopt(id, &text, uid, clock::now().wall);
            }
        }
    }

    /// The object is gone without our leave.
    fn vanished(&self, id: SessionId) {
        self.carrier.cut(id, true);
        // Where it has ended, there is nothing left to be told.
        self.outbox.again(id);
    }
}
