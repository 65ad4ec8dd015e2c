//! The fleet's pods, as the API server and the machine see them.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{Fleet, ROLLOUT};
use crate::procfs;
use crate::wait::wait_for;

/// A process that is to be found.
const PROCESS: Duration = Duration::from_secs(10);

/// A relay pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    /// `node-1` and so on.
    pub node: String,
    pub ready: bool,
    pub image: String,
    /// How often its container was started again.
    pub restarts: u64,
}

impl Pod {
    fn of(pod: &Value) -> Option<Self> {
        let text = |at: &str| pod.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
        Some(Self {
            name: text("/metadata/name")?,
            uid: text("/metadata/uid")?,
            node: text("/spec/nodeName")?,
            ready,
            image: text("/spec/containers/0/image")?,
            restarts: restarts.and_then(Value::as_u64).unwrap_or(0),
        })
    }
}

impl Fleet {
    /// The relay's pods that are not going away.
    pub fn pods(&self) -> Vec<Pod> {
        let pods = self.get(&["pods", "-l", "tidegate.dev/relay=eu"]);
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        pods.iter()
            .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
            .filter_map(Pod::of)
            .collect()
    }

    /// Waits until the fleet has `count` ready pods.
    #[track_caller]
    pub fn await_pods(&self, count: usize) -> Vec<Pod> {
        wait_for("the fleet's size", ROLLOUT, || {
            let pods = self.pods();
            (pods.len() == count && pods.iter().all(|pod| pod.ready)).then_some(pods)
        })
    }

    /// The id of a pod's relay on this machine.
    #[track_caller]
    pub fn relay_process(&self, pod: &str) -> i32 {
        wait_for("the pod's relay", PROCESS, || {
            let of_pod = procfs::marked(&format!("POD_NAME={pod}"));
            of_pod.into_iter().find(|(_, line)| line.contains("tidegate-relay")).map(|(pid, _)| pid)
        })
    }

    /// Ends a pod's relay as a crash does; its kubelet starts it again.
    #[track_caller]
    pub fn crash_relay(&self, pod: &str) {
        let pid = Pid::from_raw(self.relay_process(pod)).expect("an id");
        rustix::process::kill_process(pid, Signal::KILL).expect("a relay that runs");
    }
}
