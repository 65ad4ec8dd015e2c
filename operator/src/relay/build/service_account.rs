//! Who a replica is at the API server. What it may do there, `access` binds.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::relay::validate::ValidatedRelay;

/// The fleet's account. Pods ask for their token themselves: it is bound to the pod and dies with it.
pub fn build(relay: &ValidatedRelay) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(relay, relay.name.clone()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
