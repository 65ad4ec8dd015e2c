//! Fourth step: brings the cluster to what was built. Touches the network.

use std::fmt::Debug;

use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::Resources;
use super::validate::NotServed;
use super::{Error, MANAGER, status};
use crate::Context;

/// Applies all of `resources`, by server-side apply, and deletes what is not wanted any more.
///
/// Nothing is taken over: an object of one of these names that is not the Relay's own (by the uid of
/// its controller) is left as it is, and named in the answer.
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
    // What confines the pods, and what they are, is there before them.
    let taken = [
        step.put(&service_account).await?,
        step.put(&network_policy).await?,
        step.put(&mesh_service).await?,
        step.put(&service).await?,
        match &disruption_budget {
            Some(budget) => step.put(budget).await?,
            None => step.drop_budget(&name).await?,
        },
    ];
    if let Some(taken) = taken.into_iter().flatten().next() {
        return Ok(Some(taken));
    }
    step.put(&deployment).await
}

struct Step<'a> {
    ctx: &'a Context,
    owner: &'a str,
    namespace: &'a str,
}

impl Step<'_> {
    /// `Some`: another's object has the name.
    async fn put<K>(&self, object: &K) -> Result<Option<NotServed>, Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let name = object.name_any();
        let what = format!("{} {name}", K::kind(&()));
        if let Some(there) = self.read::<K>(&name, &what).await?
            && !self.owns(&there)
        {
            return Ok(Some(status::taken(&what)));
        }
        let applied = self.ctx.writer.apply(MANAGER, object).await;
        applied.map_err(|source| Error::Apply { what, source })?;
        Ok(None)
    }

    /// Deletes the Relay's budget if there is one.
    async fn drop_budget(&self, name: &str) -> Result<Option<NotServed>, Error> {
        use k8s_openapi::api::policy::v1::PodDisruptionBudget;
        let what = format!("PodDisruptionBudget {name}");
        let there: Option<PodDisruptionBudget> = self.read(name, &what).await?;
        if let Some(there) = there.filter(|there| self.owns(there)) {
            let deleted = self.ctx.writer.delete(&there).await;
            deleted.map_err(|source| Error::Apply { what, source })?;
        }
        Ok(None)
    }

    async fn read<K>(&self, name: &str, what: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.ctx.client.clone(), self.namespace);
        let read = api.get_opt(name).await;
        read.map_err(|source| Error::Read { what: what.to_owned(), source })
    }

    fn owns<K: Resource>(&self, object: &K) -> bool {
        let owners = object.meta().owner_references.iter().flatten();
        owners.into_iter().any(|o| o.controller == Some(true) && o.uid == self.owner)
    }
}
