//! Lets a node's drain take one replica at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, selector};
use crate::relay::validate::ValidatedRelay;

/// `maxUnavailable` follows the fleet's size by itself, unlike `minAvailable`. A single replica gets
/// no budget: its sessions end with a drain either way, and a budget would block it for ever.
pub fn build(relay: &ValidatedRelay) -> Option<PodDisruptionBudget> {
    (relay.replicas > 1).then(|| PodDisruptionBudget {
        metadata: metadata(relay, relay.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(relay)),
            // A replica that is not ready carries nobody new; it may always go.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
