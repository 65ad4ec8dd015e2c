//! What the watches say, object by object, in the form that the state takes.
//!
//! Each object is decoded by itself: one that cannot be is news too, and stops no watch. Of a status only
//! what [`Before`] keeps is kept.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use futures_util::stream::{BoxStream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_crds::index::Remains;
use tidegate_crds::login_user::LoginUserStatus;
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_crds::support_window::SupportWindowStatus;
use tidegate_crds::terminal::TerminalStatus;
use tidegate_crds::{LoginUser, Mesh, SupportWindow, Terminal};

use super::before::{self, Before, Status};
use crate::guarded::{Beside, Broken, Guarded, Unread};

/// How many objects of a list are held at once.
const PAGE: u32 = 250;

/// An object as it is now.
#[derive(Debug)]
pub struct Arrival {
    pub reference: ObjectRef,
    pub uid: Box<str>,
    pub generation: i64,
    /// The resourceVersion; 0 where it is no number.
    pub version: u64,
    /// It is being deleted, and something holds it up.
    pub deleting: bool,
    /// Or why it cannot be decoded.
    pub object: Result<Object, String>,
    /// Of one that cannot.
    pub remains: Remains,
    pub before: Before,
}

/// What a watch says of its kind.
#[derive(Debug)]
pub enum News {
    /// A complete list begins.
    Begins,
    /// An object of that list.
    Listed(Box<Arrival>),
    /// The list is complete: what it did not show is gone.
    Ends,
    Put(Box<Arrival>),
    Gone(ObjectRef),
    /// The watch or list failed, and is tried again after a while.
    Failed(String),
}

/// The news of one kind, for ever.
pub fn watch(client: &Client, kind: Kind) -> BoxStream<'static, (Kind, News)> {
    match kind {
        Kind::Mesh => of_kind::<Mesh, Nothing>(client, kind, Object::Mesh),
        Kind::LoginUser => of_kind::<LoginUser, LoginUserStatus>(client, kind, Object::LoginUser),
        Kind::Terminal => of_kind::<Terminal, TerminalStatus>(client, kind, Object::Terminal),
        Kind::SupportWindow => {
            of_kind::<SupportWindow, SupportWindowStatus>(client, kind, Object::SupportWindow)
        }
        Kind::Namespace => namespaces(client),
        // The relay controller's.
        Kind::Relay => futures_util::stream::pending().boxed(),
    }
}

/// Statuses that this part neither reads nor writes.
#[derive(Clone, Debug, Default, Deserialize)]
struct Nothing {}

/// What is kept of a status; `Nothing` keeps nothing.
trait Kept: DeserializeOwned + Default {
    fn before(&self) -> Before;
}

impl<S: Status + DeserializeOwned> Kept for S {
    fn before(&self) -> Before {
        before::before(self)
    }
}

impl Kept for Nothing {
    fn before(&self) -> Before {
        Before::default()
    }
}

/// What is kept of an object's status.
#[derive(Clone, Debug)]
struct Said<S> {
    before: Before,
    as_status: PhantomData<S>,
}

impl<S: Kept> Beside for Said<S> {
    fn read(object: &Value) -> Self {
        let before = match object.get("status").map(S::deserialize) {
            Some(Ok(status)) => status.before(),
            None => S::default().before(),
            // It says nothing but what it holds; it will be written anew.
            Some(Err(_)) => {
                let mut before = S::default().before();
                before.holds = Remains::of(object).holds().cloned().map(Box::new);
                before
            }
        };
        Self { before, as_status: PhantomData }
    }
}

/// What is known of an object; one whose status alone cannot be decoded is taken without it.
struct Taken<K> {
    metadata: ObjectMeta,
    object: Result<Box<K>, String>,
    remains: Remains,
    before: Before,
}

impl<K: Resource> Taken<K> {
    fn of<S>(guarded: Guarded<K, Said<S>>) -> Self {
        let before = guarded.beside.before;
        match guarded.object {
            Ok(object) => {
                let metadata = object.meta().clone();
                Self { metadata, object: Ok(object), remains: Remains::default(), before }
            }
            Err(broken) => {
                let Broken { error, metadata, unread: Unread { remains, bare } } = *broken;
                Self { metadata, object: bare.map(Box::new).ok_or(error), remains, before }
            }
        }
    }
}

fn of_kind<K, S>(
    client: &Client,
    kind: Kind,
    object: fn(Box<K>) -> Object,
) -> BoxStream<'static, (Kind, News)>
where
    K: Resource<DynamicType = ()>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
    S: Kept + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let arrival = move |guarded: Guarded<K, Said<S>>| {
        let Taken { metadata, object: decoded, remains, before } = Taken::of(guarded);
        let reference = reference(kind, &metadata);
        arrival(reference, &metadata, decoded.map(object), remains, before)
    };
    let gone = move |guarded: &Guarded<K, Said<S>>| reference(kind, guarded.meta());
    let api: Api<Guarded<K, Said<S>>> = Api::all(client.clone());
    let config = watcher::Config::default().page_size(PAGE);
    watcher(api, config)
        .default_backoff()
        .map(move |event| (kind, news(event, arrival, gone)))
        .boxed()
}

fn namespaces(client: &Client) -> BoxStream<'static, (Kind, News)> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let reference =
        |name: String| ObjectRef { kind: Kind::Namespace, namespace: String::new(), name };
    let config = watcher::Config::default().page_size(PAGE);
    watcher(api, config)
        .default_backoff()
        .map(move |event| {
            let news = news(
                event,
                |namespace| {
                    let name = namespace.name_any();
                    let labels: BTreeMap<_, _> = namespace.labels().clone();
                    let object = Object::Namespace { name: name.clone(), labels };
                    let nothing = (Remains::default(), Before::default());
                    arrival(reference(name), namespace.meta(), Ok(object), nothing.0, nothing.1)
                },
                |namespace| reference(namespace.name_any()),
            );
            (Kind::Namespace, news)
        })
        .boxed()
}

fn news<T>(
    event: watcher::Result<watcher::Event<T>>,
    arrival: impl Fn(T) -> Arrival,
    gone: impl Fn(&T) -> ObjectRef,
) -> News {
    match event {
        Ok(watcher::Event::Init) => News::Begins,
        Ok(watcher::Event::InitApply(object)) => News::Listed(Box::new(arrival(object))),
        Ok(watcher::Event::InitDone) => News::Ends,
        Ok(watcher::Event::Apply(object)) => News::Put(Box::new(arrival(object))),
        Ok(watcher::Event::Delete(object)) => News::Gone(gone(&object)),
        Err(error) => News::Failed(error.to_string()),
    }
}

fn reference(kind: Kind, metadata: &ObjectMeta) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn arrival(
    reference: ObjectRef,
    metadata: &ObjectMeta,
    object: Result<Object, String>,
    remains: Remains,
    before: Before,
) -> Arrival {
    let version = metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
    Arrival {
        reference,
        uid: metadata.uid.clone().unwrap_or_default().into(),
        generation: metadata.generation.unwrap_or_default(),
        version: version.unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        object,
        remains,
        before,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_status_holds_is_read_though_the_rest_of_it_cannot_be() {
        let value = |status: Value| {
            json!({
                "apiVersion": "tidegate.dev/v1alpha1", "kind": "Terminal",
                "metadata": {"name": "kiosk", "namespace": "acme", "uid": "u", "generation": 3},
                "spec": {"publicKeys": [], "services": []},
                "status": status,
            })
        };
        let holds = json!({"generation": 2, "keys": ["SHA256:x"], "listenPorts": [7]});
        let decode = |status: Value| {
            let guarded: Guarded<Terminal, Said<TerminalStatus>> =
                serde_json::from_value(value(status)).unwrap();
            Taken::of(guarded)
        };
        let newer = decode(json!({"enforcedBy": "Somebody", "holds": holds}));
        let newer_holds = newer.object.unwrap().status.unwrap().holds.unwrap();
        assert_eq!(newer_holds.listen_ports, [7], "a newer status takes nothing out of force");
        for kept in [newer.remains.holds(), newer.before.holds.as_deref()] {
            let kept = kept.unwrap();
            assert_eq!((kept.keys.len(), kept.listen_ports.as_slice()), (1, &[7][..]));
        }
        let odd = decode(json!({"holds": {"keys": ["SHA256:x", 7], "listenPorts": ["a", 9]}}));
        assert_eq!(odd.remains.holds().unwrap().keys, ["SHA256:x"]);
        assert_eq!(odd.before.holds.unwrap().listen_ports, [9]);
        assert_eq!(decode(json!({})).remains.holds(), None);
    }

    #[test]
    fn one_that_cannot_be_decoded_keeps_its_name_and_its_status() {
        let value = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "LoginUser",
            "metadata": {"name": "alice", "namespace": "support", "uid": "u", "generation": 3,
                "managedFields": [{"manager": "kubectl"}]},
            "spec": {"publicKeys": "not a list"},
            "status": {"observedGeneration": 2},
        });
        let guarded: Guarded<LoginUser, Said<LoginUserStatus>> =
            serde_json::from_value(value).unwrap();
        let taken = Taken::of(guarded);
        assert!(taken.object.unwrap_err().contains("invalid type"));
        assert_eq!(taken.metadata.name.as_deref(), Some("alice"));
        assert_eq!(taken.metadata.managed_fields, None);
        assert_eq!(taken.before.observed, Some(2));
    }
}
