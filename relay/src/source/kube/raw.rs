//! One object as the API server gives it, reduced to what policy is made of.

use serde_json::{Value, json};
use tidegate_crds::manifest::{Kind, Object, ObjectRef};

use super::wire::{Named, OBJECT_BYTES};

/// The field that says of an object that no more than its name was read. No object of an API server
/// has it: what a definition does not declare is dropped there.
const TOO_LARGE: &str = "tooLarge";

/// An object, and what it is in our types.
#[derive(Clone, Debug)]
pub struct Raw {
    pub reference: ObjectRef,
    /// The resource version; 0 where it is no number, so that it equals no other.
    pub version: u64,
    /// What is kept on disk, from which the same is read again.
    pub value: Value,
    /// serde's sentence where our types do not take it.
    pub object: Result<Object, String>,
    /// It is being deleted, and something holds it up.
    pub deleting: bool,
}

/// Namespace and name.
pub type Key = (String, String);

impl Raw {
    /// `None` where it has no name, which no object of an API server lacks.
    pub fn new(kind: Kind, mut value: Value) -> Option<Self> {
        let metadata = value.get_mut("metadata")?.as_object_mut()?;
        // By far the largest parts of many objects, and no policy.
        metadata.remove("managedFields");
        metadata.remove("annotations");
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
        let name = text("name").to_owned();
        if !is_name(&name) {
            return None;
        }
        let namespace = if kind == Kind::Namespace { "" } else { text("namespace") }.to_owned();
        if !namespace.is_empty() && !is_name(&namespace) {
            return None;
        }
        let version = text("resourceVersion").parse().unwrap_or(0);
        let deleting = metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null());
        if let Some(object) = value.as_object_mut() {
            // Nothing on the data path reads another kind's status.
            if !matches!(kind, Kind::Mesh | Kind::LoginUser | Kind::Terminal) {
                object.remove("status");
            }
            if kind == Kind::Namespace {
                object.remove("spec");
            }
        }
        let object = if value.get(TOO_LARGE).is_some() {
            Err(format!("it is larger than {} MiB; make it smaller", OBJECT_BYTES >> 20))
        } else {
            Object::decode(kind, &value).map_err(|error| error.to_string())
        };
        Some(Self {
            reference: ObjectRef { kind, namespace, name },
            version,
            value,
            object,
            deleting,
        })
    }

    /// The same for an object that is too large to be read.
    pub fn too_large(kind: Kind, named: &Named) -> Option<Self> {
        let mut metadata = json!({
            "name": named.name, "namespace": named.namespace, "resourceVersion": named.version,
        });
        if named.deleting
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.insert("deletionTimestamp".into(), true.into());
        }
        Self::new(kind, json!({"metadata": metadata, TOO_LARGE: true}))
    }

    pub fn key(&self) -> Key {
        (self.reference.namespace.clone(), self.reference.name.clone())
    }
}

/// RFC 1123 subdomain, as the API server asks of every name here: no blank, no line break.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_policy_goes_and_what_cannot_be_decoded_keeps_its_name() {
        let raw = Raw::new(
            Kind::SupportWindow,
            json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportWindow",
                "metadata": {
                    "name": "berlin", "namespace": "acme", "resourceVersion": "17",
                    "managedFields": [{}], "annotations": {"a": "b"}, "labels": {"c": "d"},
                },
                "spec": {"services": 7},
                "status": {"nextOccurrences": []},
            }),
        );
        let raw = raw.unwrap();
        assert_eq!(raw.reference.to_string(), "SupportWindow acme/berlin");
        assert_eq!((raw.version, raw.deleting), (17, false));
        assert!(raw.object.is_err());
        assert_eq!(raw.value["metadata"]["labels"]["c"], "d");
        assert_eq!(raw.value["metadata"].get("managedFields"), None);
        assert_eq!(raw.value.get("status"), None);
        let named = Named {
            namespace: "acme".into(),
            name: "berlin".into(),
            version: "18".into(),
            deleting: true,
        };
        let raw = Raw::too_large(Kind::Namespace, &named).unwrap();
        assert_eq!((raw.version, raw.deleting), (18, true));
        assert!(raw.object.unwrap_err().contains("larger than 4 MiB"));
        let again = Raw::new(Kind::Namespace, raw.value).unwrap();
        assert!(again.object.is_err(), "from the journal it is read as complete");
        for name in ["", "a b", "a\nb", "A"] {
            assert!(
                Raw::new(Kind::Mesh, json!({"metadata": {"name": name}})).is_none(),
                "{name:?}"
            );
        }
    }
}
