//! Watches, as every controller has them: begun again after any failure, without managed fields, and
//! never stopped by an object that cannot be decoded.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_events};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::guarded::{Broken, Guarded, Unread};
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

fn put<K>(object: Guarded<K>, kind: &'static str) -> Change<K> {
    match object.object {
        Ok(object) => Change::Put(*object),
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
