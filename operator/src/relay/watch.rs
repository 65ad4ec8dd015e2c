//! The controller's watches, and which Relays each event concerns. Touches the network (reads).

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::stream::{BoxStream, SelectAll, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tidegate_crds::{Mesh, Relay};

use super::access::BINDING;
use super::build::{FLEET_SELECTOR, RELAY_LABEL};
use super::queue::{Depth, Key};
use crate::metrics::Metrics;

/// Which Relays an event concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    None,
    One(Key),
    /// All of a namespace.
    Namespace(String),
    All,
}

/// What an event may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    pub which: Which,
    pub depth: Depth,
    /// Of the Relay itself, where the event is its own.
    pub generation: Option<i64>,
    /// Whether the fleets' rights may have to change.
    pub access: bool,
}

impl Touched {
    pub fn all(depth: Depth) -> Self {
        Self { which: Which::All, depth, generation: None, access: false }
    }

    fn one(key: Option<Key>, depth: Depth) -> Self {
        let which = key.map_or(Which::None, Which::One);
        Self { which, depth, generation: None, access: false }
    }

    /// The fleets' rights alone.
    pub fn access() -> Self {
        Self { which: Which::None, depth: Depth::Status, generation: None, access: true }
    }
}

/// What the watches hold.
pub struct Stores {
    pub relays: Store<DeserializeGuard<Relay>>,
    pub meshes: Store<DeserializeGuard<Mesh>>,
    pub deployments: Store<Deployment>,
    pub services: Store<Service>,
    pub pods: Store<Pod>,
    pub nodes: Store<Node>,
    pub endpoint_slices: Store<EndpointSlice>,
    pub accounts: Store<PartialObjectMeta<ServiceAccount>>,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    pub role_bindings: Store<RoleBinding>,
    pub cluster_role_bindings: Store<ClusterRoleBinding>,
    /// Whether each watch has listed everything once.
    complete: Vec<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Stores {
    /// The Relays that there are.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.relays.state().into_iter().map(|relay| key(&*relay))
    }

    /// Whether everything was listed at least once.
    pub fn complete(&self) -> bool {
        self.complete.iter().all(|complete| complete())
    }
}

type Events = SelectAll<BoxStream<'static, Touched>>;

/// Opens all watches.
pub fn start(client: &Client, metrics: &Arc<Metrics>) -> (Stores, Events) {
    let mut events = Events::new();
    let mut complete: Vec<Box<dyn Fn() -> bool + Send + Sync>> = Vec::new();
    let mut follow = Follow { client, metrics, events: &mut events, complete: &mut complete };
    let all = watcher::Config::default;
    let fleet = || all().labels(FLEET_SELECTOR);
    let named = || all().fields(&format!("metadata.name={BINDING}"));
    let everything = || Touched { access: true, ..Touched::all(Depth::Objects) };

    let relays = follow.full(Api::all(client.clone()), all(), everything(), |relay| {
        let relay: &DeserializeGuard<Relay> = relay;
        if let Err(error) = &relay.0 {
            tracing::warn!(%error, relay = relay.name_any(), "a Relay cannot be read");
        }
        Touched {
            generation: relay.meta().generation,
            access: true,
            ..Touched::one(Some(key(relay)), Depth::Objects)
        }
    });
    let listed = Touched::all(Depth::Objects);
    let meshes = follow.full(Api::all(client.clone()), all(), listed, |mesh| {
        let mesh: &DeserializeGuard<Mesh> = mesh;
        let which = Which::Namespace(mesh.namespace().unwrap_or_default());
        Touched { which, depth: Depth::Objects, generation: None, access: false }
    });
    let deployments =
        follow.full(Api::all(client.clone()), fleet(), Touched::all(Depth::Objects), |object| {
            let deployment: &Deployment = object;
            // A new generation: somebody edited it.
            let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
            let edited = observed != deployment.metadata.generation;
            Touched::one(owner(deployment), if edited { Depth::Objects } else { Depth::Status })
        });
    let services = follow.full(
        Api::all(client.clone()),
        fleet(),
        Touched::all(Depth::Objects),
        owned::<Service>,
    );
    let accounts = follow.metadata::<ServiceAccount>(
        fleet(),
        Touched { access: true, ..Touched::all(Depth::Objects) },
        |account| Touched { access: true, ..owned(account) },
    );
    follow.names::<NetworkPolicy>(fleet());
    follow.names::<PodDisruptionBudget>(fleet());
    let pods = follow.full(Api::all(client.clone()), fleet(), Touched::all(Depth::Status), |pod| {
        let pod: &Pod = pod;
        let name = pod.labels().get(RELAY_LABEL).cloned();
        let key = name.map(|name| Key { namespace: pod.namespace().unwrap_or_default(), name });
        Touched::one(key, Depth::Status)
    });
    let nodes =
        follow.full(Api::all(client.clone()), all(), Touched::all(Depth::Status), |_: &Node| {
            Touched::all(Depth::Status)
        });
    let endpoint_slices = follow.full(
        Api::namespaced(client.clone(), "default"),
        all().labels("kubernetes.io/service-name=kubernetes"),
        Touched::all(Depth::Objects),
        |_: &EndpointSlice| Touched::all(Depth::Objects),
    );
    let namespaces = follow.metadata::<Namespace>(all(), Touched::access(), |_| Touched::access());
    let role_bindings =
        follow.full(Api::all(client.clone()), named(), Touched::access(), |_: &RoleBinding| {
            Touched::access()
        });
    let cluster_role_bindings = follow.full(
        Api::all(client.clone()),
        named(),
        Touched::access(),
        |_: &ClusterRoleBinding| Touched::access(),
    );
    let stores = Stores {
        relays,
        meshes,
        deployments,
        services,
        pods,
        nodes,
        endpoint_slices,
        accounts,
        namespaces,
        role_bindings,
        cluster_role_bindings,
        complete,
    };
    (stores, events)
}

/// Adds one watch after another.
struct Follow<'a> {
    client: &'a Client,
    metrics: &'a Arc<Metrics>,
    events: &'a mut Events,
    complete: &'a mut Vec<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Follow<'_> {
    /// Whole objects, without what only the server cares about. `listed` is told after a list, in
    /// which an object may be missing.
    fn full<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        listed: Touched,
        map: impl Fn(&K) -> Touched + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let stream = kube::runtime::watcher(api, config);
        self.add(stream, listed, map)
    }

    /// The metadata of what is made for Relays: an edit or a deletion is all there is to know.
    fn names<K>(&mut self, config: watcher::Config)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.metadata::<K>(config, Touched::all(Depth::Objects), owned);
    }

    fn metadata<K>(
        &mut self,
        config: watcher::Config,
        listed: Touched,
        map: impl Fn(&PartialObjectMeta<K>) -> Touched + Send + 'static,
    ) -> Store<PartialObjectMeta<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = Api::all(self.client.clone());
        self.add(kube::runtime::watcher(api, config), listed, map)
    }

    fn add<K>(
        &mut self,
        stream: impl futures_util::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        listed: Touched,
        map: impl Fn(&K) -> Touched + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        let (store, mut writer) = reflector::store();
        let probe = store.clone();
        self.complete.push(Box::new(move || {
            use futures_util::FutureExt as _;
            probe.wait_until_ready().now_or_never().is_some()
        }));
        let metrics = Arc::clone(self.metrics);
        let stream = stream.default_backoff().modify(|object| {
            object.meta_mut().managed_fields = None;
        });
        let touched = stream.filter_map(move |event| {
            let touched = match event {
                Ok(event) => {
                    writer.apply_watcher_event(&event);
                    match &event {
                        Event::Apply(object) | Event::Delete(object) => Some(map(object)),
                        Event::InitDone => Some(listed.clone()),
                        Event::Init | Event::InitApply(_) => None,
                    }
                }
                Err(error) => {
                    let kind = K::kind(&()).into_owned();
                    tracing::warn!(%error, kind, "a watch failed, and is begun again");
                    metrics.watch_failed("Relay");
                    None
                }
            };
            std::future::ready(touched)
        });
        self.events.push(touched.boxed());
        store
    }
}

/// An object that was made for a Relay was edited or deleted.
fn owned<K: Resource<DynamicType = ()>>(object: &K) -> Touched {
    Touched::one(owner(object), Depth::Objects)
}

/// The Relay that an object says it was made for.
fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<Key> {
    let name = object.meta().labels.as_ref()?.get(RELAY_LABEL)?.clone();
    Some(Key { namespace: object.meta().namespace.clone()?, name })
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}
