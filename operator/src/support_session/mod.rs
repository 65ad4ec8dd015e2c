//! The SupportSession controller: ends the records of relays that can end them no more, and deletes
//! records once they have been kept for long enough.
//!
//! The relay that carries a session writes its record, ends it and takes the finalizer off. This does
//! so only where the relay surely cannot, or its session surely is over: its containers are reported
//! terminated, or the deadline has passed and it is silent. `step` is the rule and pure; `act` reads
//! and writes.

use jiff::{SignedDuration, Timestamp};
use kube::api::ObjectMeta;
use kube::core::PartialObjectMetaExt as _;
use serde_json::json;
use tidegate_crds::SupportSession;
use tidegate_crds::support_session::EndedBy;

use crate::Context;
use crate::names::manager;
use crate::records::{PodState, RecordError, Records, Session, Step, Whereabouts};
use crate::watching::Key;

/// What holds a record until its relay has closed the sockets.
pub const FINALIZER: &str = "tidegate.dev/relay";

/// How long after its deadline a session of a relay that nobody hears of is ended here.
const SILENT: SignedDuration = SignedDuration::from_mins(1);
/// The same where the relay serves: it will come to it, unless it has lost its disk.
const SERVING: SignedDuration = SignedDuration::from_hours(1);
/// How long a relay that serves has to take the finalizer off a session that it has ended.
const FINALIZED: SignedDuration = SignedDuration::from_mins(5);

/// What is to be done about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub key: Key,
    pub session: Session,
    pub what: What,
    /// The pod that is to be asked for first: nothing is done if it is there.
    pub unless_pod: Option<Whereabouts>,
}

/// What is to be done about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Write that it ended.
    End { at: Timestamp, by: EndedBy },
    /// Take the finalizer off.
    Release,
    /// Delete it, since it was kept for long enough.
    Delete,
}

/// What is to be done about the session, and when.
pub fn step(records: &Records, key: &Key, now: Timestamp) -> Step<Act> {
    let Some(session) = records.sessions.objects().get(key) else { return Step::Nothing };
    let pod = records.whereabouts(&key.namespace, &session.pod);
    let state = records.pod(&pod);
    let retention = records.tenancy.last(&key.namespace).map(|service| service.retention);
    rule(session, state, retention, now).map_act(|what| Act {
        key: key.clone(),
        session: session.clone(),
        unless_pod: (state == PodState::Gone && what != What::Delete).then_some(pod),
        what,
    })
}

impl Step<What> {
    fn map_act(self, into: impl FnOnce(What) -> Act) -> Step<Act> {
        match self {
            Self::Nothing => Step::Nothing,
            Self::At(at) => Step::At(at),
            Self::Act(what) => Step::Act(into(what)),
        }
    }
}

/// The rule. `retention`: how long records are kept; `None`: no Mesh serves the namespace.
fn rule(
    session: &Session,
    pod: PodState,
    retention: Option<SignedDuration>,
    now: Timestamp,
) -> Step<What> {
    let after = |at: Timestamp, wait| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let when = |at, what| if now >= at { Step::Act(what) } else { Step::At(at) };
    let held = is_held(session);
    let Some(ended_at) = session.ended_at else {
        let Some(deadline) = session.deadline else { return Step::Nothing };
        let finished = match pod {
            PodState::Ended(finished) => Some(finished.unwrap_or(now)),
            PodState::Gone => Some(now),
            PodState::Ready | PodState::Unknown => None,
        };
        if let Some(finished) = finished {
            // It ended with its relay, or before, and at its deadline at the latest.
            let at = seconds(finished.min(deadline).min(now));
            let end = What::End { at, by: EndedBy::Fault };
            return Step::Act(end);
        }
        let wait = if pod == PodState::Ready { SERVING } else { SILENT };
        return when(after(deadline, wait), What::End { at: deadline, by: EndedBy::Deadline });
    };
    if held {
        if pod.is_over() {
            return Step::Act(What::Release);
        }
        return when(after(ended_at, FINALIZED), What::Release);
    }
    match retention {
        Some(retention) if !session.deleting => when(after(ended_at, retention), What::Delete),
        _ => Step::Nothing,
    }
}

/// Whether its relay, or this operator in its place, has something to write of it yet.
pub fn is_held(session: &Session) -> bool {
    session.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// Does it, on the object as it was seen: where it is another by now, the write fails.
pub async fn act(ctx: &Context, act: Act) -> Result<(), RecordError> {
    let Act { key, session, what, unless_pod: _ } = act;
    let object = ObjectMeta {
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: session.uid.clone(),
        ..ObjectMeta::default()
    }
    .into_request_partial::<SupportSession>();
    let seen = json!({"uid": session.uid, "resourceVersion": session.version});
    match what {
        What::End { at, by } => {
            let status = ended(&session, at, by, tidegate_process::clock::now().wall);
            let change = json!({"metadata": seen, "status": status});
            ctx.writer.merge(manager::SUPPORT_SESSION, &object, Some("status"), change).await?;
            tracing::info!(session = %key, by = by.as_str(), "ended a record for its relay");
        }
        What::Release => {
            let left: Vec<_> =
                session.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            let mut metadata = seen;
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("finalizers".to_owned(), json!(left));
            }
            let change = json!({"metadata": metadata});
            ctx.writer.merge(manager::SUPPORT_SESSION, &object, None, change).await?;
        }
        What::Delete => {
            ctx.writer.delete(&object).await?;
        }
    }
    Ok(())
}

/// The status of a session that its relay could not end. By how much it overran nobody knows.
fn ended(session: &Session, at: Timestamp, by: EndedBy, now: Timestamp) -> serde_json::Value {
    let message = match by {
        EndedBy::Deadline => {
            "the relay did not say how the session ended; it cuts it at the deadline at the latest"
        }
        _ => "the relay's containers were terminated before it said how the session ended",
    };
    json!({
        "endedAt": at.to_string(),
        "endedBy": by.as_str(),
        "observedGeneration": session.generation,
        "conditions": [{
            "type": "Ended",
            "status": "True",
            "reason": by.as_str(),
            "message": message,
            "observedGeneration": session.generation,
            "lastTransitionTime": seconds(now).to_string(),
        }],
    })
}

/// As conditions, and a kubelet's reports, carry times: whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_draw::cases;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn session(ended: Option<i64>, held: bool) -> Session {
        Session {
            uid: Some("u".to_owned()),
            version: Some("7".to_owned()),
            generation: Some(1),
            pod: "relay-1".to_owned(),
            deadline: Some(at(10_000)),
            ended_at: ended.map(at),
            finalizers: if held { vec![FINALIZER.to_owned()] } else { Vec::new() },
            deleting: false,
        }
    }

    fn look(session: &Session, pod: PodState, now: i64) -> Step<What> {
        rule(session, pod, Some(HOUR), at(now))
    }

    fn end(second: i64, by: EndedBy) -> Step<What> {
        Step::Act(What::End { at: at(second), by })
    }

    #[test]
    fn a_live_relay_ends_its_sessions_itself() {
        let live = session(None, true);
        assert_eq!(look(&live, PodState::Ready, 5000), Step::At(at(13_600)));
        assert_eq!(look(&live, PodState::Unknown, 5000), Step::At(at(10_060)));
        assert_eq!(look(&live, PodState::Unknown, 10_060), end(10_000, EndedBy::Deadline));
        assert_eq!(look(&live, PodState::Ready, 13_600), end(10_000, EndedBy::Deadline));
    }

    #[test]
    fn a_relay_that_is_over_has_ended_them() {
        let live = session(None, true);
        assert_eq!(look(&live, PodState::Ended(Some(at(4000))), 5000), end(4000, EndedBy::Fault));
        assert_eq!(look(&live, PodState::Ended(None), 5000), end(5000, EndedBy::Fault));
        assert_eq!(look(&live, PodState::Gone, 5000), end(5000, EndedBy::Fault));
        assert_eq!(look(&live, PodState::Gone, 20_000), end(10_000, EndedBy::Fault));
        let ended = session(Some(4000), true);
        assert_eq!(look(&ended, PodState::Gone, 4001), Step::Act(What::Release));
        assert_eq!(look(&ended, PodState::Ready, 4001), Step::At(at(4300)));
        assert_eq!(look(&ended, PodState::Ready, 4300), Step::Act(What::Release));
    }

    #[test]
    fn records_are_kept_for_the_meshs_retention_and_without_a_mesh_for_ever() {
        let mut ended = session(Some(4000), false);
        assert_eq!(look(&ended, PodState::Ready, 4000), Step::At(at(7600)));
        assert_eq!(look(&ended, PodState::Gone, 7600), Step::Act(What::Delete));
        assert_eq!(rule(&ended, PodState::Unknown, None, at(1 << 30)), Step::Nothing);
        ended.deleting = true;
        assert_eq!(look(&ended, PodState::Gone, 7600), Step::Nothing);
    }

    #[test]
    fn the_status_says_what_is_known_and_no_more() {
        let status = ended(&session(None, true), at(4000), EndedBy::Fault, at(4001));
        insta::assert_json_snapshot!(status, @r#"
        {
          "endedAt": "1970-01-01T01:06:40Z",
          "endedBy": "Fault",
          "observedGeneration": 1,
          "conditions": [
            {
              "type": "Ended",
              "status": "True",
              "reason": "Fault",
              "message": "the relay's containers were terminated before it said how the session ended",
              "observedGeneration": 1,
              "lastTransitionTime": "1970-01-01T01:06:41Z"
            }
          ]
        }
        "#);
    }

    proptest! {
        #![proptest_config(cases(256))]

        /// Whatever is known: nothing is deleted that is not ended and kept for long enough, nothing is
        /// released that is not ended, nothing ends after its deadline, and nobody is asked twice at once.
        #[test]
        fn nothing_happens_too_early(
            ended in prop::option::of(0i64..20_000),
            held: bool,
            deleting: bool,
            pod in prop_oneof![
                Just(PodState::Ready), Just(PodState::Unknown), Just(PodState::Gone),
                (0i64..20_000).prop_map(|s| PodState::Ended(Some(at(s)))),
            ],
            now in 0i64..40_000,
        ) {
            let session = Session { deleting, ..session(ended, held) };
            match look(&session, pod, now) {
                Step::Act(What::Delete) => {
                    prop_assert!(!held && !deleting && ended.is_some_and(|e| now >= e + 3600));
                }
                Step::Act(What::Release) => prop_assert!(held && ended.is_some()),
                Step::Act(What::End { at: end, by }) => {
                    prop_assert!(ended.is_none() && end <= at(10_000) && end <= at(now));
                    prop_assert_eq!(by == EndedBy::Fault, pod.is_over());
                    prop_assert!(pod.is_over() || now >= 10_060);
                }
                Step::At(when) => prop_assert!(when > at(now)),
                Step::Nothing => {}
            }
        }
    }
}
