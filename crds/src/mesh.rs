//! Mesh: one domain, one policy, one authority, and the namespaces that it serves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{AgeSpan, Blob, Domain, Line, PublicKey, RetentionSpan, Selector};

/// What a Mesh wants.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "Mesh",
    namespaced,
    status = "MeshStatus",
    derive = "PartialEq",
    shortname = "tgm",
    category = "tidegate",
    doc = "A Mesh is the whole: one domain, one policy, one authority, and the namespaces that it serves. Its own namespace is the fleet namespace, whose LoginUsers are staff for all tenants.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name of a Mesh must be at most 63 characters, without dots")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.hostKey) ? self.hostKey.serve : 'A') == (has(oldSelf.hostKey) ? oldSelf.hostKey.serve : 'A') || (has(oldSelf.hostKey) && has(oldSelf.hostKey.announce))")
    .message("may change only while the other key is announced; set announce to it first, and serve it once clients have accepted it").field_path(".hostKey.serve"))]
pub struct MeshSpec {
    /// The domain under which relays and terminals are found, such as support.example.com.
    #[schemars(with = "Domain")]
    pub domain: String,
    /// Which namespaces the Mesh serves beside its own; without it, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Tenants>,
    /// How old policy may be when a new session is admitted; running sessions go on to their deadline.
    #[serde(default = "default_max_policy_age")]
    #[schemars(with = "AgeSpan")]
    pub max_policy_age: String,
    /// How long a grant holds: the operator outage that agents survive, and the longest that a stolen relay can hide a revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RetentionSpan>")]
    pub grant_horizon: Option<String>,
    /// How long the records of ended sessions are kept.
    #[serde(default = "default_session_retention")]
    #[schemars(with = "RetentionSpan")]
    pub session_retention: String,
    /// Which SSH host key the relays have, and which clients shall learn; without it, A alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<HostKey>,
}

/// The relays' two host keys, of which one serves. They change places only by a person's word.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.announce) || self.announce != self.serve")
    .message("must be the key that does not serve").field_path(".announce"))]
pub struct HostKey {
    /// The key that new connections are signed with. It may change only while the other one is announced.
    pub serve: HostKeyName,
    /// The other key, while clients shall learn it: it is made once, and told to everybody who logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<HostKeyName>,
}

/// One of the relays' two host keys.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyName {
    A,
    B,
}

fn default_max_policy_age() -> String {
    "5m".into()
}

fn default_session_retention() -> String {
    "168h".into()
}

/// The namespaces that a Mesh serves.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)")
    .message("must be set with from: Selector, and only then").field_path(".selector"))]
pub struct Tenants {
    /// Same: the Mesh's own namespace alone. Selector: also those that the selector matches.
    #[serde(default = "default_from")]
    pub from: TenantsFrom,
    /// Selects namespaces by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

fn default_from() -> TenantsFrom {
    TenantsFrom::Same
}

/// Where a Mesh's tenants come from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantsFrom {
    Same,
    Selector,
}

/// What is known about a Mesh.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MeshStatus {
    /// The Mesh's signing keys, by their public halves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    /// The public halves of the host keys that all relays of the Mesh have, as known_hosts lines carry them: type and base64; first the one that serves, then the one that is announced. What `kubectl tidegate known-hosts` prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<PublicKey>", length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub host_keys: Vec<String>,
    /// Which keys `hostKeys` lists; without it, A alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<HostKey>,
    /// What it has for itself, by the operator's word on who was first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<MeshHolds>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the authority exists and no other Mesh claims this one's namespaces or domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The most namespaces that a status names. What a Mesh has beyond them it has by being Ready.
pub const MAX_HELD: usize = 10_000;

/// What a Mesh has for itself: the operator's word on who was first, so that it outlives a restart, a bad
/// edit, and every edit of another Mesh.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MeshHolds {
    /// Its domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Domain>")]
    pub domain: Option<String>,
    /// The namespaces that it serves, its own among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Line>", length(max = 10_000))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub namespaces: Vec<String>,
}

/// Why a Mesh is not Ready though its own namespace is its own: another has one that it selects.
pub const NAMESPACE_TAKEN: &str = "NamespaceTaken";

/// Why a Mesh is not Ready though no other Mesh is in its way, as the condition gives it: something is
/// wrong with its keys.
pub mod key_fault {
    pub const MISSING: &str = "KeyMissing";
    pub const FOREIGN: &str = "KeyForeign";
    pub const UNREADABLE: &str = "KeyUnreadable";
    pub const CHANGED: &str = "KeyChanged";
    /// A host key is to serve that no client can know.
    pub const NOT_ANNOUNCED: &str = "KeyNotAnnounced";
    pub const ALL: [&str; 5] = [MISSING, FOREIGN, UNREADABLE, CHANGED, NOT_ANNOUNCED];
}

/// The authority's public halves.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Where the signing keys live. OnRelay: whoever takes the relay's machine has them.
    pub location: AuthorityLocation,
    /// The public key that grants are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Blob>")]
    pub grant_key: Option<String>,
    /// The public key that terminals' host certificates are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Blob>", rename = "hostCA")]
    #[serde(rename = "hostCA")]
    pub host_ca: Option<String>,
    /// The public key that relay lists are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Blob>")]
    pub list_key: Option<String>,
    /// The serial of the newest grant; it only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<i64>,
}

/// Where the authority's keys live.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityLocation {
    Operator,
    OnRelay,
}
