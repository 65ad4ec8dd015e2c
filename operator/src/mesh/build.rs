//! Step 3 of a Mesh: the Secrets to make. Pure, but for the randomness of a key.

use k8s_openapi::api::core::v1::Secret;

use super::keys::{KeyError, Which, make};
use super::validate::Validated;
use crate::watching::Key;

/// The Secrets of the keys that are to be made.
pub fn secrets(
    mesh: &Key,
    own: &str,
    validated: &Validated,
) -> Result<Vec<(Which, Secret)>, KeyError> {
    validated.make.iter().map(|which| Ok((*which, make(*which, mesh, own)?))).collect()
}
