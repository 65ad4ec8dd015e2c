//! The few facts that are kept of each object. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as KubePod};
use kube::ResourceExt as _;
use tidegate_crds::support_claim::CLOSES_AT;
use tidegate_crds::{SupportClaim, SupportSession};
use tidegate_policy::text;

use crate::watching::Key;

/// A relay's pod, as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It serves, or may come back to it: what it has written it will end itself.
    Ready,
    /// It is there, and nobody can say whether its relay runs: the node may be away.
    Unknown,
    /// Its containers are reported terminated for good; when, where that was reported.
    Ended(Option<Timestamp>),
    /// There is none of that name.
    Gone,
}

impl PodState {
    /// Whether its relay surely runs no more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended(_) | Self::Gone)
    }

    /// What is known of pods of one name, of which one is meant: it is over only where all are.
    pub fn of_all(states: impl IntoIterator<Item = Self>) -> Self {
        states.into_iter().fold(Self::Gone, |before, state| match (before, state) {
            (Self::Ready, _) | (_, Self::Ready) => Self::Ready,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Ended(a), Self::Ended(b)) => Self::Ended(a.max(b)),
            (ended @ Self::Ended(_), Self::Gone) | (Self::Gone, ended @ Self::Ended(_)) => ended,
            (Self::Gone, Self::Gone) => Self::Gone,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    pub state: PodState,
}

impl Pod {
    pub fn of(pod: &KubePod) -> Self {
        Self { state: state(pod) }
    }
}

/// A container that ended is started again in the same pod, and its relay then ends the sessions of
/// the one before itself. So a pod has ended only once all its containers are reported terminated, and
/// its phase says that they stay so, or it is being deleted. The phase alone reports nothing: others than
/// the kubelet set it to Failed, of a node that is silent and may well go on running them.
fn state(pod: &KubePod) -> PodState {
    let Some(status) = &pod.status else { return PodState::Unknown };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let finished = containers.iter().filter_map(finished_at).max();
    let terminated = |container: &ContainerStatus| {
        container.state.as_ref().is_some_and(|state| state.terminated.is_some())
    };
    let phase = status.phase.as_deref();
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let never_ran = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    let for_good = deleted || matches!(phase, Some("Succeeded" | "Failed"));
    let none_runs = match containers {
        [] => never_ran,
        some => some.iter().all(terminated),
    };
    if for_good && none_runs {
        return PodState::Ended(finished);
    }
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if ready { PodState::Ready } else { PodState::Unknown }
}

fn finished_at(container: &ContainerStatus) -> Option<Timestamp> {
    container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
}

/// A SupportSession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub uid: Option<String>,
    /// What a write is made on: it fails where the object is another by then.
    pub version: Option<String>,
    pub generation: Option<i64>,
    pub pod: String,
    /// `None`: it cannot be read, and nothing follows from it.
    pub deadline: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Session {
    pub fn of(session: &SupportSession) -> Self {
        let ended = session.status.as_ref().and_then(|status| status.ended_at.as_deref());
        Self {
            uid: session.uid(),
            version: session.resource_version(),
            generation: session.metadata.generation,
            pod: session.spec.relay_pod.clone(),
            deadline: text::timestamp(&session.spec.deadline).ok(),
            ended_at: ended.and_then(|at| text::timestamp(at).ok()),
            finalizers: session.finalizers().to_vec(),
            deleting: session.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A SupportClaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub uid: Option<String>,
    pub window: Key,
    pub opens_at: Option<Timestamp>,
    /// When the occurrence closes, where its relay said so.
    pub closes_at: Option<Timestamp>,
    /// The session, in the window's namespace.
    pub session: Key,
    pub pod: String,
    pub reusable: bool,
    pub deleting: bool,
}

impl Claim {
    pub fn of(claim: &SupportClaim) -> Self {
        let spec = &claim.spec;
        let closes_at = claim.annotations().get(CLOSES_AT);
        Self {
            uid: claim.uid(),
            window: Key::new(&spec.window.namespace, &spec.window.name),
            opens_at: text::timestamp(&spec.opens_at).ok(),
            closes_at: closes_at.and_then(|at| at.parse().ok()),
            session: Key::new(&spec.window.namespace, &spec.session),
            pod: spec.relay_pod.clone(),
            reusable: spec.reusable,
            deleting: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> PodState {
        state(&serde_json::from_value(value).unwrap())
    }

    const AT: &str = "2026-11-24T22:00:00Z";

    fn terminated() -> serde_json::Value {
        json!([{"name": "relay", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "finishedAt": AT}}}])
    }

    fn running() -> serde_json::Value {
        json!([{"name": "relay", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}}])
    }

    #[test]
    fn a_pod_is_over_only_when_it_is_reported_so() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let away = json!([{"type": "Ready", "status": "Unknown"}]);
        let ended = PodState::Ended(AT.parse().ok());
        for (what, value, expected) in [
            (
                "it serves",
                json!({"status": {"phase": "Running", "conditions": ready, "containerStatuses": running()}}),
                PodState::Ready,
            ),
            (
                "its container is about to be started again",
                json!({"spec": {"containers": [], "nodeName": "n"},
                    "status": {"phase": "Running", "containerStatuses": terminated()}}),
                PodState::Unknown,
            ),
            (
                "its node is away",
                json!({"status": {"phase": "Running", "conditions": away, "containerStatuses": running()}}),
                PodState::Unknown,
            ),
            (
                "its node is away and it was evicted",
                json!({"metadata": {"deletionTimestamp": AT}, "spec": {"containers": [], "nodeName": "n"},
                    "status": {"phase": "Running", "conditions": away, "containerStatuses": running()}}),
                PodState::Unknown,
            ),
            (
                "it was deleted and its container has ended",
                json!({"metadata": {"deletionTimestamp": AT},
                    "status": {"phase": "Running", "containerStatuses": terminated()}}),
                ended,
            ),
            (
                "it failed",
                json!({"status": {"phase": "Failed", "containerStatuses": terminated()}}),
                ended,
            ),
            (
                "it is said to have failed, by one that does not see its containers",
                json!({"spec": {"containers": [], "nodeName": "n"},
                    "status": {"phase": "Failed", "conditions": away, "containerStatuses": running()}}),
                PodState::Unknown,
            ),
            (
                "the same, and nothing is reported of its containers",
                json!({"metadata": {"deletionTimestamp": AT}, "spec": {"containers": [], "nodeName": "n"},
                    "status": {"phase": "Failed"}}),
                PodState::Unknown,
            ),
            (
                "it was deleted before it had a node",
                json!({"metadata": {"deletionTimestamp": AT}, "status": {"phase": "Pending"}}),
                PodState::Ended(None),
            ),
            ("nothing is known", json!({}), PodState::Unknown),
        ] {
            assert_eq!(pod(value), expected, "{what}");
        }
    }
}
