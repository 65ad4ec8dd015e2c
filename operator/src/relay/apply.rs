//! Fourth step: brings the cluster to what was built. Touches the network.

use std::fmt::Debug;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::Resources;
use super::validate::NotServed;
use super::{Error, MANAGER, status};
use crate::Context;

/// Applies all of `resources`, by server-side apply, and deletes what is not wanted any more.
///
/// Nothing is taken over: where an object of one of these names is not the Relay's own (by the uid of
/// its controller), nothing is applied, and it is named in the answer.
pub async fn apply(
    ctx: &Context,
    owner: &str,
    resources: Resources,
) -> Result<Option<NotServed>, Error> {
    // Taken apart by name, so that a new kind cannot be forgotten here.
    let Resources {
        service_account,
        network_policy,
        mesh_service,
        service,
        disruption_budget,
        deployment,
    } = resources;
    let namespace = deployment.namespace().unwrap_or_default();
    let name = deployment.name_any();
    let step = Step { ctx, owner, namespace: &namespace };
    let there = step.read::<PodDisruptionBudget>(&name, "PodDisruptionBudget").await?;
    for taken in [
        step.taken(&service_account).await?,
        step.taken(&network_policy).await?,
        step.taken(&mesh_service).await?,
        step.taken(&service).await?,
        step.taken(&deployment).await?,
        there
            .as_ref()
            .filter(|_| disruption_budget.is_some())
            .and_then(|there| step.foreign(there)),
    ] {
        if taken.is_some() {
            return Ok(taken);
        }
    }
    // What confines the pods, and what they are, is there before them.
    step.put(&service_account).await?;
    step.put(&network_policy).await?;
    step.put(&mesh_service).await?;
    step.put(&service).await?;
    match (&disruption_budget, there) {
        (Some(budget), _) => step.put(budget).await?,
        (None, Some(there)) if step.foreign(&there).is_none() => {
            let deleted = ctx.writer.delete(&there).await;
            let what = format!("PodDisruptionBudget {name}");
            deleted.map_err(|source| Error::Apply { what, source })?;
        }
        (None, _) => {}
    }
    step.put(&deployment).await?;
    Ok(None)
}

struct Step<'a> {
    ctx: &'a Context,
    owner: &'a str,
    namespace: &'a str,
}

impl Step<'_> {
    /// `Some`: another's object has the name of this one.
    async fn taken<K>(&self, object: &K) -> Result<Option<NotServed>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let name = object.name_any();
        let there = self.read::<K>(&name, &K::kind(&())).await?;
        Ok(there.and_then(|there| self.foreign(&there)))
    }

    /// `Some`: the object is not the Relay's own.
    fn foreign<K: Resource<DynamicType = ()>>(&self, object: &K) -> Option<NotServed> {
        let what = format!("{} {}", K::kind(&()), object.name_any());
        (!owns(self.owner, object)).then(|| status::taken(&what))
    }

    async fn put<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let what = format!("{} {}", K::kind(&()), object.name_any());
        let applied = self.ctx.writer.apply(MANAGER, object).await;
        applied.map(drop).map_err(|source| Error::Apply { what, source })
    }

    async fn read<K>(&self, name: &str, kind: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.ctx.client.clone(), self.namespace);
        let read = api.get_opt(name).await;
        read.map_err(|source| Error::Read { what: format!("{kind} {name}"), source })
    }
}

/// Whether the object is controlled by the one of that uid.
pub fn owns<K: Resource>(owner: &str, object: &K) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners.into_iter().any(|o| o.controller == Some(true) && o.uid == owner)
}
