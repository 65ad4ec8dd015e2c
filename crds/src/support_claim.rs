//! SupportClaim: the atomic claim on a window that limits its sessions.

use std::fmt::Write as _;

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

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

/// The name of the claim on place `index` of a window's occurrence: `sc-`, 40 hex digits of the SHA-256
/// of `namespace/window/opensAt`, and `-index`. `opens_at` is `None` for a one-time window, which has one
/// claim for all its life, under `sc-` and the digits of `namespace/window` alone.
///
/// The name is the lock: whoever creates the object has the place. So it hangs on nothing but what stays
/// the same when the window is edited, deleted and made again.
pub fn name(namespace: &str, window: &str, opens_at: Option<Timestamp>, index: u32) -> String {
    let mut hash = Sha256::new();
    hash.update(namespace);
    // No name has a slash, so no two windows have one text.
    hash.update("/");
    hash.update(window);
    if let Some(opens_at) = opens_at {
        hash.update("/");
        hash.update(opens_at.to_string());
    }
    let mut name = "sc-".to_owned();
    for byte in hash.finalize().iter().take(20) {
        // To write to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    if opens_at.is_some() {
        let _ = write!(name, "-{index}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hang_on_window_and_occurrence_alone() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        // printf acme/berlin | sha256sum; printf acme/berlin/2026-11-23T08:00:00Z | sha256sum
        assert_eq!(name("acme", "berlin", None, 0), "sc-07f4960cec5b3c65ade7137ba7df84be5f6db712");
        assert_eq!(
            name("acme", "berlin", at("2026-11-23T09:00:00+01:00"), 3),
            "sc-86fd96b761d78d8eb5a570b9de202fe486e2917c-3"
        );
        let all = [
            name("acme", "berlin", None, 7),
            name("acme", "berlin", at("2026-11-23T08:00:00Z"), 0),
            name("acme", "berlin", at("2026-11-23T08:00:00Z"), 1),
            name("acme", "berlin", at("2026-11-24T08:00:00Z"), 0),
            name("acme", "berlin-2", at("2026-11-23T08:00:00Z"), 0),
            name("acme-berlin", "x", None, 0),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|other| one != other), "{one}");
            assert!(one.len() <= 63 && tidegate_policy::model::Label::parse(one).is_ok(), "{one}");
        }
        // One claim for ever, whatever the place.
        assert_eq!(name("acme", "berlin", None, 0), name("acme", "berlin", None, 7));
    }
}
