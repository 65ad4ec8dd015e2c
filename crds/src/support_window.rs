//! SupportWindow: who may reach which terminals, when, on which services, under which conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    Blob, CaseNumber, CivilDate, CronText, LoginName, Name, Need, OccurrenceSpan, Selector,
    SessionSpan, Time, WebAddress, ZoneName, not_required, required,
};

/// What a SupportWindow wants.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "SupportWindow",
    namespaced,
    status = "SupportWindowStatus",
    derive = "PartialEq",
    shortname = "sw",
    category = "tidegate",
    doc = "A SupportWindow says who may reach which terminals, when, on which services, under which conditions. Nothing reaches a terminal without one.",
    printcolumn(name = "Opens", type_ = "string", json_path = ".status.nextOccurrences[0].opensAt"),
    printcolumn(name = "Closes", type_ = "string", json_path = ".status.nextOccurrences[0].closesAt"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Case", type_ = "string", json_path = ".spec.case.number", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name of a SupportWindow must be at most 63 characters, without dots")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.oneTime || has(self.schedule.once)").message("must be false unless the schedule is once").field_path(".oneTime"))]
#[x_kube(validation = Rule::new("!oldSelf.oneTime || self.oneTime").message("is immutable once it is true; make a new window instead").field_path(".oneTime"))]
#[x_kube(validation = Rule::new("!oldSelf.oneTime || self.schedule == oldSelf.schedule").message("is immutable in a one-time window; make a new window instead").field_path(".schedule"))]
pub struct SupportWindowSpec {
    /// The support case, which staff and customer see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<Case>,
    /// Who may come in.
    pub users: Users,
    /// Where to: Terminals of the window's own namespace.
    pub terminals: Terminals,
    /// Names of the services that may be reached.
    #[schemars(with = "Vec<Name>", length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub services: Vec<String>,
    /// When.
    pub schedule: Schedule,
    /// Whether the customer must agree to each session. NotRequired holds only where the terminal's own setting agrees; a stock terminal, which has no agent to ask, admits nobody while it is Required.
    #[serde(default = "required")]
    pub consent: Need,
    /// Whether staff must enter the one-time code that the customer reads out; needs an agent.
    #[serde(default = "not_required")]
    pub code: Need,
    /// Admits one session in all, whatever happens; only with a once schedule. Then oneTime and schedule are immutable.
    #[serde(default)]
    pub one_time: bool,
    /// Bounds on sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<SessionLimits>,
    /// Who records sessions. Endpoint: the agent; a stock terminal then admits nobody.
    #[serde(default = "default_recording")]
    pub recording: Recording,
    /// Closes the window, and cuts the running sessions.
    #[serde(default)]
    pub suspend: bool,
}

fn default_recording() -> Recording {
    Recording::None
}

/// A support case.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// The number of the case.
    #[schemars(with = "CaseNumber")]
    pub number: String,
    /// Where to read about the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<WebAddress>")]
    pub url: Option<String>,
}

/// The union of names and of members of groups.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.names) && size(self.names) > 0) || (has(self.groups) && size(self.groups) > 0)").message("must name at least one user or group"))]
pub struct Users {
    /// Logins as typed: alice is a LoginUser of the Mesh's namespace, bob.acme one of the tenant's namespace acme.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<LoginName>", length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
    /// Groups of LoginUsers, in the Mesh's namespace and in the window's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,
}

/// The union of names and of what the selector matches.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.names) && size(self.names) > 0) || has(self.selector) || (has(self.guests) && self.guests)").message("must name at least one terminal, or select some"))]
pub struct Terminals {
    /// Names of Terminals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
    /// Selects Terminals by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Whether guests, terminals that nobody registered, are reached too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<bool>,
}

/// When a window is open: exactly one of the two.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.once) != has(self.recurring)").message("must have exactly one of once and recurring"))]
pub struct Schedule {
    /// One agreed interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
    /// Intervals that recur on a zone's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurring: Option<Recurring>,
}

/// One agreed interval: [start, end).
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.start < self.end").message("must be after start").field_path(".end"))]
#[x_kube(validation = Rule::new("self.start >= self.end || (self.end - self.start >= duration('1m') && self.end - self.start <= duration('168h'))").message("must be 1m to 168h after start").field_path(".end"))]
pub struct Once {
    /// When the window opens, such as 2026-11-23T09:00:00+01:00.
    #[schemars(with = "Time")]
    pub start: String,
    /// When it closes; sessions are cut then.
    #[schemars(with = "Time")]
    pub end: String,
}

/// Intervals that recur. An occurrence counts if it opens in [notBefore, notAfter), and closes at notAfter at the latest.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter").message("must be after notBefore").field_path(".notAfter"))]
pub struct Recurring {
    /// When occurrences open: the five fields of crontab(5), such as 0 22 * * TUE,THU.
    #[schemars(with = "CronText")]
    pub cron: String,
    /// The IANA time zone whose wall clock cron speaks of, such as Europe/Berlin.
    #[schemars(with = "ZoneName")]
    pub time_zone: String,
    /// How long each occurrence lasts, in real time: 1m to 168h.
    #[schemars(with = "OccurrenceSpan")]
    pub duration: String,
    /// No occurrence opens before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub not_before: Option<String>,
    /// No occurrence opens at or after, and all have closed by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub not_after: Option<String>,
    /// Local dates of opening on which the whole occurrence goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<CivilDate>", length(max = 366))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub except: Vec<String>,
}

/// Bounds on the sessions of a window.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionLimits {
    /// How many sessions may be live at once per occurrence; without it, no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_sessions: Option<i32>,
    /// How long a session may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SessionSpan>")]
    pub max_session_duration: Option<String>,
    /// How long a session may pass no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SessionSpan>")]
    pub idle_timeout: Option<String>,
}

/// Who records the sessions of a window.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    None,
    Endpoint,
}

/// What is known about a SupportWindow.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SupportWindowStatus {
    /// The running occurrence or the next first, each by itself; none while suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub next_occurrences: Vec<NextOccurrence>,
    /// The authority's signed word that this window admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: the spec is good. Approved: those who must have approved it. Expired: its last occurrence is over. Stalled: the spec is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One occurrence of a window: [opensAt, closesAt).
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NextOccurrence {
    /// When it opens, in UTC.
    #[schemars(with = "Time")]
    pub opens_at: String,
    /// When it closes, in UTC.
    #[schemars(with = "Time")]
    pub closes_at: String,
}

/// The authority's signed word that a window admits.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// What is signed.
    #[schemars(with = "Blob")]
    pub statement: String,
    /// Its SSHSIG.
    #[schemars(with = "Blob")]
    pub signature: String,
    /// Until when the grant holds.
    #[schemars(with = "Time")]
    pub not_after: String,
}
