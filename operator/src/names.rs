//! Names that several controllers, and the tests, need to agree on.

use std::collections::BTreeMap;

/// The Lease that the replicas lead by, in the operator's own namespace.
pub const LEASE: &str = "tidegate-operator";

/// Who says so in events, and the `managed-by` of everything that is made.
pub const OPERATOR: &str = "tidegate-operator";

/// The field managers of server-side apply, one per controller.
pub mod manager {
    pub const MESH: &str = "tidegate-operator/mesh";
    pub const RELAY: &str = "tidegate-operator/relay";
    pub const SUPPORT_WINDOW: &str = "tidegate-operator/support-window";
    pub const LOGIN_USER: &str = "tidegate-operator/login-user";
    pub const TERMINAL: &str = "tidegate-operator/terminal";
    pub const SUPPORT_SESSION: &str = "tidegate-operator/support-session";
    pub const SUPPORT_CLAIM: &str = "tidegate-operator/support-claim";
}

/// The label that names the Mesh of what was made for it.
pub const MESH_LABEL: &str = "tidegate.dev/mesh";
/// The label that names the Relay of what was made for it.
pub const RELAY_LABEL: &str = "tidegate.dev/relay";

/// The labels of everything that is made for `mesh`; `component` is a short noun such as `relay`.
pub fn labels(mesh: &str, component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "tidegate"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/managed-by", OPERATOR),
        (MESH_LABEL, mesh),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
