//! Fields that only the operator acts on. In a directory they are accepted, and listed once.

use serde_json::Value;

use crate::manifest::Kind;

const TYPE: &str = "spec.exposure.type";

/// Their paths, by kind.
fn paths(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Mesh => &["spec.grantHorizon"],
        Kind::Relay => &[
            "spec.autoscaling",
            TYPE,
            "spec.exposure.annotations",
            "spec.exposure.externalTrafficPolicy",
            "spec.exposure.ipFamilyPolicy",
            "spec.dns",
            "spec.egress",
            "spec.pod",
            "spec.tls.secretRef",
        ],
        Kind::Terminal => &["spec.owner.serviceOrganization", "spec.owner.licenseSerial"],
        Kind::LoginUser | Kind::SupportWindow | Kind::Namespace => &[],
    }
}

/// The fields of `object` that only the operator acts on, as far as they are set.
pub fn operator_only(kind: Kind, object: &Value) -> Vec<&'static str> {
    let set = |path: &&&str| path.split('.').try_fold(object, |at, field| at.get(field)).is_some();
    let mut fields: Vec<_> = paths(kind).iter().filter(set).copied().collect();
    // Who declares proxies has to give a type, too.
    if object.pointer("/spec/exposure/proxyProtocol").is_some() {
        fields.retain(|field| *field != TYPE);
    }
    // A directory drives one replica; one is what people must write there.
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64);
    if kind == Kind::Relay && replicas.is_some_and(|replicas| replicas != 1) {
        fields.push("spec.replicas");
    }
    fields
}
