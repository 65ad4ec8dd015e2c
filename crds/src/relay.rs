//! Relay: one fleet of relay replicas of a Mesh in one place.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{AddressRange, ByteQuantity, DrainSpan, LabelValue, Line, Name, TtlSpan};

/// What a Relay wants.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "Relay",
    namespaced,
    status = "RelayStatus",
    derive = "PartialEq",
    shortname = "rly",
    category = "tidegate",
    doc = "A Relay is one fleet of relay replicas of a Mesh in one place.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Terminals", type_ = "integer", json_path = ".status.terminals"),
    printcolumn(name = "Sessions", type_ = "integer", json_path = ".status.sessions"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".status.addresses", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name of a Relay must be at most 63 characters, without dots")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.replicas) != has(self.autoscaling)").message("must have exactly one of replicas and autoscaling"))]
pub struct RelaySpec {
    /// The Mesh that this fleet belongs to, in the same namespace. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub mesh_ref: MeshReference,
    /// Where the fleet stands, such as eu-central.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub region: Option<String>,
    /// How many replicas; exactly one of replicas and autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Scales the fleet by its terminals; exactly one of replicas and autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The ports that every replica listens on.
    #[serde(default = "default_listeners")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into()]))]
    pub listeners: Vec<Listener>,
    /// How the fleet is exposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// How the fleet's names come into DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Where the TLS certificate comes from; without it, each replica makes one for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How a replica leaves.
    #[serde(default)]
    pub drain: Drain,
    /// Where the replicas may connect to, beside DNS, the API server and their peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Bounds on what is there at once, and on what may begin in a second.
    #[serde(default)]
    pub limits: RelayLimits,
    /// What the pods look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// 5938 first, then 80: the ports that customers' networks let out.
fn default_listeners() -> Vec<Listener> {
    vec![Listener { port: 5938 }, Listener { port: 80 }]
}

/// A Mesh of the same namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MeshReference {
    /// The Mesh's name.
    #[schemars(with = "Name")]
    pub name: String,
}

/// Scales a fleet by its terminals.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("must not be less than minReplicas").field_path(".maxReplicas"))]
pub struct Autoscaling {
    /// The fewest replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// The most replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// How many connected terminals one replica is for.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub terminals_per_replica: i32,
}

/// A port of every replica. Each speaks every transport.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// How a fleet is exposed.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// By what the ports are reached from outside.
    pub r#type: ExposureType,
    /// Annotations of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Annotation>", extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Local keeps the peers' source addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// IPv4, IPv6 or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Who must send a PROXY header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The schema of an annotation's value.
enum Annotation {}

impl JsonSchema for Annotation {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Annotation".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 4096 })
    }
}

/// By what the ports are reached from outside.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExposureType {
    LoadBalancer,
    NodePort,
    HostPort,
}

/// Whether traffic may take a second hop inside the cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalTrafficPolicy {
    Local,
    Cluster,
}

/// Which IP families the Service has.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamilyPolicy {
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

/// Who must send a PROXY header; from anybody else it is refused.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// The load balancers' addresses.
    #[schemars(with = "Vec<AddressRange>", length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub from: Vec<String>,
}

/// How names come into DNS.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Who publishes the names.
    pub provider: DnsProvider,
    /// The time to live of the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TtlSpan>")]
    pub ttl: Option<String>,
}

/// Who publishes names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsProvider {
    ExternalDNS,
    Embedded,
    None,
}

/// Where the TLS certificate comes from.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.issuerRef)").message("must have exactly one of secretRef and issuerRef"))]
pub struct Tls {
    /// A Secret of type kubernetes.io/tls in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// An issuer of cert-manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerReference>,
}

/// A Secret of the same namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(with = "Line")]
    pub name: String,
}

/// An issuer of cert-manager.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReference {
    /// The issuer's name.
    #[schemars(with = "Line")]
    pub name: String,
    /// The issuer's kind: Issuer or ClusterIssuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Line>")]
    pub kind: Option<String>,
}

/// How a replica leaves.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// How long a replica that leaves waits for its sessions.
    #[serde(default = "default_drain_timeout")]
    #[schemars(with = "DrainSpan")]
    pub timeout: String,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: default_drain_timeout() }
    }
}

fn default_drain_timeout() -> String {
    "30m".into()
}

/// Where replicas may connect to.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Further ranges; loopback, link-local and metadata addresses never.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "extraCIDRs")]
    #[schemars(with = "Vec<AddressRange>", length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub extra_cidrs: Vec<String>,
}

/// Bounds on what is there at once, and on what may begin in a second.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RelayLimits {
    /// Connections before authentication, per replica.
    #[serde(default = "default_unauthenticated")]
    #[schemars(range(min = 16, max = 65536))]
    pub unauthenticated: i32,
    /// Connections before authentication from one source (/24 or /56), per replica.
    #[serde(default = "default_per_source")]
    #[schemars(range(min = 1, max = 65536))]
    pub per_source: i32,
    /// Handshakes of SSH and TLS that peers of one source (/24 or /56) may begin a second, per replica;
    /// eight times as many at once.
    #[serde(default = "default_handshakes_per_source")]
    #[schemars(range(min = 1, max = 65536))]
    pub handshakes_per_source: i32,
    /// Connections of one login user, with or without a session, per replica.
    #[serde(default = "default_connections_per_user")]
    #[schemars(range(min = 1, max = 65536))]
    pub connections_per_user: i32,
    /// Live sessions of one login user, per replica.
    #[serde(default = "default_sessions_per_user")]
    #[schemars(range(min = 1, max = 65536))]
    pub sessions_per_user: i32,
    /// Bytes per second of one session, each way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ByteQuantity>")]
    pub bandwidth_per_session: Option<String>,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            unauthenticated: default_unauthenticated(),
            per_source: default_per_source(),
            handshakes_per_source: default_handshakes_per_source(),
            connections_per_user: default_connections_per_user(),
            sessions_per_user: default_sessions_per_user(),
            bandwidth_per_session: None,
        }
    }
}

fn default_unauthenticated() -> i32 {
    1024
}

fn default_per_source() -> i32 {
    128
}

fn default_handshakes_per_source() -> i32 {
    64
}

fn default_connections_per_user() -> i32 {
    64
}

fn default_sessions_per_user() -> i32 {
    8
}

/// What the pods look like.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// What a replica asks for and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the replicas tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// How the replicas spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread: Vec<TopologySpreadConstraint>,
    /// The priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Line>")]
    pub priority_class_name: Option<String>,
    /// Secrets for pulling the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// What is known about a Relay.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// How many replicas there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// The label selector of the replicas, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Line>")]
    pub selector: Option<String>,
    /// How many terminals are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub terminals: Option<i32>,
    /// How many sessions are live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub sessions: Option<i32>,
    /// Where the fleet is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Line>", length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,
    /// The fingerprints of the SSH host keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Line>", length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub host_key_fingerprints: Vec<String>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the replicas serve. Progressing: a roll-out runs. DNSReady, CertificateReady, SourceAddressKnown: as they say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
