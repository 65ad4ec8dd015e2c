//! Which terminals are connected, asked of the relay pods through the API server, and told by live
//! sessions.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::request::Request;
use kube::{Api, Resource as _, ResourceExt as _};
use serde::Deserialize;
use tidegate_process::clock;

use super::{Cluster, Trouble, VIEWER, World};
use crate::presence::{Connection, Presence};
use crate::sessions;

/// The admin port of a relay pod whose containers name none `admin`.
const ADMIN: i32 = 9090;
/// The ClusterRole of those who may ask the pods.
const CONNECTED: &str = "tidegate-connected";
/// How long one pod may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pods that are asked at once.
const AT_ONCE: usize = 8;

/// What a relay's admin port says at `/terminals`.
#[derive(Debug, Deserialize)]
struct Attached {
    terminals: Vec<One>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct One {
    name: String,
    #[serde(default)]
    connected_since: Option<Timestamp>,
}

/// Asks every running relay pod of the mesh. Where one cannot be asked, live sessions still tell of the
/// terminals that they are on.
pub async fn presence(cluster: &Cluster, world: &World) -> Presence {
    let mut presence = Presence::default();
    match pods(cluster, world).await {
        Err(trouble) => presence.doubt(trouble.to_string()),
        Ok(pods) if pods.is_empty() => presence.doubt(format!(
            "no relay pod of mesh {} is running in namespace {}",
            world.mesh, world.mesh.namespace
        )),
        Ok(pods) => {
            let asked = pods.iter().map(|pod| async move { (pod, ask(cluster, pod).await) });
            let mut answers = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
            while let Some((pod, answer)) = answers.next().await {
                match answer {
                    Err(trouble) => presence.doubt(trouble.to_string()),
                    Ok(attached) => {
                        for one in attached.terminals {
                            let since = one.connected_since;
                            presence.saw(&one.name, Connection { pod: pod.name_any(), since });
                        }
                    }
                }
            }
        }
    }
    if presence.why_unknown().is_some()
        && let Ok(sessions) = sessions::list(cluster, world.scope.as_deref(), None).await
    {
        let now = clock::now().wall;
        for session in sessions.iter().filter(|s| s.is_live() && !s.is_overdue(now)) {
            let pod = session.relay_pod.clone();
            presence.saw(&session.terminal, Connection { pod, since: None });
        }
    }
    presence
}

async fn pods(cluster: &Cluster, world: &World) -> Result<Vec<Pod>, Trouble> {
    let namespace = world.mesh.namespace.as_str();
    let labels = format!("app.kubernetes.io/component=relay,tidegate.dev/mesh={}", world.mesh.name);
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("list the relay pods in namespace {namespace}");
    let params = ListParams::default().labels(&labels);
    let pods = cluster.ask(&what, VIEWER, api.list(&params)).await?;
    let runs = |pod: &Pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    Ok(pods.items.into_iter().filter(runs).collect())
}

async fn ask(cluster: &Cluster, pod: &Pod) -> Result<Attached, Trouble> {
    let name = pod.name_any();
    let namespace = pod.namespace().unwrap_or_default();
    let what = format!("ask relay pod {name} which terminals are connected");
    let request = Request::new(Pod::url_path(&(), Some(&namespace)))
        .get_subresource("proxy/terminals", &format!("{name}:{}", port(pod)))
        .map_err(|error| Trouble::new(format_args!("cannot {what}: {error}")))?;
    let request = cluster.client.request::<Attached>(request);
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(attached)) => Ok(attached),
        Ok(Err(error)) => Err(Trouble::of(&error, &what, CONNECTED)),
        Err(_) => Err(Trouble::late(&what, PATIENCE.as_secs())),
    }
}

fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let admin = ports.find(|port| port.name.as_deref() == Some("admin"));
    admin.map_or(ADMIN, |port| port.container_port)
}
