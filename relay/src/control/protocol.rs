//! The requests and answers of the control socket.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_crds::manifest::{Finding, Severity};

use crate::view::SessionView;

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";

/// `{"request":"cut","session":"ss-…"}`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    Status,
    Sessions,
    Cut { session: String },
}

/// `{"status":{…}}`, `{"sessions":[…]}`, `{"cut":{…}}` or `{"refused":"sentence"}`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    Status(Box<Status>),
    Sessions(Vec<SessionView>),
    Cut(Cut),
    Refused(String),
}

/// A session that was cut by this request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    pub session: String,
    pub ended_at: Timestamp,
    pub user: String,
    pub terminal: String,
    pub service: String,
}

/// One relay replica at one instant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    /// The Mesh's domain; `None` while there is no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The Relay's name.
    pub relay: String,
    pub relay_pod: String,
    pub since: Timestamp,
    /// `0.0.0.0:5938`
    pub listeners: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Those that new connections are offered, the one that serves first.
    pub host_keys: Vec<HostKeyStatus>,
    pub policy: PolicyStatus,
    pub findings: Vec<FindingView>,
    /// Every terminal that the policy declares.
    pub terminals: Vec<TerminalStatus>,
    pub sessions: Vec<SessionView>,
    pub audit: AuditStatus,
    pub draining: bool,
    /// What `/readyz` says; empty: ready.
    pub not_ready: Vec<String>,
}

/// A host key, and the clients of the policy that have ever logged in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostKeyStatus {
    /// `SHA256:…`
    pub fingerprint: String,
    /// It signs; else it is announced.
    pub serves: bool,
    /// Clients that have accepted it.
    pub accepted: usize,
    /// Clients that have not, or are not known to.
    pub not_accepted: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The last complete look at the source.
    pub as_of: Timestamp,
    pub age_seconds: i64,
    /// Why it admits nobody new; `None`: it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    pub login_users: usize,
    pub terminals: usize,
    pub support_windows: usize,
    /// Of those, open now.
    pub open_windows: usize,
}

/// What is wrong with the policy's source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingView {
    /// `error`: something is not in force; `note`: something is worth knowing.
    pub severity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// `SupportWindow acme/berlin`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub rule: String,
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminalStatus {
    pub namespace: String,
    pub name: String,
    pub connected: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub contended: bool,
    /// Services that its connection holds now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// When it was last seen; `None`: never, or it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Where it is connected from, or was when last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Its client's version line, cleaned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// Why no line can be written; `None`: healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The number of the last durable line.
    pub seq: u64,
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        let position = finding.position.as_ref();
        Self {
            severity: match finding.severity {
                Severity::Error => "error",
                Severity::Note => "note",
            }
            .to_owned(),
            file: position.map(|position| position.file.to_string()),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            object: finding.object.as_ref().map(ToString::to_string),
            field: finding.field.clone(),
            rule: finding.rule.to_string(),
            message: finding.message.clone(),
        }
    }
}
