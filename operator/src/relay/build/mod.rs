//! Third step, pure: what a Relay consists of, one builder an object.
//!
//! A builder sets only what Tidegate decides; the rest is the API server's and other controllers'.

pub mod deployment;
pub mod network_policy;
pub mod pdb;
pub mod service;
pub mod service_account;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::validate::ValidatedRelay;

/// All that is applied for one Relay. A new kind is a new field, which `apply` cannot overlook.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    pub service_account: ServiceAccount,
    pub network_policy: NetworkPolicy,
    pub mesh_service: Service,
    pub service: Service,
    /// `None`: with fewer than two replicas a budget would only stand in the way of a node's drain.
    pub disruption_budget: Option<PodDisruptionBudget>,
    pub deployment: Deployment,
}

/// What `relay` consists of.
pub fn build(relay: &ValidatedRelay) -> Resources {
    Resources {
        service_account: service_account::build(relay),
        network_policy: network_policy::build(relay),
        mesh_service: service::mesh(relay),
        service: service::public(relay),
        disruption_budget: pdb::build(relay),
        deployment: deployment::build(relay),
    }
}

/// The label that names the Relay an object belongs to.
pub const RELAY_LABEL: &str = "tidegate.dev/relay";
/// The label that names the Mesh an object belongs to.
pub const MESH_LABEL: &str = "tidegate.dev/mesh";
/// Everything that the operator makes for a Relay has these labels, whichever Relay it is.
pub const FLEET_SELECTOR: &str =
    "app.kubernetes.io/managed-by=tidegate-operator,app.kubernetes.io/component=relay";

/// What selects a Relay's pods; immutable in a Deployment, hence no more than this.
pub fn selector_labels(relay: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".into(), "tidegate".into()),
        ("app.kubernetes.io/component".into(), "relay".into()),
        (RELAY_LABEL.into(), relay.into()),
    ])
}

/// The same as text, as `status.selector` carries it for the scale subresource.
pub fn selector_text(relay: &str) -> String {
    let labels = selector_labels(relay);
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn labels(relay: &ValidatedRelay) -> BTreeMap<String, String> {
    let mut labels = selector_labels(&relay.name);
    labels.insert("app.kubernetes.io/managed-by".into(), "tidegate-operator".into());
    labels.insert(MESH_LABEL.into(), relay.mesh.clone());
    labels
}

fn selector(relay: &ValidatedRelay) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(&relay.name)), ..LabelSelector::default() }
}

fn metadata(relay: &ValidatedRelay, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(relay.namespace.clone()),
        labels: Some(labels(relay)),
        owner_references: Some(vec![relay.owner.clone()]),
        ..ObjectMeta::default()
    }
}
