//! Step 1 of a Mesh: reads the Secrets of its keys, by get alone. Touches the network.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tidegate_policy::model::HostKeys;

use super::keys::Which;
use crate::watching::Key;

/// A Secret could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read Secret {at}: {source}")]
pub struct DereferenceError {
    at: Key,
    #[source]
    source: kube::Error,
}

/// The Secrets that are there, of a Mesh that wants these host keys.
pub async fn secrets(
    client: &Client,
    mesh: &Key,
    own: &str,
    wanted: HostKeys,
) -> Result<BTreeMap<Which, Secret>, DereferenceError> {
    let mut found = BTreeMap::new();
    for which in Which::wanted(wanted) {
        let at = which.secret(mesh, own);
        let api: Api<Secret> = Api::namespaced(client.clone(), &at.namespace);
        match api.get_opt(&at.name).await {
            Ok(Some(secret)) => {
                found.insert(which, secret);
            }
            Ok(None) => {}
            Err(source) => return Err(DereferenceError { at, source }),
        }
    }
    Ok(found)
}
