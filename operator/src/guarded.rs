//! Objects that may not decode, so that one of them stops no watch and no list.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tidegate_crds::index::Remains;
use tidegate_crds::manifest::with_bare_status;

/// An object with its metadata, whether or not the rest can be decoded, without managed fields.
#[derive(Clone, Debug)]
pub struct Guarded<K, B = ()> {
    pub object: Result<Box<K>, Box<Broken<K>>>,
    /// What else was read of it.
    pub beside: B,
}

/// One that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Broken<K> {
    pub error: String,
    pub metadata: ObjectMeta,
    pub unread: Unread<K>,
}

/// What is left of an object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Unread<K> {
    /// What its status holds.
    pub remains: Remains,
    /// The object, if only its status cannot be decoded: with no more of that than counts.
    pub bare: Option<K>,
}

/// What can be read of any object, decoded or not.
pub trait Beside {
    fn read(object: &Value) -> Self;
}

impl Beside for () {
    fn read(_: &Value) -> Self {}
}

impl<'de, K: DeserializeOwned, B: Beside> Deserialize<'de> for Guarded<K, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut value = Value::deserialize(deserializer)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let object = match K::deserialize(&value) {
            Ok(object) => Ok(Box::new(object)),
            Err(error) => {
                let metadata = value.get("metadata").unwrap_or(&Value::Null);
                let metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
                let bare = with_bare_status(&value).and_then(|bare| K::deserialize(&bare).ok());
                let unread = Unread { remains: Remains::of(&value), bare };
                Err(Box::new(Broken { error: error.to_string(), metadata, unread }))
            }
        };
        Ok(Self { object, beside: B::read(&value) })
    }
}

impl<K: Resource, B> Resource for Guarded<K, B> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.as_ref().map_or_else(|broken| &broken.metadata, |object| object.meta())
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.as_mut().map_or_else(|broken| &mut broken.metadata, |object| object.meta_mut())
    }
}
