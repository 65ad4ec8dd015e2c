//! What every kind's definition must have.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, and says its values in place"
)]

use std::path::Path;

use serde_json::{Value, json};
use tidegate_crds::{crd_files, crds};

fn definitions() -> Vec<(String, Value)> {
    crds()
        .iter()
        .map(|crd| (crd.spec.names.kind.clone(), serde_json::to_value(crd).unwrap()))
        .collect()
}

fn version(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]
}

/// Calls `each` with every schema node and its path.
fn walk(path: &str, schema: &Value, each: &mut dyn FnMut(&str, &Value)) {
    each(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, each);
    }
    for nested in ["items", "additionalProperties"] {
        if schema[nested].is_object() {
            walk(&format!("{path}[]"), &schema[nested], each);
        }
    }
}

fn each_node(each: &mut dyn FnMut(&str, &Value)) {
    for (kind, crd) in definitions() {
        walk(&kind, &version(&crd)["schema"]["openAPIV3Schema"], each);
    }
}

/// Types of Kubernetes itself, whose bounds are not ours.
fn foreign(path: &str) -> bool {
    ["Relay.spec.pod.", ".status.conditions"].iter().any(|part| path.contains(part))
}

#[test]
fn the_committed_definitions_are_fresh() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut files = crd_files();
    files.sort();
    let expected: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, expected);
    for (name, text) in files {
        let committed = std::fs::read_to_string(directory.join(&name)).unwrap();
        assert!(committed == text, "{name} is stale; run: cargo run -p tidegate-crds --bin crdgen");
    }
}

#[test]
fn every_kind_is_namespaced_has_columns_a_short_name_and_the_category() {
    let mut short_names = Vec::new();
    for (kind, crd) in definitions() {
        assert_eq!(crd["spec"]["scope"], "Namespaced", "{kind}");
        assert_eq!(crd["spec"]["names"]["categories"], json!(["tidegate"]), "{kind}");
        short_names.extend(crd["spec"]["names"]["shortNames"].as_array().unwrap().clone());
        let columns = version(&crd)["additionalPrinterColumns"].as_array().unwrap();
        assert!(columns.len() >= 3, "{kind}");
        assert_eq!(columns.last().unwrap()["name"], "Age", "{kind}");
    }
    short_names.sort_by_key(ToString::to_string);
    let count = short_names.len();
    short_names.dedup();
    assert_eq!((count, short_names.len()), (7, 7));
}

/// What people see first, and what relays filter by; others rely on both.
#[test]
fn columns_and_selectable_fields_are_those_that_were_promised() {
    let columns = |kind: &str| -> Vec<String> {
        let (_, crd) = definitions().into_iter().find(|(name, _)| name == kind).unwrap();
        let columns = version(&crd)["additionalPrinterColumns"].as_array().unwrap().clone();
        let shown = columns.iter().filter(|column| column["priority"].as_i64().unwrap_or(0) == 0);
        shown.map(|column| column["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(columns("SupportWindow"), ["Opens", "Closes", "Accepted", "Suspend", "Age"]);
    assert_eq!(columns("Mesh"), ["Domain", "Ready", "Age"]);
    assert_eq!(columns("Relay"), ["Region", "Replicas", "Ready", "Terminals", "Sessions", "Age"]);
    assert_eq!(columns("LoginUser"), ["Accepted", "Suspend", "Valid-Until", "Age"]);
    assert_eq!(columns("Terminal"), ["Owner", "Enforced-By", "Accepted", "Suspend", "Age"]);
    for (kind, crd) in definitions() {
        let fields = version(&crd)["selectableFields"].as_array().cloned().unwrap_or_default();
        let fields: Vec<_> = fields.iter().map(|f| f["jsonPath"].as_str().unwrap()).collect();
        let expected: &[&str] = match kind.as_str() {
            "SupportSession" => &[".spec.relayPod", ".spec.user", ".spec.terminal"],
            "SupportClaim" => &[".spec.relayPod"],
            _ => &[],
        };
        assert_eq!(fields, expected, "{kind}");
    }
    let names = |kind: &str| {
        let (_, crd) = definitions().into_iter().find(|(name, _)| name == kind).unwrap();
        crd["spec"]["names"]["shortNames"].clone()
    };
    assert_eq!((names("SupportWindow"), names("Relay")), (json!(["sw"]), json!(["rly"])));
}

#[test]
fn every_kind_with_a_status_has_the_subresource_and_list_map_conditions() {
    for (kind, crd) in definitions() {
        let schema = &version(&crd)["schema"]["openAPIV3Schema"];
        // A claim is made by being created; there is nothing more to say about it.
        if kind == "SupportClaim" {
            assert!(schema["properties"]["status"].is_null());
            continue;
        }
        assert_eq!(version(&crd)["subresources"]["status"], json!({}), "{kind}");
        let status = &schema["properties"]["status"]["properties"];
        assert_eq!(status["observedGeneration"]["format"], "int64", "{kind}");
        let conditions = &status["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]), "{kind}");
    }
    let (_, relay) = definitions().into_iter().find(|(kind, _)| kind == "Relay").unwrap();
    assert_eq!(
        version(&relay)["subresources"]["scale"],
        json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        })
    );
}

#[test]
fn every_field_is_described_and_structural() {
    each_node(&mut |path, schema| {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let root = ["apiVersion", "kind", "metadata"].contains(&name.as_str());
            let described = property["description"].as_str().is_some_and(|d| !d.is_empty());
            let status = name == "status" && !path.contains('.');
            assert!(described || root || status, "{path}.{name} has no description");
        }
        assert!(schema["nullable"].is_null(), "{path} is nullable");
        for word in ["anyOf", "oneOf", "allOf", "not"] {
            assert!(schema[word].is_null(), "{path} has {word}");
        }
        assert!(schema["x-kubernetes-preserve-unknown-fields"].is_null(), "{path}");
    });
}

#[test]
fn no_format_is_unsigned_and_everything_is_bounded() {
    each_node(&mut |path, schema| {
        let format = schema["format"].as_str().unwrap_or_default();
        assert!(!format.starts_with("uint"), "{path} has the format {format}");
        if foreign(path) || path.ends_with("metadata") || !path.contains('.') {
            return;
        }
        match schema["type"].as_str() {
            Some("string") => assert!(
                schema["maxLength"].is_number()
                    || schema["enum"].is_array()
                    || schema["x-kubernetes-int-or-string"] == true
                    || ["kind", "apiVersion"].iter().any(|n| path.ends_with(n)),
                "{path} has no maxLength"
            ),
            Some("array") => {
                let conditions = path.ends_with(".conditions");
                assert!(schema["maxItems"].is_number() || conditions, "{path} has no maxItems");
                assert!(
                    schema["x-kubernetes-list-type"].is_string()
                        || path.contains("matchExpressions")
                        || path.starts_with("Relay.spec.pod"),
                    "{path} has no list type"
                );
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                assert!(schema["maxProperties"].is_number(), "{path} has no maxProperties");
            }
            Some("integer") => {
                let open = path.ends_with("observedGeneration") || path.ends_with("serial");
                assert!(schema["minimum"].is_number() || open, "{path} has no minimum");
            }
            _ => {}
        }
    });
}

#[test]
fn every_rule_has_one_clear_sentence_and_avoids_what_kube_cel_lacks() {
    let mut rules = 0;
    each_node(&mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            let text = rule["rule"].as_str().unwrap();
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty() && message.is_ascii() && message.len() <= 200, "{path}");
            assert!(!message.ends_with('.') && !message.contains('\n'), "{path}: {message}");
            assert!(!text.contains(".?"), "{path}: {text}");
        }
    });
    assert!(rules > 50, "{rules}");
}

/// Reads an object and writes it again.
fn round<T: serde::de::DeserializeOwned + serde::Serialize>(value: Value) {
    let typed: T = serde_json::from_value(value).unwrap();
    let text = serde_json::to_string(&typed).unwrap();
    assert!(!text.contains("null"), "{text}");
}

#[test]
fn nothing_absent_is_written_as_null() {
    let window = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportWindow", "metadata": {"name": "w"},
        "spec": {
            "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk-17"]}, "services": ["ssh"],
            "schedule": {"once": {"start": "2026-11-23T09:00:00Z", "end": "2026-11-23T11:00:00Z"}},
        },
        "status": {},
    });
    let relay = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Relay", "metadata": {"name": "r"},
        "spec": {"meshRef": {"name": "prod"}, "replicas": 1, "exposure": {"type": "NodePort"},
            "dns": {"provider": "None"}, "tls": {}, "egress": {}, "pod": {}},
        "status": {},
    });
    let mesh = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "prod"},
        "spec": {"domain": "support.example.com", "tenants": {"from": "Same"}},
        "status": {"authority": {"location": "OnRelay"}},
    });
    let user = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "LoginUser", "metadata": {"name": "alice"},
        "spec": {"publicKeys": []}, "status": {},
    });
    let terminal = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "Terminal", "metadata": {"name": "k"},
        "spec": {"publicKeys": [], "services": [{"name": "ssh", "port": 22}], "owner": {"name": "Acme"}},
        "status": {},
    });
    let session = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportSession", "metadata": {"name": "ss-1"},
        "spec": {
            "window": {"name": "w", "uid": "u"}, "opensAt": "2026-11-23T09:00:00Z", "user": "alice",
            "terminal": "kiosk-17", "service": "ssh", "relayPod": "r-0",
            "openedAt": "2026-11-23T09:00:00Z", "deadline": "2026-11-23T11:00:00Z",
        },
        "status": {},
    });
    round::<tidegate_crds::SupportWindow>(window);
    round::<tidegate_crds::Relay>(relay);
    round::<tidegate_crds::Mesh>(mesh);
    round::<tidegate_crds::LoginUser>(user);
    round::<tidegate_crds::Terminal>(terminal);
    round::<tidegate_crds::SupportSession>(session);
}
