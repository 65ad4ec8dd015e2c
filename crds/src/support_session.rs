//! SupportSession: what one staff connection does on one service of one terminal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{CaseNumber, Line, LoginName, Name, Time};

/// The finalizer that holds the object until its relay has closed the session's sockets.
pub const FINALIZER: &str = "tidegate.dev/relay";
/// Label: the relay replica that carries the session, where its name fits a label.
pub const RELAY_POD: &str = "tidegate.dev/relay-pod";

/// What was admitted. Relays write it once; afterwards only `cut` may change, from false to true.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "SupportSession",
    namespaced,
    status = "SupportSessionStatus",
    derive = "PartialEq",
    shortname = "ss",
    category = "tidegate",
    selectable = ".spec.relayPod",
    selectable = ".spec.user",
    selectable = ".spec.terminal",
    doc = "A SupportSession is what one staff SSH connection does on one service of one terminal. Relays write it into the window's namespace. Setting spec.cut, or deleting it, cuts the session.",
    printcolumn(name = "User", type_ = "string", json_path = ".spec.user"),
    printcolumn(name = "Terminal", type_ = "string", json_path = ".spec.terminal"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Deadline", type_ = "string", json_path = ".spec.deadline"),
    printcolumn(name = "Ended", type_ = "string", json_path = ".status.endedAt"),
    printcolumn(name = "Ended-By", type_ = "string", json_path = ".status.endedBy"),
    printcolumn(
        name = "Window",
        type_ = "string",
        json_path = ".spec.window.name",
        priority = "1"
    ),
    printcolumn(name = "Case", type_ = "string", json_path = ".spec.case", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.case) == has(oldSelf.case) && (!has(self.case) || self.case == oldSelf.case)").message("is immutable").field_path(".case"))]
#[x_kube(validation = Rule::new("self.cut || !oldSelf.cut").message("may change from false to true only").field_path(".cut"))]
pub struct SupportSessionSpec {
    /// The window that admitted the session, and whose revocation cuts it.
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub window: WindowReference,
    /// When the window's occurrence opened.
    #[schemars(with = "Time")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub opens_at: String,
    /// The login user, as typed.
    #[schemars(with = "LoginName")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub user: String,
    /// The terminal.
    #[schemars(with = "Name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub terminal: String,
    /// The service of the terminal.
    #[schemars(with = "Name")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub service: String,
    /// The number of the support case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CaseNumber>")]
    pub case: Option<String>,
    /// The relay replica that carries the session.
    #[schemars(with = "Line")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub relay_pod: String,
    /// When the first channel was admitted.
    #[schemars(with = "Time")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub opened_at: String,
    /// When the session is cut at the latest, as fixed at admission.
    #[schemars(with = "Time")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable"))]
    pub deadline: String,
    /// Cuts the session; there is no way back.
    #[serde(default)]
    pub cut: bool,
}

/// A window of the session's own namespace.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WindowReference {
    /// The window's name.
    #[schemars(with = "Name")]
    pub name: String,
    /// The window's uid, since a name may come again.
    #[schemars(with = "Line")]
    pub uid: String,
}

/// How the session goes, or went.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SupportSessionStatus {
    /// When the session ended; unset while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub ended_at: Option<String>,
    /// Who or what ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
    /// By how much the end overran what was due, such as 120ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Line>")]
    pub overrun: Option<String>,
    /// Bytes from staff to terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_in: Option<i64>,
    /// Bytes from terminal to staff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_out: Option<i64>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ended: the relay has closed the session's sockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Who or what ended a session.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum EndedBy {
    Staff,
    Terminal,
    Customer,
    Deadline,
    Revoked,
    Cut,
    Idle,
    Drain,
    Fault,
}

impl EndedBy {
    /// The word as the resource, the audit log and the metrics carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staff => "Staff",
            Self::Terminal => "Terminal",
            Self::Customer => "Customer",
            Self::Deadline => "Deadline",
            Self::Revoked => "Revoked",
            Self::Cut => "Cut",
            Self::Idle => "Idle",
            Self::Drain => "Drain",
            Self::Fault => "Fault",
        }
    }
}
