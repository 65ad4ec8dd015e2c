//! Watches, as every controller has them: begun again after any failure, without managed fields, and
//! never stopped by an object that cannot be decoded.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_events};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tidegate_crds::index::Remains;
use tidegate_crds::manifest::with_bare_status;

use crate::metrics::Metrics;

/// An object by its namespace (empty where it has none) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What a watch says.
#[derive(Debug)]
pub enum Change<K> {
    /// The object is there, as it is now.
    Put(K),
    /// It is not there any more.
    Gone(Key),
    /// It is there and cannot be decoded.
    Undecodable { key: Key, deleting: bool, unread: Box<Unread<K>> },
    /// A list begins anew: what is not put before the next `Complete` is gone.
    Begin,
    /// All that there is has been put.
    Complete,
}

/// What is left of an object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Unread<K> {
    /// What its status holds.
    pub remains: Remains,
    /// The object, if only its status cannot be decoded: with no more of that than counts.
    pub bare: Option<K>,
}

/// Watches all namespaces for ever. `kind` is for the log and the metrics.
pub fn watch<K>(
    client: Client,
    config: watcher::Config,
    kind: &'static str,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = Change<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let guarded: Api<Guarded<K>> = Api::all(client);
    watch_events(guarded, config).default_backoff().filter_map(move |event| {
        let change = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => Some(put(object, kind)),
            Ok(Event::Delete(object)) => Some(Change::Gone(Key::of(&object))),
            Ok(Event::Init) => Some(Change::Begin),
            Ok(Event::InitDone) => Some(Change::Complete),
            Err(error) => {
                metrics.watch_failed(kind);
                tracing::warn!(kind, %error, "a watch failed, and is begun again");
                None
            }
        };
        std::future::ready(change)
    })
}

/// An object with its metadata, whether or not the rest can be decoded.
#[derive(Clone, Debug)]
struct Guarded<K>(Result<Box<K>, Box<Broken<K>>>);

#[derive(Clone, Debug)]
struct Broken<K> {
    error: String,
    metadata: ObjectMeta,
    unread: Unread<K>,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = Value::deserialize(deserializer)?;
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
        Ok(Self(object))
    }
}

impl<K: Resource> Resource for Guarded<K> {
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
        self.0.as_ref().map_or_else(|broken| &broken.metadata, |object| object.meta())
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|broken| &mut broken.metadata, |object| object.meta_mut())
    }
}

fn put<K>(object: Guarded<K>, kind: &'static str) -> Change<K>
where
    K: Resource<DynamicType = ()>,
{
    match object.0 {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Change::Put(*object)
        }
        Err(broken) => {
            let Broken { error, metadata, unread } = *broken;
            let deleting = metadata.deletion_timestamp.is_some();
            let key = Key {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name.unwrap_or_default(),
            };
            tracing::warn!(kind, object = %key, error, "an object cannot be decoded");
            Change::Undecodable { key, deleting, unread: Box::new(unread) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_people_write_it() {
        assert_eq!(Key::new("support", "prod").to_string(), "support/prod");
        assert_eq!(Key::new("", "support").to_string(), "support");
    }
}
