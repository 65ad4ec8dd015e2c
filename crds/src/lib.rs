//! Tidegate's custom resources: their types, what makes them valid, and how they become policy.
//!
//! The types are the truth: `crdgen` writes `crds/yaml/` from them, `manifest` reads YAML by the
//! schemas that they generate, `compile` turns them into the policy's own types.

#![expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn of a kind has a name, a type and a path of its own"
)]

pub mod assemble;
pub mod claims;
pub mod common;
pub mod compile;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod index;
pub mod login_user;
pub mod manifest;
pub mod mesh;
pub mod references;
pub mod relay;
pub mod support_claim;
pub mod support_session;
pub mod support_window;
pub mod terminal;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt as _;

pub use login_user::{LoginUser, LoginUserSpec};
pub use mesh::{Mesh, MeshSpec};
pub use relay::{Relay, RelaySpec};
pub use support_claim::{SupportClaim, SupportClaimSpec};
pub use support_session::{SupportSession, SupportSessionSpec};
pub use support_window::{SupportWindow, SupportWindowSpec};
pub use terminal::{Terminal, TerminalSpec};

/// The API group.
pub const GROUP: &str = "tidegate.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";

/// The definitions of all kinds, as `crds/yaml/` has them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Mesh::crd(),
        Relay::crd(),
        LoginUser::crd(),
        Terminal::crd(),
        SupportWindow::crd(),
        SupportSession::crd(),
        SupportClaim::crd(),
    ];
    for crd in &mut crds {
        for version in &mut crd.spec.versions {
            if let Some(schema) =
                version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut())
            {
                settle(schema);
            }
        }
    }
    crds
}

/// An `Option` is a field that may be absent, not one that may be null: without `nullable` the server
/// drops a null before it defaults, so that CEL's `has` means what it says.
fn settle(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(properties) = &mut schema.properties {
        properties.values_mut().for_each(settle);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        settle(items);
    }
    if let Some(
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrBool::Schema(
            additional,
        ),
    ) = &mut schema.additional_properties
    {
        settle(additional);
    }
}

/// File name and text of each definition, as `crdgen` writes them.
pub fn crd_files() -> Vec<(String, String)> {
    crds()
        .iter()
        .map(|crd| {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let body = serde_saphyr::to_string(crd).unwrap_or_else(|e| format!("# {e}\n"));
            (
                name,
                format!(
                    "# Written by crdgen from crds/src; edit the types, not this file.\n{body}"
                ),
            )
        })
        .collect()
}
