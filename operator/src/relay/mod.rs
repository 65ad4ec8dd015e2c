//! The Relay controller: turns a Relay into a running fleet, and says how the fleet is.
//!
//! Five steps: dereference (from watches) → validate → build (both pure) → apply → update the status.
//! Beside them, `access` binds what the fleets' accounts may do by what the Mesh
//! controller says of tenants, and `counts` reads the replicas'
//! admin ports. Touches the network, through the API server and `admin_port` alone.

pub mod access;
pub mod admin_port;
pub mod apply;
pub mod build;
pub mod counts;
pub mod dereference;
mod queue;
pub mod status;
pub mod update_status;
pub mod validate;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::reflector::ObjectRef;
use tidegate_crds::Relay;
use tidegate_process::clock;
use tokio::sync::watch as channel;

use self::counts::Counts;
use self::queue::{Depth, Key, Queue};
use self::watch::{Stores, Touched};
use crate::mesh::Tenancy;
use crate::metrics::Outcome;
use crate::write::WriteError;
use crate::{Context, names};

/// The replicas' admin port: probes, metrics.
pub const ADMIN_PORT: u16 = 9090;
/// Between replicas.
pub const MESH_PORT: u16 = 7938;
/// The headless Service of the Relay `R` is `R-mesh`.
pub const MESH_SERVICE_SUFFIX: &str = "-mesh";
/// How long an event waits for others of the same storm.
const GATHERED: Duration = Duration::from_millis(100);

/// Why a Relay could not be brought to what it wants to be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot apply {what}: {source}")]
    Apply { what: String, source: WriteError },
    #[error("cannot read {what}: {source}")]
    Read { what: String, source: kube::Error },
    #[error("cannot write the status: {0}")]
    Status(#[source] WriteError),
}

/// Runs for ever. `held`: the namespaces whose records relays hold, once that is known.
pub async fn run(
    ctx: Arc<Context>,
    mut tenancy: channel::Receiver<Tenancy>,
    mut held: channel::Receiver<Option<BTreeSet<String>>>,
) {
    let (stores, mut events) = watch::start(&ctx.client, &ctx.metrics);
    let (tell, mut counted) = channel::channel(Counts::default());
    ctx.tasks.critical("relay-counts", counts::run(stores.pods.clone(), tell));
    let mut queue = Queue::default();
    let mut ready = false;
    loop {
        let due = queue.next_due();
        tokio::select! {
            touched = events.next() => match touched {
                Some(touched) => queue.touch(&touched, &stores, clock::boot().plus(GATHERED)),
                // A watch never ends by itself.
                None => return,
            },
            changed = counted.changed() => {
                if changed.is_err() {
                    return;
                }
                let touched = Touched::all(Depth::Status);
                queue.touch(&touched, &stores, clock::boot());
            }
            Ok(()) = held.changed() => {
                held.borrow_and_update();
                queue.touch(&Touched::access(), &stores, clock::boot());
            }
            Ok(()) = tenancy.changed() => {
                queue.touch(&Touched::access(), &stores, clock::boot().plus(GATHERED));
            }
            () = wait_until(due), if due.is_some() => {
                // Before every store is complete, what is missing may only not have come yet.
                ready = ready || stores.complete();
                if !ready {
                    queue.put_off(clock::boot().plus(GATHERED));
                    continue;
                }
                // As soon as the Meshes and namespaces are known it will be told.
                let served = tenancy.borrow().clone();
                if queue.take_access() && served.complete {
                    let held = held.borrow().clone();
                    match access::reconcile(&ctx, &stores, &served, held.as_ref()).await {
                        Ok(()) => queue.access_done(),
                        Err(error) => {
                            let seconds = queue.access_failed().as_secs();
                            tracing::warn!(%error, seconds, "the fleets' rights are not bound as they should be; tries again");
                        }
                    }
                }
                let Some((key, depth)) = queue.take(clock::boot()) else { continue };
                let counts = counted.borrow().clone();
                Box::pin(one(&ctx, &stores, &mut queue, key, depth, &counts)).await;
            }
        }
    }
}

/// Reconciles the Relay of `key`, if it is still there.
async fn one(
    ctx: &Context,
    stores: &Stores,
    queue: &mut Queue,
    key: Key,
    depth: Depth,
    counts: &Counts,
) {
    let reference = ObjectRef::new(&key.name).within(&key.namespace);
    let Some(found) = stores.relays.get(&reference) else {
        // Its objects go with it, by their owner.
        queue.forget(&key);
        return;
    };
    let Ok(relay) = &found.0 else {
        // Said in its own words by the watch; nothing of it changes until it can be read.
        queue.forget(&key);
        return;
    };
    let begun = clock::boot();
    let result = Box::pin(reconcile(ctx, stores, Arc::new(relay.clone()), depth, counts)).await;
    ctx.metrics.reconciled("relay", Outcome::of(&result), clock::boot().since(begun));
    match result {
        Ok(()) => queue.done(&key, relay.metadata.generation),
        Err(error) => {
            tracing::warn!(%error, namespace = key.namespace, relay = key.name, "a Relay is not as it should be");
            queue.failed(key);
        }
    }
}

/// The five steps.
async fn reconcile(
    ctx: &Context,
    stores: &Stores,
    relay: Arc<Relay>,
    depth: Depth,
    counts: &Counts,
) -> Result<(), Error> {
    if relay.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let found = dereference::dereference(relay, stores, &ctx.relay_image, &ctx.namespace);
    let mut validated = validate::validate(&found);
    let mut failed = None;
    if depth == Depth::Objects
        && let Ok(valid) = &validated
    {
        let resources = build::build(valid);
        match apply::apply(ctx, &valid.owner.uid, resources).await {
            Ok(None) => {}
            Ok(Some(taken)) => validated = Err(taken),
            Err(error) => failed = Some(error),
        }
    } else if let Some(taken) = status::name_taken(&found) {
        // Found when the objects were last applied; only that finds out more.
        validated = validated.and(Err(taken));
    }
    let view = status::View {
        found: &found,
        outcome: validated.as_ref(),
        counts,
        failed: failed.as_ref(),
    };
    let wanted = status::desired(&view, clock::now().wall);
    update_status::update(ctx, &found.relay, wanted).await?;
    failed.map_or(Ok(()), Err)
}

/// Sleeps until `due`; for ever without one.
async fn wait_until(due: Option<clock::Boot>) {
    match due {
        Some(due) => tokio::time::sleep(due.since(clock::boot())).await,
        None => std::future::pending().await,
    }
}

/// The field manager of everything that this controller applies.
const MANAGER: &str = names::manager::RELAY;
