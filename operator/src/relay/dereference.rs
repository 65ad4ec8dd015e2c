//! First step: all that a Relay's reconciliation reads of other objects, from the stores that the
//! watches fill. No request is made.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tidegate_crds::{Mesh, Relay};

use super::build::RELAY_LABEL;
use super::watch::Stores;

/// A Relay and what it depends on, as last seen.
#[derive(Clone, Debug)]
pub struct Dereferenced {
    pub relay: Arc<Relay>,
    pub mesh: Option<Arc<Mesh>>,
    /// Those of the Service `default/kubernetes`.
    pub api_server: Vec<EndpointSlice>,
    pub deployment: Option<Arc<Deployment>>,
    pub service: Option<Arc<Service>>,
    pub pods: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Node>>,
    pub image: String,
    pub operator_namespace: String,
}

/// Looks everything up.
pub fn dereference(relay: Arc<Relay>, stores: &Stores, image: &str, own: &str) -> Dereferenced {
    let name = relay.name_any();
    let namespace = relay.namespace().unwrap_or_default();
    let mesh = ObjectRef::new(&relay.spec.mesh_ref.name).within(&namespace);
    let same = |other: Option<&String>, label: Option<&String>| {
        other == Some(&namespace) && label == Some(&name)
    };
    Dereferenced {
        // One that cannot be read is none: its own watch says so.
        mesh: stores.meshes.get(&mesh).and_then(|mesh| mesh.0.as_ref().ok().cloned().map(Arc::new)),
        api_server: stores.endpoint_slices.state().iter().map(|slice| (**slice).clone()).collect(),
        deployment: stores.deployments.get(&ObjectRef::new(&name).within(&namespace)),
        service: stores.services.get(&ObjectRef::new(&name).within(&namespace)),
        pods: stores.pods.state_filter(|pod| {
            same(pod.metadata.namespace.as_ref(), pod.labels().get(RELAY_LABEL))
        }),
        nodes: stores.nodes.state(),
        image: image.to_owned(),
        operator_namespace: own.to_owned(),
        relay,
    }
}
