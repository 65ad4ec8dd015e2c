//! SupportSession objects: written after the audit line (invariant 7), for every session and until they
//! exist; and watched, so that `spec.cut` and a deletion cut (invariant 3).
//!
//! Neither is on a session's path: with the API server away sessions begin, go on and end as ever, and
//! their records wait on disk.

mod publish;
#[cfg(test)]
mod tests;
mod watcher;

use std::sync::Arc;

use kube::api::ApiResource;
use kube::core::DynamicObject;
use kube::{Api, Client};
use tidegate_crds::SupportSession;
use tokio::sync::watch;

use super::Cluster;
use crate::end;
use crate::gate::Gate;
use crate::record::{EndedBy, Outbox, SessionId};
use crate::sentences;
use crate::supervisor::Supervisor;

/// What carries the sessions.
pub trait Carrier: Send + Sync + 'static {
    /// Whether it lives.
    fn is_live(&self, id: SessionId) -> bool;

    /// Whether it lives, or has ended and something of it is still open.
    fn is_open(&self, id: SessionId) -> bool;

    /// Cuts it, if it lives: `deleted`, or by `spec.cut`.
    fn cut(&self, id: SessionId, deleted: bool);
}

impl Carrier for Gate {
    fn is_live(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| session.is_live())
    }

    fn is_open(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some()
    }

    fn cut(&self, id: SessionId, deleted: bool) {
        let (Some(gate), Some(session)) = (self.me(), self.sessions.get(id)) else { return };
        let reason = sentences::cut_in_cluster(&id.to_string(), deleted);
        if end::end(&gate, &session, EndedBy::Cut, reason) {
            // The cut does not wait for the disk; the record of who asked does.
            let trail = Arc::clone(&gate.trail);
            gate.tasks.spawn("audit line", async move { trail.cut(&session).await });
        }
    }
}

/// Publishes `gate`'s sessions from now on, those of its records on disk among them, and watches
/// their objects. To be called once, after what a former process left open was ended.
pub fn start(gate: &Arc<Gate>, cluster: &Cluster, tasks: &Supervisor) {
    run(gate, cluster, gate.trail.records.publish(), tasks);
}

fn run<C: Carrier>(carrier: &Arc<C>, cluster: &Cluster, outbox: Outbox, tasks: &Supervisor) {
    let wide = watch::Sender::new(false);
    let home = watcher::home(cluster, carrier, &outbox);
    tasks.critical("sessions watch", home);
    let elsewhere = watcher::elsewhere(cluster, carrier, &outbox, wide.subscribe());
    tasks.critical("tenants' sessions watch", elsewhere);
    let publisher =
        publish::Publisher { cluster: cluster.clone(), carrier: Arc::clone(carrier), outbox, wide };
    tasks.critical("sessions publisher", publisher.run());
}

fn sessions(client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<SupportSession>(&());
    let client = client.clone();
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    }
}

/// Whether the object is held back for its relay.
fn is_held(object: &DynamicObject) -> bool {
    let finalizers = object.metadata.finalizers.as_ref();
    finalizers.is_some_and(|all| all.iter().any(|f| f == tidegate_crds::support_session::FINALIZER))
}
