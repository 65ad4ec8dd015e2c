//! SupportClaim: the atomic claim on a window that limits its sessions.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{Line, Name, Time};

/// What is claimed. All of it is immutable: a claim is made by being created.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "SupportClaim",
    namespaced,
    derive = "PartialEq",
    shortname = "scl",
    category = "tidegate",
    selectable = ".spec.relayPod",
    doc = "A SupportClaim is one session's atomic claim on a window that limits its sessions. Relays write it into the Mesh's namespace, where no tenant can delete it. The claim of a one-time window is never released.",
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.window.namespace"),
    printcolumn(name = "Window", type_ = "string", json_path = ".spec.window.name"),
    printcolumn(name = "Opens", type_ = "string", json_path = ".spec.opensAt"),
    printcolumn(name = "Session", type_ = "string", json_path = ".spec.session"),
    printcolumn(name = "Reusable", type_ = "boolean", json_path = ".spec.reusable"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a SupportClaim is immutable"))]
pub struct SupportClaimSpec {
    /// The window that the session claims.
    pub window: ClaimedWindow,
    /// When the occurrence opened.
    #[schemars(with = "Time")]
    pub opens_at: String,
    /// Which of the window's places; 0 for a one-time window.
    #[schemars(range(min = 0, max = 999))]
    pub index: i32,
    /// The session, by its name.
    #[schemars(with = "Line")]
    pub session: String,
    /// The relay replica that made the claim.
    #[schemars(with = "Line")]
    pub relay_pod: String,
    /// Whether the place is free again after the session: true for maxSessions, false for oneTime.
    pub reusable: bool,
}

/// A window, by what stays the same when it is deleted and made again.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedWindow {
    /// The window's namespace.
    #[schemars(with = "Name")]
    pub namespace: String,
    /// The window's name.
    #[schemars(with = "Name")]
    pub name: String,
}
