//! Step 4 of a Mesh: makes the Secrets. Touches the network.
//!
//! By server-side apply, which a right can be given to by name. The Secrets are immutable: where
//! somebody made one in between, the server refuses ours, and the next look finds theirs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;

use super::keys::{State, Which, look};
use crate::names::manager;
use crate::watching::Key;
use crate::write::{WriteError, Writer};

/// Makes the Secrets and gives the public halves of what the server has now.
pub async fn apply(
    writer: &Writer,
    mesh: &Key,
    own: &str,
    secrets: &[(Which, Secret)],
) -> Result<BTreeMap<Which, String>, WriteError> {
    let mut made = BTreeMap::new();
    for (which, secret) in secrets {
        let stored = writer.apply(manager::MESH, secret).await?;
        if let State::Present(public) = look(*which, mesh, own, Some(&stored), None) {
            tracing::info!(%mesh, secret = %which.secret(mesh, own), "made a key");
            made.insert(*which, public);
        }
    }
    Ok(made)
}
