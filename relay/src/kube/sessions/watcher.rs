//! Watches the SupportSessions of this pod, and cuts what is to be cut: by `spec.cut`, by a deletion, or
//! when an object has vanished, also where that happened while nobody watched.

use std::sync::Arc;

use kube::core::DynamicObject;
use tokio::sync::watch;

use super::{Carrier, is_held, sessions};
use crate::clock;
use crate::kube::Cluster;
use crate::kube::watch::{Seen, follow};
use crate::record::{Outbox, SessionId};

/// Watches the Mesh's namespace, and every namespace once a session belongs to another (`wide`): a
/// Mesh without tenants needs no right beyond its own. Never returns.
pub async fn watch<C: Carrier>(
    cluster: Cluster,
    carrier: Arc<C>,
    outbox: Outbox,
    mut wide: watch::Receiver<bool>,
) {
    loop {
        let everywhere = *wide.borrow_and_update();
        let namespace = (!everywhere).then(|| cluster.namespace.as_str());
        let mut watcher = Watcher {
            pod: cluster.pod.clone(),
            namespace: namespace.map(str::to_owned),
            carrier: Arc::clone(&carrier),
            outbox: outbox.clone(),
            before: Vec::new(),
            lost: false,
        };
        let selector = format!("spec.relayPod={}", cluster.pod);
        let following =
            follow(sessions(&cluster, namespace), Some(selector), move |seen| watcher.see(seen));
        tokio::select! {
            () = following => {}
            Ok(()) = wide.changed() => {}
        }
    }
}

struct Watcher<C> {
    pod: String,
    /// The only one that is watched; `None`: all.
    namespace: Option<String>,
    carrier: Arc<C>,
    outbox: Outbox,
    /// The sessions whose objects existed when the list that is being read was asked for.
    before: Vec<(String, SessionId)>,
    lost: bool,
}

impl<C: Carrier> Watcher<C> {
    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Listing => {
                self.before = self.outbox.existing();
                let watched = self.namespace.as_ref();
                self.before.retain(|(namespace, _)| watched.is_none_or(|w| w == namespace));
            }
            Seen::Put(object) => self.put(&object),
            Seen::Gone(object) => {
                if let Some(id) = self.ours(&object) {
                    self.vanished(id);
                }
            }
            Seen::Listed(names) => {
                if std::mem::take(&mut self.lost) {
                    tracing::info!("the API server's sessions are watched again");
                }
                for (namespace, id) in std::mem::take(&mut self.before) {
                    if !names.contains(&(namespace, id.to_string())) {
                        self.vanished(id);
                    }
                }
            }
            Seen::Lost(why) => {
                if !std::mem::replace(&mut self.lost, true) {
                    tracing::warn!(
                        why,
                        "the API server's sessions cannot be watched; nothing there cuts until they can"
                    );
                }
            }
        }
    }

    /// The session, if the object says that this pod carries it.
    fn ours(&self, object: &DynamicObject) -> Option<SessionId> {
        let pod = object.data.pointer("/spec/relayPod").and_then(serde_json::Value::as_str);
        let name = object.metadata.name.as_ref()?;
        name.parse().ok().filter(|_| pod == Some(&*self.pod))
    }

    fn put(&self, object: &DynamicObject) {
        let Some(id) = self.ours(object) else { return };
        let cut = object.data.pointer("/spec/cut").and_then(serde_json::Value::as_bool);
        let deleted = object.metadata.deletion_timestamp.is_some();
        if self.carrier.is_live(id) {
            if cut == Some(true) || deleted {
                self.carrier.cut(id, deleted);
            }
        } else if is_held(object) && !self.outbox.knows(id) {
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
