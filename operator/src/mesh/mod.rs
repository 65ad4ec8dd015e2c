//! The Mesh controller: which Mesh serves which namespaces, and the keys that each Mesh has.
//!
//! All Meshes are judged together (`tenancy`), by the rule that relays go by
//! (`tidegate_crds::index::Tenants`); each is then reconciled by itself in five steps:
//! `dereference`, `validate`, `build`, `apply`, `update_status`. A Mesh is looked at when it, a
//! namespace's labels or the judgement changed, and once an hour for the sake of its Secrets, which are
//! never watched.

mod apply;
mod build;
mod dereference;
mod keys;
mod known;
mod tenancy;
mod update_status;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use tidegate_crds::Mesh;
use tidegate_crds::mesh::MeshHolds;
use tidegate_process::clock::{self, Boot};
use tokio::sync::watch;

pub use keys::{HOST_KEY_FILE, HOST_KEYS, Which};
pub use known::{Known, Set};
pub use tenancy::{Accepted, Candidate, Judgement, Objection, Service, Tenancy, full, judge};

use crate::Context;
use crate::backoff::{Backoff, jittered};
use crate::metrics::Outcome;
use crate::watching::{Key, watch as watch_all};
use crate::write::WriteError;

/// How often a Mesh is looked at though nothing changed.
const ANEW: Duration = Duration::from_hours(1);
/// How long changes are collected before all are judged together.
const COLLECT: Duration = Duration::from_millis(50);

/// Why a Mesh could not be reconciled; it is tried again.
#[derive(Debug, thiserror::Error)]
enum MeshError {
    #[error(transparent)]
    Dereference(#[from] dereference::DereferenceError),
    #[error("cannot make a key: {0}")]
    Key(#[from] keys::KeyError),
    #[error("cannot write: {0}")]
    Write(#[from] WriteError),
}

/// What a Mesh was when it was last reconciled, and when it is to be looked at again.
struct Done {
    version: Option<String>,
    objection: Option<Objection>,
    holds: MeshHolds,
    again: Boot,
}

/// Runs for ever. Tells `tenancy` which Mesh serves which namespace.
pub async fn run(ctx: Arc<Context>, tenancy: watch::Sender<Tenancy>) {
    let metrics = &ctx.metrics;
    let mut meshes =
        pin!(watch_all::<Mesh>(ctx.client.clone(), Config::default(), "Mesh", Arc::clone(metrics)));
    let mut namespaces = pin!(watch_all::<PartialObjectMeta<Namespace>>(
        ctx.client.clone(),
        Config::default(),
        "Namespace",
        Arc::clone(metrics)
    ));
    let mut controller = Controller::new(Arc::clone(&ctx), tenancy);
    loop {
        let mut due = clock::boot().plus(controller.next());
        // What changes within a moment of the first change is judged with it.
        loop {
            tokio::select! {
                Some(change) = meshes.next() => controller.known.mesh(change),
                Some(change) = namespaces.next() => controller.known.namespace(change),
                () = tokio::time::sleep(due.since(clock::boot())) => break,
            }
            due = due.min(clock::boot().plus(COLLECT));
        }
        controller.reconcile_all().await;
    }
}

struct Controller {
    ctx: Arc<Context>,
    known: Known,
    accepted: Accepted,
    tenancy: watch::Sender<Tenancy>,
    done: BTreeMap<Key, Done>,
    backoff: Backoff<Key>,
}

impl Controller {
    fn new(ctx: Arc<Context>, tenancy: watch::Sender<Tenancy>) -> Self {
        Self {
            ctx,
            known: Known::default(),
            accepted: Accepted::new(),
            tenancy,
            done: BTreeMap::new(),
            backoff: Backoff::default(),
        }
    }

    /// How long until a Mesh is to be looked at again.
    fn next(&self) -> Duration {
        let now = clock::boot();
        self.done.values().map(|done| done.again.since(now)).min().unwrap_or(ANEW)
    }

    async fn reconcile_all(&mut self) {
        if !self.known.complete() {
            return;
        }
        let candidates = self.known.candidates();
        let tenants = self.known.tenants();
        let judged = judge(&candidates, &tenants, &self.accepted);
        let now = Tenancy::of(&tenants, &self.known.tenants_but_for_deletions());
        self.accepted = judged.accepted;
        self.tenancy.send_if_modified(|tenancy| {
            let changed = *tenancy != now;
            *tenancy = now;
            changed
        });
        let meshes = self.known.meshes.objects();
        self.done.retain(|key, _| meshes.contains_key(key));
        self.ctx.metrics.set_objects("Mesh", meshes.len());
        for candidate in &candidates {
            let Some(Ok(mesh)) = meshes.get(&candidate.key) else { continue };
            let objection = judged.objections.get(&candidate.key);
            let holds = judged.holds.get(&candidate.key).cloned().unwrap_or_default();
            let begun = clock::boot();
            if let Some(done) = self.done.get(&candidate.key)
                && done.version == mesh.metadata.resource_version
                && done.objection.as_ref() == objection
                && done.holds == holds
                && begun < done.again
            {
                continue;
            }
            let result = reconcile(&self.ctx, &candidate.key, mesh, objection, holds.clone()).await;
            let now = clock::boot();
            self.ctx.metrics.reconciled("mesh", Outcome::of(&result), now.since(begun));
            let wait = match result {
                Ok(()) => {
                    self.backoff.forget(&candidate.key);
                    jittered(ANEW)
                }
                Err(error) => {
                    let wait = self.backoff.failed(candidate.key.clone());
                    tracing::warn!(mesh = %candidate.key, %error, ?wait, "a Mesh is tried again");
                    wait
                }
            };
            let done = Done {
                version: mesh.metadata.resource_version.clone(),
                objection: objection.cloned(),
                holds,
                again: now.plus(wait),
            };
            self.done.insert(candidate.key.clone(), done);
        }
    }
}

/// One Mesh, in five steps.
async fn reconcile(
    ctx: &Context,
    key: &Key,
    mesh: &Mesh,
    objection: Option<&Objection>,
    holds: MeshHolds,
) -> Result<(), MeshError> {
    let status = mesh.status.as_ref();
    let wanted = update_status::wanted(mesh);
    let mut present = BTreeMap::new();
    let mut wrong = None;
    // For one that serves nothing no key is made or looked at.
    if objection.is_none_or(|objection| !objection.wholly) {
        let found = dereference::secrets(&ctx.client, key, &ctx.namespace, wanted).await?;
        let mut validated = validate::validate(key, &ctx.namespace, status, &found, wanted);
        let secrets = build::secrets(key, &ctx.namespace, &validated)?;
        let made = apply::apply(&ctx.writer, key, &ctx.namespace, &secrets).await?;
        validated.present.extend(made);
        (present, wrong) = (validated.present, validated.wrong);
    }
    // Whether another Mesh is in the way comes first: relays go by it (`Readiness`), and nobody would know
    // it of a Mesh whose status speaks of its keys.
    let objection = objection.or(wrong.as_ref());
    let desired = update_status::desired(mesh, &present, objection, holds, clock::now().wall);
    if update_status::update(&ctx.writer, mesh, &desired).await?
        && let Some(objection) = objection
    {
        ctx.events.warn(mesh, objection.reason, &objection.sentence, "Accept");
    }
    Ok(())
}
