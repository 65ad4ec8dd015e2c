//! Terminal: the customer's machine that receives support.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Blob, Holds, Line, Name, PublicKey, Selector};

/// What a Terminal wants.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "Terminal",
    namespaced,
    status = "TerminalStatus",
    derive = "PartialEq",
    shortname = "term",
    category = "tidegate",
    doc = "A Terminal is the customer's machine that receives support. It only ever dials out. Its name is unique in the mesh.",
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.name"),
    printcolumn(name = "Enforced-By", type_ = "string", json_path = ".status.enforcedBy"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name of a Terminal must be at most 63 characters, without dots"),
    validation = Rule::new("!(self.metadata.name in ['relay', 'localhost'])").message("the terminal names relay and localhost are reserved")
)]
#[serde(rename_all = "camelCase")]
pub struct TerminalSpec {
    /// The SSH public keys with which the terminal dials in: ed25519, ecdsa, or RSA from 2048 bits. A key belongs to one user or terminal of the mesh.
    #[schemars(with = "Vec<PublicKey>", length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub public_keys: Vec<String>,
    /// The host keys of a stock terminal's own sshd, so that staff can verify it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<PublicKey>", length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub host_keys: Vec<String>,
    /// What staff can reach on this terminal; nothing else, ever.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.port == a.port))").message("the ports of a terminal's services must differ"))]
    #[x_kube(validation = Rule::new("self.all(a, !has(a.listenPort) || self.exists_one(b, has(b.listenPort) && b.listenPort == a.listenPort))").message("the listen ports of a terminal's services must differ"))]
    pub services: Vec<Service>,
    /// Whose machine it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// When the terminal may be connected to a relay.
    #[serde(default = "default_attach")]
    pub attach: Attach,
    /// Lets nobody in, and cuts the running sessions.
    #[serde(default)]
    pub suspend: bool,
    /// Which fleets may carry this terminal; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relays: Option<RelaysSelector>,
}

fn default_attach() -> Attach {
    Attach::Always
}

/// A declared port of a terminal.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The service's name, which windows quote.
    #[schemars(with = "Name")]
    pub name: String,
    /// The port on the terminal.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The port that a stock terminal's ssh -R asks for; unique in the mesh. Nothing listens on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<i32>,
}

/// Whose machine a terminal is.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The customer, as people say it.
    #[schemars(with = "Line")]
    pub name: String,
    /// The customer's ServiceOrganization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub service_organization: Option<String>,
    /// The serial number of the licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Line>")]
    pub license_serial: Option<String>,
}

/// When a terminal may be connected. DuringWindow: from 2 minutes before an opening until the last open window that selects it has closed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Always,
    DuringWindow,
}

/// Which fleets may carry a terminal.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RelaysSelector {
    /// Selects Relays by their labels.
    pub selector: Selector,
}

/// What is known about a Terminal. Written on change only, never per connection.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TerminalStatus {
    /// Who enforces windows here. Device: the agent, by itself. Relay: nobody but the relay (a stock terminal).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced_by: Option<EnforcedBy>,
    /// The version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Line>")]
    pub agent_version: Option<String>,
    /// The host certificate that the authority signed for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Blob>")]
    pub host_certificate: Option<String>,
    /// What this object has for itself since it was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holds>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: the spec is good and no other object holds its name, keys or listen ports. Stalled: the spec is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Who enforces windows at a terminal.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnforcedBy {
    Device,
    Relay,
}
