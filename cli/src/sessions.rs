//! `sessions`: who is on which terminal, by the SupportSessions of a cluster.

use std::collections::BTreeMap;

use clap::Args;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::Api;
use serde::Serialize;
use serde_json::Value;
use tidegate_commands::Answer;
use tidegate_crds::compile::{self, Identity};
use tidegate_crds::{SupportSession, SupportWindow};
use tidegate_policy::schedule::{Schedule, human_utc};

use crate::cluster::{Cluster, Kindred, Trouble, VIEWER};
use crate::output::{Output, bytes, structured, table};

/// Windows that are read so that deadlines are told in their zones; with more, UTC will do.
const ZONES: usize = 50;
/// Of those, at once.
const AT_ONCE: usize = 8;

/// List the sessions of a cluster's relays.
///
/// Live ones, oldest first. Exit code: 0, also when there is none; 2 when the question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct SessionsArgs {
    /// Also sessions that have ended, as long as their records are kept
    #[arg(long)]
    pub ended: bool,
    /// Only sessions of this login user
    #[arg(long, value_name = "LOGIN")]
    pub user: Option<String>,
    /// Only sessions on this terminal
    #[arg(long, value_name = "TERMINAL")]
    pub terminal: Option<String>,
    /// Only sessions of this support window
    #[arg(long, value_name = "WINDOW")]
    pub window: Option<String>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A SupportSession, as far as it can be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub namespace: String,
    pub name: String,
    pub window: String,
    pub window_uid: String,
    pub opens_at: Option<Timestamp>,
    pub user: String,
    pub terminal: String,
    pub service: String,
    pub case: Option<String>,
    pub relay_pod: String,
    pub opened_at: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    pub cut: bool,
    /// It was deleted, which cuts too; its record stays until the relay has closed the sockets.
    pub deleted: bool,
    pub ended_at: Option<Timestamp>,
    pub ended_by: Option<&'static str>,
    /// By how much the end overran what was due: `120ms`.
    pub overrun: Option<String>,
    pub bytes_in: Option<u64>,
    pub bytes_out: Option<u64>,
    /// The relay has said that its sockets are closed.
    pub closed: bool,
}

impl Session {
    /// It has not ended yet.
    pub fn is_live(&self) -> bool {
        self.ended_at.is_none() && !self.closed
    }

    /// `alice on kiosk-17/ssh`
    pub fn who(&self) -> String {
        format!("{} on {}/{}", self.user, self.terminal, self.service)
    }

    /// Live by its record and past its deadline: a relay has not said its end.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.is_live() && self.deadline.is_some_and(|deadline| deadline < now)
    }

    fn state(&self, now: Timestamp) -> String {
        if !self.is_live() {
            return self.ended_by.map_or_else(|| "Ended".to_owned(), |by| format!("Ended ({by})"));
        }
        let word = if self.is_overdue(now) {
            "Overdue"
        } else if self.cut || self.deleted {
            "Cutting"
        } else {
            "Live"
        };
        word.to_owned()
    }
}

impl From<SupportSession> for Session {
    fn from(object: SupportSession) -> Self {
        let SupportSession { metadata, spec, status } = object;
        let status = status.unwrap_or_default();
        let at = |text: &str| text.parse::<Timestamp>().ok();
        let count = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
        let closed = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ended" && condition.status == "True");
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            window: spec.window.name,
            window_uid: spec.window.uid,
            opens_at: at(&spec.opens_at),
            user: spec.user,
            terminal: spec.terminal,
            service: spec.service,
            case: spec.case,
            relay_pod: spec.relay_pod,
            opened_at: at(&spec.opened_at),
            deadline: at(&spec.deadline),
            cut: spec.cut,
            deleted: metadata.deletion_timestamp.is_some(),
            ended_at: status.ended_at.as_deref().and_then(at),
            ended_by: status.ended_by.map(tidegate_crds::support_session::EndedBy::as_str),
            overrun: status.overrun,
            bytes_in: count(status.bytes_in),
            bytes_out: count(status.bytes_out),
            closed,
        }
    }
}

/// The sessions of a namespace or of all, oldest first. `fields` is a field selector.
pub async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
    fields: Option<&str>,
) -> Result<Vec<Session>, Trouble> {
    let mut found = BTreeMap::new();
    let take = |value: Value| {
        if let Ok(object) = serde_json::from_value::<SupportSession>(value) {
            let session = Session::from(object);
            // The names are uuids of version 7, which sort by time.
            found.insert((session.name.clone(), session.namespace.clone()), session);
        }
    };
    cluster.each(Kindred::Sessions, namespace, fields, take).await?;
    Ok(found.into_values().collect())
}

/// The sessions that are asked for.
pub async fn select(
    cluster: &Cluster,
    args: &SessionsArgs,
    namespace: Option<&str>,
) -> Result<Vec<Session>, Trouble> {
    let fields = [("spec.user", &args.user), ("spec.terminal", &args.terminal)];
    let fields: Vec<String> = fields
        .iter()
        .filter_map(|(field, value)| Some(format!("{field}={}", value.as_ref()?)))
        .collect();
    let fields = (!fields.is_empty()).then(|| fields.join(","));
    let mut sessions = list(cluster, namespace, fields.as_deref()).await?;
    sessions.retain(|session| args.ended || session.is_live());
    sessions.retain(|s| args.window.as_ref().is_none_or(|window| *window == s.window));
    Ok(sessions)
}

/// The schedules of the windows of live sessions, in whose zones people read their deadlines.
pub async fn schedules(cluster: &Cluster, sessions: &[Session]) -> Schedules {
    let mut wanted: Vec<_> = sessions
        .iter()
        .filter(|session| session.is_live())
        .map(|session| (session.namespace.clone(), session.window.clone()))
        .collect();
    wanted.sort();
    wanted.dedup();
    if wanted.len() > ZONES {
        return Schedules::new();
    }
    let read = |(namespace, name): (String, String)| async move {
        let api: Api<SupportWindow> = Api::namespaced(cluster.client.clone(), &namespace);
        let window = cluster.ask("read a support window", VIEWER, api.get(&name)).await.ok()?;
        let nobody = Identity { uid: "".into(), generation: 0, created: Timestamp::UNIX_EPOCH };
        let window = compile::window(&window, &nobody).ok()?;
        Some(((namespace, name), window.schedule))
    };
    let read = futures_util::stream::iter(wanted.into_iter().map(read)).buffer_unordered(AT_ONCE);
    read.filter_map(std::future::ready).collect().await
}

/// By namespace and name of the window.
pub type Schedules = BTreeMap<(String, String), Schedule>;

/// The answer; `namespace`: the one that is listed, or all.
pub fn tell(
    sessions: &[Session],
    schedules: &Schedules,
    args: &SessionsArgs,
    namespace: Option<&str>,
    now: Timestamp,
) -> Answer {
    match args.output {
        Output::Json | Output::Yaml => {
            let sessions = sessions.iter().map(Shown::of).collect();
            Answer::good(structured(&List { sessions }, args.output))
        }
        Output::Table | Output::Wide if sessions.is_empty() => {
            let what = if args.ended { "sessions" } else { "live sessions" };
            let stderr = match namespace {
                None => format!("there are no {what}\n"),
                Some(namespace) => format!(
                    "there are no {what} in namespace {namespace}; -A lists those of all namespaces\n"
                ),
            };
            Answer { stderr, ..Answer::default() }
        }
        Output::Table | Output::Wide => {
            Answer::good(people(sessions, schedules, namespace, args.output, now))
        }
    }
}

fn people(
    sessions: &[Session],
    schedules: &Schedules,
    namespace: Option<&str>,
    output: Output,
    now: Timestamp,
) -> String {
    let mut heads = vec!["NAME", "USER", "TARGET", "WINDOW", "CASE", "SINCE", "UNTIL", "STATE"];
    if namespace.is_none() {
        heads.insert(0, "NAMESPACE");
    }
    if output == Output::Wide {
        heads.extend(["RELAY-POD", "IN", "OUT", "ENDED", "OVERRUN"]);
    }
    let row = |session: &Session| {
        let schedule = schedules.get(&(session.namespace.clone(), session.window.clone()));
        let at = |at: Option<Timestamp>| match (at, schedule) {
            (None, _) => String::new(),
            (Some(at), Some(schedule)) => schedule.human_from(at, now),
            (Some(at), None) => human_utc(at),
        };
        let mut cells = vec![
            session.name.clone(),
            session.user.clone(),
            format!("{}/{}", session.terminal, session.service),
            session.window.clone(),
            session.case.clone().unwrap_or_default(),
            at(session.opened_at),
            at(session.deadline),
            session.state(now),
        ];
        if namespace.is_none() {
            cells.insert(0, session.namespace.clone());
        }
        if output == Output::Wide {
            let amount = |count: Option<u64>| count.map_or(String::new(), bytes);
            cells.extend([
                session.relay_pod.clone(),
                amount(session.bytes_in),
                amount(session.bytes_out),
                at(session.ended_at),
                session.overrun.clone().unwrap_or_default(),
            ]);
        }
        cells
    };
    table(&heads, &sessions.iter().map(row).collect::<Vec<_>>())
}

#[derive(Serialize)]
struct List {
    sessions: Vec<Shown>,
}

/// In the resource's own field names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    name: String,
    window: WindowRef,
    opens_at: Option<Timestamp>,
    user: String,
    terminal: String,
    service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    case: Option<String>,
    relay_pod: String,
    opened_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
    cut: bool,
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overrun: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_out: Option<u64>,
}

#[derive(Serialize)]
struct WindowRef {
    namespace: String,
    name: String,
    uid: String,
}

impl Shown {
    /// A session as programs read it.
    pub fn of(session: &Session) -> Self {
        let Session { namespace, window, window_uid, .. } = session;
        Self {
            name: session.name.clone(),
            window: WindowRef {
                namespace: namespace.clone(),
                name: window.clone(),
                uid: window_uid.clone(),
            },
            opens_at: session.opens_at,
            user: session.user.clone(),
            terminal: session.terminal.clone(),
            service: session.service.clone(),
            case: session.case.clone(),
            relay_pod: session.relay_pod.clone(),
            opened_at: session.opened_at,
            deadline: session.deadline,
            cut: session.cut,
            live: session.is_live(),
            ended_at: session.ended_at,
            ended_by: session.ended_by,
            overrun: session.overrun.clone(),
            bytes_in: session.bytes_in,
            bytes_out: session.bytes_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(name: &str, more: &Value, status: &Value) -> Session {
        let mut spec = json!({
            "window": {"name": "berlin", "uid": "u"}, "opensAt": "2026-11-23T08:00:00Z", "user": "alice",
            "terminal": "kiosk-17", "service": "ssh", "case": "48213", "relayPod": "eu-0",
            "openedAt": "2026-11-23T08:30:00Z", "deadline": "2026-11-23T10:00:00Z",
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "SupportSession",
            "metadata": {"name": name, "namespace": "support"}, "spec": spec, "status": status,
        });
        serde_json::from_value::<SupportSession>(object).unwrap().into()
    }

    #[test]
    fn each_state_has_its_word() {
        let none = json!({});
        let ended = json!({
            "endedAt": "2026-11-23T10:00:00.012Z", "endedBy": "Deadline", "overrun": "12ms",
            "bytesIn": 812, "bytesOut": 1_572_864,
        });
        let sessions = [
            session("ss-1", &none, &none),
            session("ss-2", &json!({"cut": true}), &none),
            session("ss-3", &json!({"deadline": "2026-11-23T08:59:00Z"}), &none),
            session("ss-4", &none, &ended),
        ];
        let args = SessionsArgs {
            ended: true,
            user: None,
            terminal: None,
            window: None,
            output: Output::Wide,
        };
        let now = "2026-11-23T09:00:00Z".parse().unwrap();
        let answer = tell(&sessions, &Schedules::new(), &args, Some("support"), now);
        insta::assert_snapshot!("sessions_wide", answer.stdout);
        let structured = tell(
            &sessions[3..],
            &Schedules::new(),
            &SessionsArgs { output: Output::Yaml, ..args },
            None,
            now,
        );
        insta::assert_snapshot!("sessions_yaml", structured.stdout);
    }
}
