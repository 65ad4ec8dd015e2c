//! How a fleet is reached: the public Service, and the headless one by which replicas find each other.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tidegate_crds::relay::{ExposureType, ExternalTrafficPolicy, IpFamilyPolicy};

use super::{metadata, selector_labels};
use crate::relay::validate::ValidatedRelay;
use crate::relay::{MESH_PORT, MESH_SERVICE_SUFFIX};

/// The Service of terminals and staff. Node ports and cluster addresses are the API server's to choose.
pub fn public(relay: &ValidatedRelay) -> Service {
    let exposure = &relay.exposure;
    let external = exposure.r#type != ExposureType::HostPort;
    let policy = match exposure.external_traffic_policy {
        Some(ExternalTrafficPolicy::Cluster) => "Cluster",
        // Keeps the peers' source addresses, which login users' sourceRanges and the caps judge by.
        Some(ExternalTrafficPolicy::Local) | None => "Local",
    };
    let mut meta = metadata(relay, relay.name.clone());
    meta.annotations = (!exposure.annotations.is_empty()).then(|| exposure.annotations.clone());
    Service {
        metadata: meta,
        spec: Some(ServiceSpec {
            type_: Some(
                match exposure.r#type {
                    ExposureType::LoadBalancer => "LoadBalancer",
                    ExposureType::NodePort => "NodePort",
                    // The nodes' own ports are the way in; this one serves the cluster's inside.
                    ExposureType::HostPort => "ClusterIP",
                }
                .into(),
            ),
            external_traffic_policy: external.then(|| policy.into()),
            ip_family_policy: Some(ip_families(relay)),
            selector: Some(selector_labels(&relay.name)),
            ports: Some(
                relay
                    .settings
                    .listeners
                    .iter()
                    .map(|port| ServicePort {
                        name: Some(listener_name(*port)),
                        port: i32::from(*port),
                        target_port: Some(IntOrString::Int(i32::from(*port))),
                        protocol: Some("TCP".into()),
                        ..ServicePort::default()
                    })
                    .collect(),
            ),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service whose name resolves to all replicas, also those that drain: they still hold terminals.
pub fn mesh(relay: &ValidatedRelay) -> Service {
    Service {
        metadata: metadata(relay, format!("{}{MESH_SERVICE_SUFFIX}", relay.name)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            ip_family_policy: Some(ip_families(relay)),
            selector: Some(selector_labels(&relay.name)),
            ports: Some(vec![ServicePort {
                name: Some("mesh".into()),
                port: i32::from(MESH_PORT),
                target_port: Some(IntOrString::Int(i32::from(MESH_PORT))),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A port's name, the same in Service and pod.
pub fn listener_name(port: u16) -> String {
    format!("relay-{port}")
}

fn ip_families(relay: &ValidatedRelay) -> String {
    match relay.exposure.ip_family_policy {
        Some(IpFamilyPolicy::SingleStack) => "SingleStack",
        Some(IpFamilyPolicy::RequireDualStack) => "RequireDualStack",
        Some(IpFamilyPolicy::PreferDualStack) | None => "PreferDualStack",
    }
    .into()
}
