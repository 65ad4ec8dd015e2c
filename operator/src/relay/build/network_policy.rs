//! What may reach a replica, and what it may reach: all else is refused. A replica that was taken over
//! gets no further than this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{MESH_LABEL, metadata, selector};
use crate::relay::validate::ValidatedRelay;
use crate::relay::{ADMIN_PORT, MESH_PORT};

/// Names a namespace; the API server sets it on each.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The policy of a fleet's pods. Probes come from the node, which no NetworkPolicy stops.
pub fn build(relay: &ValidatedRelay) -> NetworkPolicy {
    let listeners = relay.settings.listeners.iter().map(|port| tcp(*port)).collect();
    let ingress = vec![
        // From anywhere: terminals and staff. Who they are, the relay asks.
        NetworkPolicyIngressRule { ports: Some(listeners), from: None },
        NetworkPolicyIngressRule { ports: Some(vec![tcp(ADMIN_PORT)]), from: Some(admin(relay)) },
        NetworkPolicyIngressRule {
            ports: Some(vec![tcp(MESH_PORT)]),
            from: Some(vec![peers(relay)]),
        },
    ];
    let mut egress = vec![
        NetworkPolicyEgressRule {
            ports: Some(vec![port("UDP", 53), tcp(53)]),
            to: Some(vec![namespace("kube-system", None)]),
        },
        NetworkPolicyEgressRule { ports: Some(vec![tcp(MESH_PORT)]), to: Some(vec![peers(relay)]) },
    ];
    egress.extend(api_servers(relay));
    if !relay.extra_ranges.is_empty() {
        let to = relay.extra_ranges.iter().cloned().map(block).collect();
        egress.push(NetworkPolicyEgressRule { ports: None, to: Some(to) });
    }
    NetworkPolicy {
        metadata: metadata(relay, relay.name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(relay)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

/// One rule a port: its addresses, each by itself.
fn api_servers(relay: &ValidatedRelay) -> impl Iterator<Item = NetworkPolicyEgressRule> {
    let mut by_port: BTreeMap<u16, Vec<NetworkPolicyPeer>> = BTreeMap::new();
    for server in &relay.api_servers {
        by_port.entry(server.port).or_default().push(address(server.address));
    }
    by_port
        .into_iter()
        .map(|(port, to)| NetworkPolicyEgressRule { ports: Some(vec![tcp(port)]), to: Some(to) })
}

/// The replicas of all fleets of the Mesh, which are all in its namespace.
fn peers(relay: &ValidatedRelay) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([
                ("app.kubernetes.io/name".into(), "tidegate".into()),
                ("app.kubernetes.io/component".into(), "relay".into()),
                (MESH_LABEL.into(), relay.mesh.clone()),
            ])),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

/// Who may ask a replica how it is: the operator, and the API server on behalf of those who may read it
/// through `pods/proxy`.
fn admin(relay: &ValidatedRelay) -> Vec<NetworkPolicyPeer> {
    let servers: BTreeSet<IpAddr> = relay.api_servers.iter().map(|server| server.address).collect();
    let mut from = vec![operator(relay)];
    from.extend(servers.into_iter().map(address));
    from
}

fn address(address: IpAddr) -> NetworkPolicyPeer {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    block(IPBlock { cidr: format!("{address}/{bits}"), except: None })
}

/// The operator, which counts terminals and sessions.
fn operator(relay: &ValidatedRelay) -> NetworkPolicyPeer {
    let pods = BTreeMap::from([
        ("app.kubernetes.io/name".into(), "tidegate".into()),
        ("app.kubernetes.io/component".into(), "operator".into()),
    ]);
    namespace(&relay.operator_namespace, Some(pods))
}

fn namespace(name: &str, pods: Option<BTreeMap<String, String>>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(NAMESPACE_LABEL.into(), name.into())])),
            ..LabelSelector::default()
        }),
        pod_selector: pods
            .map(|labels| LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
        ..NetworkPolicyPeer::default()
    }
}

fn block(range: IPBlock) -> NetworkPolicyPeer {
    NetworkPolicyPeer { ip_block: Some(range), ..NetworkPolicyPeer::default() }
}

fn tcp(number: u16) -> NetworkPolicyPort {
    port("TCP", number)
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: Some(IntOrString::Int(i32::from(number))),
        ..NetworkPolicyPort::default()
    }
}
