//! A record as a file, in the shape of the SupportSession resource.

use std::io;

use jiff::{SignedDuration, Timestamp};
use tidegate_crds::SupportSessionSpec;
use tidegate_crds::support_session::{SupportSessionStatus, WindowReference};
use tidegate_policy::model::{Label, Login, ObjectKey};

use super::{Begun, Ended, Published, Record, SessionId};
use crate::object::{Metadata, Object};

/// Annotation of a file: what the API server is known to have, `ended` or `begun` and the uid.
const PUBLISHED: &str = "tidegate.dev/published";

/// The most bytes that a record's file has.
pub const MOST: u64 = 64 << 10;

type SessionObject = Object<SupportSessionSpec, SupportSessionStatus>;

pub fn name(id: SessionId) -> String {
    format!("{id}.json")
}

/// The session whose record a file of this name is.
pub fn session(name: &str) -> Option<SessionId> {
    name.strip_suffix(".json")?.parse().ok()
}

pub fn text(record: &Record) -> io::Result<Vec<u8>> {
    let begun = &record.begun;
    let published = match &record.published {
        Published::Nothing => None,
        Published::Begun(uid) => Some(format!("begun {uid}")),
        Published::Ended => Some("ended".to_owned()),
    };
    let metadata = Metadata {
        name: begun.id.to_string(),
        namespace: begun.window.namespace.to_string(),
        uid: begun.id.uuid().to_string(),
        creation_timestamp: Some(begun.opened_at.to_string()),
        annotations: published.map(|text| (PUBLISHED.to_owned(), text)).into_iter().collect(),
    };
    let mut object = SessionObject::new("SupportSession", metadata, spec(record));
    object.status = record.ended.as_ref().map(status).transpose()?;
    object.text()
}

pub fn spec(record: &Record) -> SupportSessionSpec {
    let begun = &record.begun;
    SupportSessionSpec {
        window: WindowReference {
            name: begun.window.name.to_string(),
            uid: begun.window_uid.clone(),
        },
        opens_at: begun.opens_at.to_string(),
        user: begun.user.to_string(),
        terminal: begun.terminal.to_string(),
        service: begun.service.to_string(),
        case: begun.case.clone(),
        relay_pod: record.relay.clone(),
        opened_at: begun.opened_at.to_string(),
        deadline: begun.deadline.to_string(),
        cut: record.ended.as_ref().is_some_and(|ended| ended.by == super::EndedBy::Cut),
    }
}

pub fn status(ended: &Ended) -> io::Result<SupportSessionStatus> {
    let condition = serde_json::json!([{
        "type": "Ended",
        "status": "True",
        "reason": ended.by.as_str(),
        "message": ended.reason,
        "lastTransitionTime": seconds(ended.at),
    }]);
    let count = |bytes| Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok(SupportSessionStatus {
        ended_at: Some(ended.at.to_string()),
        ended_by: Some(ended.by),
        overrun: Some(format!("{}ms", ended.overrun_ms)),
        bytes_in: count(ended.bytes_in),
        bytes_out: count(ended.bytes_out),
        conditions: serde_json::from_value(condition).map_err(io::Error::other)?,
        ..SupportSessionStatus::default()
    })
}

/// As the API server has the times of conditions.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `None`: this is no record, or not of this session.
pub fn parse(id: SessionId, text: &[u8]) -> Option<Record> {
    let object: SessionObject = serde_json::from_slice(text).ok()?;
    if object.metadata.name != id.to_string() {
        return None;
    }
    let published = match object.metadata.annotations.get(PUBLISHED).map(String::as_str) {
        Some("ended") => Published::Ended,
        Some(text) => text
            .strip_prefix("begun ")
            .map_or(Published::Nothing, |uid| Published::Begun(uid.to_owned())),
        None => Published::Nothing,
    };
    let spec = object.spec;
    let begun = Begun {
        id,
        window: ObjectKey {
            namespace: Label::parse(&object.metadata.namespace).ok()?,
            name: Label::parse(&spec.window.name).ok()?,
        },
        window_uid: spec.window.uid,
        opens_at: spec.opens_at.parse().ok()?,
        user: Login::parse(&spec.user).ok()?,
        terminal: Label::parse(&spec.terminal).ok()?,
        service: Label::parse(&spec.service).ok()?,
        case: spec.case,
        opened_at: spec.opened_at.parse().ok()?,
        deadline: spec.deadline.parse().ok()?,
    };
    let ended = match object.status {
        Some(status) if status.ended_at.is_some() => Some(ended(&status)?),
        _ => None,
    };
    Some(Record { begun, relay: spec.relay_pod, ended, published })
}

fn ended(status: &SupportSessionStatus) -> Option<Ended> {
    let count = |bytes: Option<i64>| u64::try_from(bytes.unwrap_or(0)).unwrap_or(0);
    let overrun = status.overrun.as_deref().and_then(|o| o.strip_suffix("ms")).unwrap_or("0");
    Some(Ended {
        at: status.ended_at.as_ref()?.parse().ok()?,
        by: status.ended_by?,
        reason: status.conditions.first().map(|c| c.message.clone()).unwrap_or_default(),
        overrun_ms: overrun.parse().ok()?,
        bytes_in: count(status.bytes_in),
        bytes_out: count(status.bytes_out),
    })
}

/// Whether a record that ended at `at` is past its retention.
pub fn is_old(at: Timestamp, retention: SignedDuration, now: Timestamp) -> bool {
    at.saturating_add(retention).is_ok_and(|until| until <= now)
}
