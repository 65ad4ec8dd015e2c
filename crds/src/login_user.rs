//! LoginUser: a member of the support staff.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{AddressRange, Holds, Name, PublicKey, Time};

/// What a LoginUser wants.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "LoginUser",
    namespaced,
    status = "LoginUserStatus",
    derive = "PartialEq",
    shortname = "lu",
    category = "tidegate",
    doc = "A LoginUser is a member of the support staff, with SSH public keys. Its name is the login; in a tenant's namespace acme it logs in as bob.acme.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Valid-Until", type_ = "string", json_path = ".spec.validUntil"),
    printcolumn(name = "Groups", type_ = "string", json_path = ".spec.groups", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name of a LoginUser must be at most 63 characters, without dots"),
    validation = Rule::new("!(self.metadata.name in ['root', 'terminal']) && !self.metadata.name.startsWith('g-')").message("the logins root, terminal and g-* are reserved")
)]
#[serde(rename_all = "camelCase")]
pub struct LoginUserSpec {
    /// The SSH public keys that prove this user: ed25519, ecdsa, or RSA from 2048 bits. A key belongs to one user or terminal of the mesh.
    #[schemars(with = "Vec<PublicKey>", length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub public_keys: Vec<String>,
    /// Groups that windows may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,
    /// The first instant at which this user is no longer let in; running sessions are cut then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub valid_until: Option<String>,
    /// From where this user may connect; without it, from anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<AddressRange>", length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub source_ranges: Vec<String>,
    /// Lets this user in nowhere, and cuts the running sessions.
    #[serde(default)]
    pub suspend: bool,
}

/// What is known about a LoginUser.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LoginUserStatus {
    /// What this object has for itself since it was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holds>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: the spec is good and no other object holds its keys. Stalled: the spec is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
