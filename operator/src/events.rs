//! Events for people: why an object is not accepted, where `kubectl describe` shows it.
//!
//! Nobody waits for an event: it goes into a bounded queue, and is dropped (and counted) where the
//! queue is full. The same word on the same object is written once and then counted, so that a storm
//! of one refusal is one object in the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Resource;
use serde_json::json;
use tidegate_process::clock::{self, Boot};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::names;
use crate::write::{Creation, WriteError, Writer};

/// Events that wait to be written.
const QUEUE: usize = 1024;
/// For how long the same event is joined to the first one, and how many are remembered for it.
const JOINED: Duration = Duration::from_mins(10);
const REMEMBERED: usize = 4096;
/// An event's note is at most this long in the API, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Whether a person has to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Normal,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    uid: String,
    reason: String,
    note: String,
}

struct Said {
    key: Key,
    regarding: ObjectReference,
    action: &'static str,
}

/// Takes events. Clones share the queue.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Said>,
    metrics: Arc<Metrics>,
}

impl EventRecorder {
    /// The recorder, and what writes; the second is to be run by the supervisor.
    pub fn new(
        writer: Writer,
        identity: String,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, said) = mpsc::channel(QUEUE);
        let writing = write_all(said, writer, identity, Arc::clone(&metrics));
        (Self { queue, metrics }, writing)
    }

    /// A person has to do something about `object`. `reason` is a word such as `KeyInUse`, `note` one
    /// sentence, `action` what the controller was about, such as `Accept`.
    pub fn warn<K>(&self, object: &K, reason: &str, note: &str, action: &'static str)
    where
        K: Resource<DynamicType = ()>,
    {
        self.say(Kind::Warning, object.object_ref(&()), reason, note, action);
    }

    /// Something happened to `object` that a person may want to know.
    pub fn tell<K>(&self, object: &K, reason: &str, note: &str, action: &'static str)
    where
        K: Resource<DynamicType = ()>,
    {
        self.say(Kind::Normal, object.object_ref(&()), reason, note, action);
    }

    /// As [`EventRecorder::warn`], by reference.
    pub fn say(
        &self,
        kind: Kind,
        regarding: ObjectReference,
        reason: &str,
        note: &str,
        action: &'static str,
    ) {
        let key = Key {
            kind,
            uid: regarding.uid.clone().unwrap_or_default(),
            reason: reason.to_owned(),
            note: short(note),
        };
        if self.queue.try_send(Said { key, regarding, action }).is_err() {
            self.metrics.event("dropped");
        }
    }
}

/// An event that was written not long ago.
struct Written {
    event: Event,
    first: Boot,
    /// How often it has been said, and how often of these the API server knows.
    count: i32,
    told: i32,
}

async fn write_all(
    mut said: mpsc::Receiver<Said>,
    writer: Writer,
    identity: String,
    metrics: Arc<Metrics>,
) {
    let mut written: HashMap<Key, Written> = HashMap::new();
    while let Some(next) = said.recv().await {
        let now = clock::boot();
        written.retain(|_, event| now.since(event.first) < JOINED);
        let outcome = match written.get_mut(&next.key) {
            Some(earlier) => join(&writer, earlier).await,
            None => first(&writer, &identity, &next).await.map(|event| {
                if written.len() < REMEMBERED {
                    written.insert(next.key, Written { event, first: now, count: 1, told: 1 });
                }
                "written"
            }),
        };
        match outcome {
            Ok(word) => metrics.event(word),
            Err(error) => {
                metrics.event("dropped");
                tracing::info!(%error, "an event was not written");
            }
        }
    }
}

/// Counts one more of the same; the API server is told of the 2nd, 4th, 8th and so on.
async fn join(writer: &Writer, earlier: &mut Written) -> Result<&'static str, WriteError> {
    earlier.count = earlier.count.saturating_add(1);
    if earlier.count >= earlier.told.saturating_mul(2) {
        earlier.told = earlier.count;
        let last = MicroTime(clock::now().wall);
        let series = EventSeries { count: earlier.count, last_observed_time: last };
        writer.merge(names::OPERATOR, &earlier.event, None, json!({"series": series})).await?;
    }
    Ok("joined")
}

async fn first(writer: &Writer, identity: &str, said: &Said) -> Result<Event, WriteError> {
    let event = event(identity, said);
    match writer.create_if_absent(names::OPERATOR, &event).await? {
        Creation::Created(created) => Ok(created),
        Creation::Exists => Ok(event),
    }
}

fn event(identity: &str, said: &Said) -> Event {
    let now = clock::now().wall;
    let object = said.regarding.name.as_deref().unwrap_or("tidegate");
    let name = format!("{object}.{:x}", now.as_nanosecond());
    let namespace = said.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        action: Some(said.action.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(said.key.note.clone()),
        reason: Some(said.key.reason.clone()),
        regarding: Some(said.regarding.clone()),
        reporting_controller: Some(format!("tidegate.dev/{}", names::OPERATOR)),
        reporting_instance: Some(identity.to_owned()),
        type_: Some(match said.key.kind {
            Kind::Normal => "Normal".to_owned(),
            Kind::Warning => "Warning".to_owned(),
        }),
        ..Event::default()
    }
}

/// As long as an event's note may be.
fn short(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let mut end = LONGEST_NOTE - 3;
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", note.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;

    use super::*;

    #[test]
    fn an_event_names_its_object_and_who_says_so() {
        let said = Said {
            key: Key {
                kind: Kind::Warning,
                uid: "u".to_owned(),
                reason: "KeyInUse".to_owned(),
                note: short(&"ü".repeat(1000)),
            },
            regarding: ObjectReference {
                name: Some("kiosk-17".to_owned()),
                namespace: Some("support".to_owned()),
                ..ObjectReference::default()
            },
            action: "Accept",
        };
        let event = event("pod-1", &said);
        assert_eq!(event.namespace().as_deref(), Some("support"));
        assert!(event.name_any().starts_with("kiosk-17."));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.reporting_instance.as_deref(), Some("pod-1"));
        let note = event.note.unwrap();
        assert!(note.len() <= LONGEST_NOTE && note.ends_with("..."));
    }
}
