//! What a Relay's status should say. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use tidegate_crds::compile;
use tidegate_crds::relay::{ExposureType, ExternalTrafficPolicy, RelayStatus};

use super::Error;
use super::build::selector_text;
use super::counts::{Counts, moved};
use super::dereference::Dereferenced;
use super::queue::Key;
use super::validate::{NotServed, ValidatedRelay, clip};

/// Why nothing is applied while another's object has a name that is needed.
const NAME_TAKEN: &str = "NameTaken";
/// As many addresses as the schema lets in.
const ADDRESSES: usize = 64;

/// What the status is made of.
pub struct View<'a> {
    pub found: &'a Dereferenced,
    /// What the Relay asks for, or why it is not served.
    pub outcome: Result<&'a ValidatedRelay, &'a NotServed>,
    pub counts: &'a Counts,
    /// Why the objects could not be applied this time.
    pub failed: Option<&'a Error>,
}

/// The status, with times kept where nothing has changed.
pub fn desired(view: &View<'_>, now: Timestamp) -> RelayStatus {
    let found = view.found;
    let relay = &found.relay;
    let before = relay.status.clone().unwrap_or_default();
    let (terminals, sessions) = counts(view, &before);
    let mut conditions = vec![ready(view), progressing(view)];
    conditions.extend(source_address(view));
    conditions.extend(stalled(view));
    for condition in &mut conditions {
        condition.observed_generation = relay.metadata.generation;
        let same = before
            .conditions
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status);
        condition.last_transition_time =
            same.map_or(Time(now), |old| old.last_transition_time.clone());
    }
    RelayStatus {
        replicas: Some(deployed(found).replicas),
        selector: Some(selector_text(&relay.name_any())),
        terminals,
        sessions,
        addresses: addresses(view),
        host_key_fingerprints: fingerprints(found),
        observed_generation: relay.metadata.generation,
        conditions,
    }
}

/// Another's object of kind and name `what` is in the way.
pub fn taken(what: &str) -> NotServed {
    NotServed {
        reason: NAME_TAKEN,
        sentence: clip(format!(
            "{what} exists and is not this Relay's; delete it, or make a Relay of another name"
        )),
        refused: true,
    }
}

/// What was said about it when the objects of this generation were last applied.
pub fn name_taken(found: &Dereferenced) -> Option<NotServed> {
    let status = found.relay.status.as_ref()?;
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let current = ready.observed_generation == found.relay.metadata.generation;
    (current && ready.reason == NAME_TAKEN).then(|| NotServed {
        reason: NAME_TAKEN,
        sentence: ready.message.clone(),
        refused: true,
    })
}

/// A Deployment's own counts; all zero while there is none.
#[derive(Clone, Copy, Default)]
struct Deployed {
    replicas: i32,
    updated: i32,
    available: i32,
    /// Its controller has seen it as it is now.
    observed: bool,
    late: bool,
}

fn deployed(found: &Dereferenced) -> Deployed {
    let Some(deployment) = &found.deployment else { return Deployed::default() };
    let status = deployment.status.clone().unwrap_or_default();
    let late = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "Progressing"
            && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    Deployed {
        replicas: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        observed: status.observed_generation >= deployment.metadata.generation,
        late,
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: impl Into<String>) -> Condition {
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

fn ready(view: &View<'_>) -> Condition {
    let no = |reason: &str, sentence: String| condition("Ready", "False", reason, clip(sentence));
    let relay = match view.outcome {
        Ok(relay) => relay,
        Err(why) => return no(why.reason, why.sentence.clone()),
    };
    let (now, wanted) = (deployed(view.found), relay.replicas);
    if let Some(error) = view.failed
        && view.found.deployment.is_none()
    {
        return no("NotApplied", error.to_string());
    }
    if !now.observed {
        return no("Deploying", "the fleet's Deployment has not been acted on yet".into());
    }
    if wanted == 0 {
        return no(
            "ScaledToZero",
            "spec.replicas is 0, so nobody can connect; set it to 1 or more".into(),
        );
    }
    let sentence = format!("{} of {wanted} replicas are ready", now.available.min(wanted));
    if now.available >= wanted {
        return condition("Ready", "True", "Serving", sentence);
    }
    let waits = view.found.pods.iter().find_map(|pod| waits(pod));
    no(
        "ReplicasNotReady",
        match waits {
            Some(reason) => format!("{sentence}; the others wait: {reason}"),
            None => sentence,
        },
    )
}

/// Why a pod's container is not running, in the kubelet's or the scheduler's word.
fn waits(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let scheduler = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    container.or_else(|| scheduler?.reason.clone())
}

fn progressing(view: &View<'_>) -> Condition {
    let now = deployed(view.found);
    let relay = match view.outcome {
        Ok(relay) => relay,
        Err(why) => {
            let reason = if why.refused { "Refused" } else { "Waiting" };
            return condition(
                "Progressing",
                if why.refused { "False" } else { "True" },
                reason,
                why.sentence.clone(),
            );
        }
    };
    if let Some(error) = view.failed {
        return condition("Progressing", "True", "NotApplied", clip(error.to_string()));
    }
    if now.late {
        return condition(
            "Progressing",
            "False",
            "DeadlineExceeded",
            "the roll-out has come to a standstill; look at the pods of the Deployment",
        );
    }
    // As `kubectl rollout status` has it: the new ones serve, and no old one is left.
    let done = now.observed
        && now.updated >= relay.replicas
        && now.replicas == now.updated
        && now.available >= now.updated;
    if done {
        condition("Progressing", "False", "RolledOut", "all replicas are as the Relay asks for")
    } else {
        condition("Progressing", "True", "RollingOut", "replicas are being replaced or started")
    }
}

/// Whether a replica sees where its peers really are.
fn source_address(view: &View<'_>) -> Option<Condition> {
    let exposure = &view.outcome.ok()?.exposure;
    let say = |status, reason, message: &str| {
        Some(condition("SourceAddressKnown", status, reason, message))
    };
    let by_header = exposure.proxy_protocol.is_some();
    let by_nodes = exposure.r#type != ExposureType::HostPort
        && exposure.external_traffic_policy == Some(ExternalTrafficPolicy::Cluster);
    if by_header && by_nodes {
        return say(
            "False",
            "ExternalTrafficPolicyCluster",
            "with externalTrafficPolicy Cluster proxies and peers alike appear under nodes' addresses: proxyProtocol.from misses the proxies, or lets any peer say where it comes from; set Local",
        );
    }
    if by_header {
        return say(
            "True",
            "ProxyProtocol",
            "the proxies of proxyProtocol.from say by a PROXY header where peers are",
        );
    }
    if exposure.r#type == ExposureType::HostPort {
        return say("True", "HostPort", "peers reach the replicas' nodes themselves");
    }
    if by_nodes {
        return say(
            "False",
            "ExternalTrafficPolicyCluster",
            "with externalTrafficPolicy Cluster peers appear under nodes' addresses, so that sourceRanges and limits.perSource judge these; set Local",
        );
    }
    let ingress =
        view.found.service.iter().filter_map(|service| {
            service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()
        });
    if ingress.flatten().any(|ingress| ingress.ip_mode.as_deref() == Some("Proxy")) {
        return say(
            "False",
            "LoadBalancerProxies",
            "the load balancer opens connections of its own, so that peers appear under its address; let it send a PROXY header and declare it in proxyProtocol.from, or use one that passes them on",
        );
    }
    say("True", "ExternalTrafficPolicyLocal", "the Service passes peers' addresses on")
}

/// Only an edit of the Relay helps.
fn stalled(view: &View<'_>) -> Option<Condition> {
    let why = view.outcome.err().filter(|why| why.refused)?;
    Some(condition("Stalled", "True", why.reason, why.sentence.clone()))
}

/// As counted; as written before where they have moved by less than 5 %, or nobody was asked yet.
fn counts(view: &View<'_>, before: &RelayStatus) -> (Option<i32>, Option<i32>) {
    let relay = &view.found.relay;
    let key = Key { namespace: relay.namespace().unwrap_or_default(), name: relay.name_any() };
    let Some(count) = view.counts.get(&key) else {
        // Without pods there is nothing to count, and that is known.
        let none = view.found.pods.is_empty();
        return if none { (Some(0), Some(0)) } else { (before.terminals, before.sessions) };
    };
    let settle = |written: Option<i32>, now: u32| match written.and_then(|w| u32::try_from(w).ok())
    {
        Some(written_count) if !moved(written_count, now) => written,
        _ => Some(i32::try_from(now).unwrap_or(i32::MAX)),
    };
    (settle(before.terminals, count.terminals), settle(before.sessions, count.sessions))
}

/// Of the Mesh's host key, which all replicas share.
fn fingerprints(found: &Dereferenced) -> Vec<String> {
    let status = found.mesh.as_ref().and_then(|mesh| mesh.status.as_ref());
    let keys = status.iter().flat_map(|status| &status.host_keys);
    keys.filter_map(|key| compile::public_key(key).ok()).map(|key| key.blob.fingerprint()).collect()
}

/// Where the fleet is reached: `address:port`, sorted.
fn addresses(view: &View<'_>) -> Vec<String> {
    let Ok(relay) = view.outcome else {
        return view.found.relay.status.as_ref().map(|s| s.addresses.clone()).unwrap_or_default();
    };
    let Some(service) = &view.found.service else { return Vec::new() };
    let mut found = BTreeSet::new();
    match relay.exposure.r#type {
        ExposureType::LoadBalancer => {
            let ingress =
                service.status.iter().filter_map(|s| s.load_balancer.as_ref()?.ingress.as_ref());
            for place in ingress.flatten().filter_map(|i| i.ip.as_ref().or(i.hostname.as_ref())) {
                found.extend(relay.settings.listeners.iter().map(|port| joined(place, *port)));
            }
        }
        ExposureType::NodePort => {
            let ports = service.spec.iter().filter_map(|spec| spec.ports.as_ref()).flatten();
            let ports: Vec<u16> =
                ports.filter_map(|port| u16::try_from(port.node_port?).ok()).collect();
            for place in node_addresses(view, relay) {
                found.extend(ports.iter().map(|port| joined(&place, *port)));
            }
        }
        ExposureType::HostPort => {
            for place in node_addresses(view, relay) {
                found.extend(relay.settings.listeners.iter().map(|port| joined(&place, *port)));
            }
        }
    }
    found.into_iter().take(ADDRESSES).collect()
}

fn joined(place: &str, port: u16) -> String {
    match place.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{place}:{port}"),
    }
}

/// The nodes that let peers in: those with a ready replica, or all of them where traffic may hop.
fn node_addresses(view: &View<'_>, relay: &ValidatedRelay) -> Vec<String> {
    let hops = relay.exposure.external_traffic_policy == Some(ExternalTrafficPolicy::Cluster)
        && !relay.host_port();
    let with_replica: BTreeSet<&str> = view
        .found
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
        .collect();
    let nodes = view.found.nodes.iter();
    nodes
        .filter(|node| hops || with_replica.contains(node.name_any().as_str()))
        .flat_map(|node| best_addresses(node))
        .collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The external ones, else the internal ones.
fn best_addresses(node: &Node) -> Vec<String> {
    let of = |kind: &str| {
        let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        all.filter(|address| address.type_ == kind).map(|a| a.address.clone()).collect::<Vec<_>>()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::relay::admin_port::Count;
    use crate::relay::build::tests::found;
    use crate::relay::validate::validate;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn said(found: &Dereferenced, counts: &Counts, second: i64) -> RelayStatus {
        let outcome = validate(found);
        let view = View { found, outcome: outcome.as_ref(), counts, failed: None };
        desired(&view, at(second))
    }

    /// The same Relay, with what was written of it.
    fn written(mut found: Dereferenced, status: RelayStatus) -> Dereferenced {
        Arc::make_mut(&mut found.relay).status = Some(status);
        found
    }

    fn the<'a>(status: &'a RelayStatus, kind: &str) -> &'a Condition {
        status.conditions.iter().find(|condition| condition.type_ == kind).unwrap()
    }

    fn counted(terminals: u32) -> Counts {
        let key = Key { namespace: "fleet".into(), name: "berlin".into() };
        Counts::from([(key, Count { terminals, sessions: 1 })])
    }

    fn deployment(available: i32) -> Value {
        json!({
            "metadata": {"name": "berlin", "namespace": "fleet", "generation": 4},
            "spec": {"selector": {}, "template": {}},
            "status": {"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available},
        })
    }

    fn deployed(spec: Value, available: i32) -> Dereferenced {
        let mut found = found(spec);
        found.deployment = Some(Arc::new(serde_json::from_value(deployment(available)).unwrap()));
        found.service = Some(Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "berlin"},
                "spec": {"ports": [{"port": 5938, "nodePort": 30001}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "lb.example.com"}]}},
            }))
            .unwrap(),
        ));
        for (node, address) in [("n1", "192.0.2.1"), ("n2", "fd00::2")] {
            found.nodes.push(Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": node},
                    "status": {"addresses": [{"type": "InternalIP", "address": address}]},
                }))
                .unwrap(),
            ));
        }
        for (node, ready) in [("n1", "False"), ("n2", "True")] {
            found.pods.push(Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": node, "namespace": "fleet"},
                    "spec": {"containers": [], "nodeName": node},
                    "status": {
                        "conditions": [{"type": "Ready", "status": ready}],
                        "containerStatuses": [{
                            "name": "relay", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                            "state": {"waiting": {"reason": "ImagePullBackOff"}},
                        }],
                    },
                }))
                .unwrap(),
            ));
        }
        found
    }

    #[test]
    fn a_fleet_is_ready_when_all_of_it_is() {
        let none = Counts::new();
        let before = said(&found(json!({})), &none, 1);
        assert_eq!(the(&before, "Ready").reason, "Deploying");
        let half = said(&deployed(json!({}), 1), &none, 1);
        assert_eq!(
            the(&half, "Ready").message,
            "1 of 2 replicas are ready; the others wait: ImagePullBackOff"
        );
        assert_eq!(the(&half, "Progressing").reason, "RollingOut");
        let all = said(&deployed(json!({}), 2), &none, 1);
        assert_eq!(
            (the(&all, "Ready").status.as_str(), the(&all, "Ready").message.as_str()),
            ("True", "2 of 2 replicas are ready")
        );
        assert_eq!(the(&all, "Progressing").reason, "RolledOut");
        assert!(!all.conditions.iter().any(|condition| condition.type_ == "Stalled"));
        let refused = said(&found(json!({"dns": {"provider": "Embedded"}})), &none, 1);
        assert_eq!(the(&refused, "Stalled").reason, "NotSupported");
        assert_eq!(the(&refused, "Ready").observed_generation, Some(3));
    }

    #[test]
    fn what_has_not_changed_is_not_written() {
        let first = said(&deployed(json!({}), 2), &counted(100), 1);
        let same = written(deployed(json!({}), 2), first.clone());
        assert_eq!(said(&same, &counted(104), 99), first, "4 in 100 are not worth a write");
        let second = said(&same, &counted(105), 99);
        assert_eq!(second.terminals, Some(105));
        assert_eq!(the(&second, "Ready").last_transition_time, Time(at(1)));
        // Nobody was asked since the operator was started: what was counted before stands.
        assert_eq!(said(&same, &Counts::new(), 99), first);
        let gone = written(deployed(json!({}), 0), first);
        assert_eq!(
            the(&said(&gone, &counted(100), 99), "Ready").last_transition_time,
            Time(at(99))
        );
    }

    #[test]
    fn where_a_fleet_is_reached() {
        let none = Counts::new();
        let by = |spec: Value| said(&deployed(spec, 2), &none, 1).addresses;
        assert_eq!(
            by(json!({"listeners": [{"port": 5938}]})),
            ["203.0.113.9:5938", "lb.example.com:5938"]
        );
        assert_eq!(by(json!({"exposure": {"type": "NodePort"}})), ["[fd00::2]:30001"]);
        assert_eq!(
            by(json!({"exposure": {"type": "NodePort", "externalTrafficPolicy": "Cluster"}})),
            ["192.0.2.1:30001", "[fd00::2]:30001"]
        );
        assert_eq!(
            by(json!({"exposure": {"type": "HostPort"}})),
            ["[fd00::2]:5938", "[fd00::2]:80"]
        );
    }

    #[test]
    fn whether_the_source_address_is_known() {
        let by = |spec: Value| {
            let status = said(&deployed(spec, 2), &Counts::new(), 1);
            let condition = the(&status, "SourceAddressKnown");
            (condition.status.clone(), condition.reason.clone())
        };
        assert_eq!(by(json!({})), ("True".into(), "ExternalTrafficPolicyLocal".into()));
        let cluster =
            json!({"exposure": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}});
        assert_eq!(by(cluster), ("False".into(), "ExternalTrafficPolicyCluster".into()));
        assert_eq!(by(json!({"exposure": {"type": "HostPort"}})).0, "True");
        let behind = |kind: &str, policy: &str| {
            let proxies = json!({"from": ["10.0.0.0/8"]});
            by(
                json!({"exposure": {"type": kind, "externalTrafficPolicy": policy, "proxyProtocol": proxies}}),
            )
        };
        assert_eq!(behind("LoadBalancer", "Local"), ("True".into(), "ProxyProtocol".into()));
        assert_eq!(
            behind("LoadBalancer", "Cluster"),
            ("False".into(), "ExternalTrafficPolicyCluster".into()),
            "headers come from nodes then"
        );
        let proxied = |spec: Value| {
            let mut proxied = deployed(spec, 2);
            let service = Arc::make_mut(proxied.service.as_mut().unwrap());
            let ingress = service.status.as_mut().unwrap().load_balancer.as_mut().unwrap();
            ingress.ingress.as_mut().unwrap()[0].ip_mode = Some("Proxy".into());
            let status = said(&proxied, &Counts::new(), 1);
            the(&status, "SourceAddressKnown").reason.clone()
        };
        assert_eq!(proxied(json!({})), "LoadBalancerProxies");
        let declared = json!({"type": "LoadBalancer", "proxyProtocol": {"from": ["10.0.0.0/8"]}});
        assert_eq!(proxied(json!({"exposure": declared})), "ProxyProtocol");
    }
}
