//! SupportClaim: the atomic claim on a window that limits its sessions.

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::common::{Line, Name, Time};

/// Annotation: the login that holds the claim, as typed.
pub const USER: &str = "tidegate.dev/user";
/// Annotation: when the claimed occurrence closes, RFC 3339. A one-time claim outlives it by a day.
pub const CLOSES_AT: &str = "tidegate.dev/closes-at";
/// Annotation: which attempt of which relay process made the claim, so that one whose answer was lost
/// can be told from another's.
pub const ATTEMPT: &str = "tidegate.dev/attempt";
/// Label: the name of a one-time claim, or what the names of an occurrence's places begin with.
pub const CLAIM: &str = "tidegate.dev/claim";

/// The name of the claim on a one-time window: one whatever the window's schedule says, and however
/// often it is deleted and made again.
pub fn once_name(namespace: &str, window: &str) -> String {
    hashed(&format!("{namespace}/{window}"))
}

/// What the names of the claims on one occurrence's places begin with; `-` and the index follow.
pub fn places_name(namespace: &str, window: &str, opens_at: Timestamp) -> String {
    hashed(&format!("{namespace}/{window}/{opens_at}"))
}

/// The name of the claim on one place.
pub fn place_name(places: &str, index: u32) -> String {
    format!("{places}-{index}")
}

/// `sc-` and 160 bits in hex, which fit a label's value. No namespace and no name has a `/`, so no two
/// windows hash the same text.
fn hashed(text: &str) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(20).fold("sc-".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_window_and_for_places_of_the_occurrence() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let once = once_name("acme", "berlin");
        // printf acme/berlin | sha256sum
        assert_eq!(once, "sc-07f4960cec5b3c65ade7137ba7df84be5f6db712");
        let nine = places_name("acme", "berlin", at("2026-11-23T09:00:00Z"));
        // printf acme/berlin/2026-11-23T09:00:00Z | sha256sum
        assert_eq!(nine, "sc-7a99e4ab4beed53b942a0cef9aedb9f7d38e25c7");
        assert_eq!(nine, places_name("acme", "berlin", at("2026-11-23T10:00:00+01:00")));
        assert_eq!(place_name(&nine, 12), format!("{nine}-12"));
        let others = [
            once_name("acme", "berlin2"),
            once_name("acme-b", "erlin"),
            places_name("acme", "berlin", at("2026-11-23T09:00:01Z")),
        ];
        for other in others {
            assert!(other != once && other != nine && other.len() <= 63, "{other}");
        }
    }
}
