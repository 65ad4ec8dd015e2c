//! Whole objects, as they are applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_crds::Relay;

use super::*;
use crate::relay::dereference::Dereferenced;
use crate::relay::validate::{NotServed, validate};

fn relay(spec: &Value) -> Relay {
    let mut object = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Relay",
        "metadata": {"name": "berlin", "namespace": "fleet", "uid": "r-1", "generation": 3},
        "spec": {"meshRef": {"name": "prod"}},
    });
    let known = object["spec"].as_object_mut().unwrap();
    known.extend(spec.as_object().unwrap().clone());
    if !known.contains_key("autoscaling") && !known.contains_key("replicas") {
        known.insert("replicas".into(), json!(2));
    }
    serde_json::from_value(object).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "written as literals")]
pub fn found(spec: Value) -> Dereferenced {
    Dereferenced {
        relay: Arc::new(relay(&spec)),
        mesh: Some(Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "tidegate.dev/v1alpha1",
                "kind": "Mesh",
                "metadata": {"name": "prod", "namespace": "fleet", "uid": "m-1", "generation": 1},
                "spec": {"domain": "support.example.com"},
                "status": {"conditions": [{
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                    "observedGeneration": 1, "lastTransitionTime": "2026-11-24T22:00:00Z",
                }]},
            }))
            .unwrap(),
        )),
        api_server: vec![
            serde_json::from_value(json!({
                "addressType": "IPv4",
                "metadata": {"name": "kubernetes", "namespace": "default"},
                "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}],
                "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
            }))
            .unwrap(),
        ],
        deployment: None,
        service: None,
        pods: Vec::new(),
        nodes: Vec::new(),
        image: "tidegate-relay:0.1.0".into(),
        operator_namespace: "tidegate-system".into(),
    }
}

fn built(spec: Value) -> Resources {
    build(&validate(&found(spec)).unwrap())
}

fn refused(spec: Value) -> NotServed {
    validate(&found(spec)).unwrap_err()
}

/// As the API server gets it.
fn yaml<T: serde::Serialize>(object: &T) -> String {
    let text = serde_json::to_string(object).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn a_fleet_with_all_defaults() {
    let all = built(json!({}));
    insta::assert_snapshot!("deployment", yaml(&all.deployment));
    insta::assert_snapshot!("service", yaml(&all.service));
    insta::assert_snapshot!("mesh_service", yaml(&all.mesh_service));
    insta::assert_snapshot!("service_account", yaml(&all.service_account));
    insta::assert_snapshot!("disruption_budget", yaml(&all.disruption_budget));
    insta::assert_snapshot!("network_policy", yaml(&all.network_policy));
}

#[test]
fn a_fleet_on_host_ports() {
    let all = built(json!({
        "replicas": 1,
        "listeners": [{"port": 5938}],
        "exposure": {"type": "HostPort"},
        "drain": {"timeout": "0s"},
        "pod": {
            "nodeSelector": {"edge": "true"},
            "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}],
            "topologySpread": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "registry"}],
            "resources": {"requests": {"cpu": "1"}},
        },
    }));
    insta::assert_snapshot!("host_port_deployment", yaml(&all.deployment));
    insta::assert_snapshot!("host_port_service", yaml(&all.service));
    assert_eq!(all.disruption_budget, None, "one replica must not block a drain for ever");
}

#[test]
fn a_fleet_by_node_ports_with_annotations() {
    let all = built(json!({
        "exposure": {
            "type": "NodePort",
            "annotations": {"example.com/a": "b"},
            "externalTrafficPolicy": "Cluster",
            "ipFamilyPolicy": "SingleStack",
        },
    }));
    insta::assert_snapshot!("node_port_service", yaml(&all.service));
}

#[test]
fn further_egress_never_reaches_the_node_or_its_metadata() {
    let all = built(
        json!({"egress": {"extraCIDRs": ["0.0.0.0/0", "::/0", "203.0.113.7", "10.1.0.0/16"]}}),
    );
    let egress = all.network_policy.spec.unwrap().egress.unwrap();
    insta::assert_snapshot!("extra_egress", yaml(egress.last().unwrap()));
    for never in [
        "127.0.0.1",
        "169.254.169.254/32",
        "169.254.0.0/16",
        "fe80::/64",
        "::1",
        "fd00:ec2::254",
        "::ffff:10.0.0.0/104",
    ] {
        let refused = refused(json!({"egress": {"extraCIDRs": ["10.0.0.0/8", never]}}));
        assert_eq!(refused.reason, "InvalidAddress");
        assert!(
            refused.sentence.starts_with("spec.egress.extraCIDRs[1]: lies within "),
            "{refused}"
        );
    }
}

#[test]
fn what_selects_the_pods_is_on_them_and_on_nothing_else() {
    let all = built(json!({}));
    let spec = all.deployment.spec.unwrap();
    let selector = spec.selector.match_labels.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
    assert_eq!(Some(selector.clone()), all.service.spec.unwrap().selector);
    assert_eq!(
        selector_text("berlin"),
        "app.kubernetes.io/component=relay,app.kubernetes.io/name=tidegate,tidegate.dev/relay=berlin"
    );
    let operator: BTreeMap<_, _> = BTreeMap::from([("app.kubernetes.io/component", "operator")]);
    assert_ne!(
        selector.get("app.kubernetes.io/component").map(String::as_str),
        operator.values().next().copied()
    );
}

#[test]
fn what_is_not_built_yet_is_refused_where_it_is_set() {
    for (spec, field) in [
        (
            json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 2, "terminalsPerReplica": 9}}),
            "spec.autoscaling",
        ),
        (json!({"dns": {"provider": "ExternalDNS"}}), "spec.dns.provider"),
        (json!({"tls": {"issuerRef": {"name": "x"}}}), "spec.tls.issuerRef"),
    ] {
        let refused = refused(spec);
        assert_eq!(refused.reason, "NotSupported", "{refused}");
        assert!(refused.sentence.starts_with(&format!("{field}: ")), "{refused}");
        assert!(refused.refused);
    }
    assert!(validate(&found(json!({"dns": {"provider": "None"}}))).is_ok());
    assert!(validate(&found(json!({"limits": {"bandwidthPerSession": "1Mi"}}))).is_ok());
}

#[test]
fn a_certificate_of_a_secret_is_mounted_and_named() {
    let relay = validate(&found(json!({"tls": {"secretRef": {"name": "relay-tls"}}}))).unwrap();
    let pod = build(&relay).deployment.spec.unwrap().template.spec.unwrap();
    let args = pod.containers[0].args.as_ref().unwrap();
    let tail = args.iter().rev().take(4).rev().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        tail,
        ["--tls-cert", "/etc/tidegate-tls/tls.crt", "--tls-key", "/etc/tidegate-tls/tls.key"]
    );
    let volume = yaml(pod.volumes.as_ref().unwrap().last().unwrap());
    assert!(
        volume.contains(r#""secretName": "relay-tls""#) && volume.contains(r#""optional": true"#)
    );
    let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
    assert!(mounts.iter().any(|it| it.mount_path == "/etc/tidegate-tls" && it.name == "tls"));
}

#[test]
fn a_listener_on_a_port_of_the_replicas_own_is_refused() {
    for (port, what) in [(9090, "probes and metrics"), (7938, "the other replicas")] {
        let refused = refused(json!({"listeners": [{"port": 443}, {"port": port}]}));
        assert_eq!((refused.reason, refused.refused), ("PortReserved", true));
        assert_eq!(
            refused.sentence,
            format!(
                "spec.listeners[1].port: {port} is the replicas' own port for {what}; take another"
            )
        );
    }
    assert!(validate(&found(json!({"listeners": [{"port": 443}, {"port": 5938}]}))).is_ok());
}

#[test]
fn names_that_services_cannot_have_are_refused() {
    for name in ["1st", "berlin-mesh", &"x".repeat(59)] {
        let mut found = found(json!({}));
        Arc::make_mut(&mut found.relay).metadata.name = Some((*name).to_owned());
        let refused = validate(&found).unwrap_err();
        assert_eq!(refused.reason, "InvalidName", "{refused}");
    }
}

#[test]
fn a_mesh_that_is_missing_or_not_ready_is_waited_for() {
    let mut found = found(json!({}));
    let mut mesh = (*found.mesh.take().unwrap()).clone();
    let missing = validate(&found).unwrap_err();
    assert_eq!(
        (missing.reason, missing.sentence.as_str(), missing.refused),
        (
            "MeshNotFound",
            "there is no Mesh prod in namespace fleet; create it, or name another in a new Relay",
            false
        )
    );
    mesh.metadata.generation = Some(2);
    found.mesh = Some(Arc::new(mesh.clone()));
    assert_eq!(
        validate(&found).unwrap_err().reason,
        "MeshNotReady",
        "its condition is of an earlier generation"
    );
    let condition = &mut mesh.status.as_mut().unwrap().conditions[0];
    "False".clone_into(&mut condition.status);
    "the Secret tidegate-host-key is gone".clone_into(&mut condition.message);
    found.mesh = Some(Arc::new(mesh));
    assert_eq!(
        validate(&found).unwrap_err().sentence,
        "the Mesh prod is not ready: the Secret tidegate-host-key is gone"
    );
}

#[test]
fn the_api_server_is_reached_where_it_is_and_nowhere_else() {
    let mut found = found(json!({}));
    let rules = |found: &Dereferenced| {
        let all = build(&validate(found).unwrap());
        let egress = all.network_policy.spec.unwrap().egress.unwrap();
        egress.iter().filter(|rule| yaml(rule).contains("ipBlock")).map(yaml).collect::<Vec<_>>()
    };
    assert_eq!(rules(&found).len(), 1);
    assert!(rules(&found)[0].contains("10.0.0.1/32"));
    found.api_server[0].endpoints[0].addresses = vec!["fd00::1".into()];
    assert!(rules(&found)[0].contains("fd00::1/128"));
    found.api_server.clear();
    assert_eq!(rules(&found).len(), 0, "with no address known there is no way out, and no error");
}
