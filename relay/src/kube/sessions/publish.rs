//! Tells the API server of sessions: each object is created, then says how its session ended, and is let
//! go once nothing of the session is open any more. Every step may be done twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tidegate_crds::SupportSession;
use tidegate_crds::support_session::{FINALIZER, RELAY_POD};
use tokio::sync::watch;

use super::{Carrier, is_held, sessions};
use crate::clock::{self, Boot};
use crate::kube::Cluster;
use crate::kube::answer::{Failure, ask, find};
use crate::kube::pause::Pause;
use crate::record::{Ended, Outbox, Published, Record, SessionId, files};

/// Sessions that are told of at once.
const AT_ONCE: usize = 8;
/// Of those, such as have failed before: others find a turn, whatever becomes of these.
const AGAIN_AT_ONCE: usize = 4;
/// For one request.
const PATIENCE: Duration = Duration::from_secs(5);
/// With the API server away, all of it waits so long at first, and at most.
const AWAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A session that is refused waits by itself, others do not wait for it.
const REFUSED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(5));
/// The same for one whose request the server answers with a failure of its own, or not in time: that
/// may be a webhook of one tenant. Or the object is another than it was: it is read again.
const FAILED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// When nothing is due it is looked again all the same.
const IDLE: Duration = Duration::from_mins(1);

pub struct Publisher<C> {
    pub cluster: Cluster,
    pub carrier: Arc<C>,
    pub outbox: Outbox,
    /// Set once a session belongs to another namespace than the Mesh's.
    pub wide: watch::Sender<bool>,
}

/// What became of one session's turn.
enum Outcome {
    /// Nothing is to be told for now.
    Told,
    /// There is no way to the API server.
    Away(String),
    /// It failed, was late, refused, or has something else than was thought: this session waits by
    /// itself, so long.
    Waits { why: String, pause: Pause },
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unknown(why) => Self::Away(why),
            other => {
                let (first, most) = match other {
                    Failure::Failed { .. } | Failure::Late(_) | Failure::Conflict(_) => FAILED,
                    _ => REFUSED,
                };
                Self::Waits { why: other.to_string(), pause: Pause::new(first, most) }
            }
        }
    }
}

impl<C: Carrier> Publisher<C> {
    /// Never returns.
    pub async fn run(self) {
        let mut turns = FuturesUnordered::new();
        let mut busy: HashSet<SessionId> = HashSet::new();
        // What came while a session had its turn.
        let mut again: HashSet<SessionId> = HashSet::new();
        let mut later: BTreeSet<(Boot, SessionId)> = BTreeSet::new();
        // What failed when it was told last.
        let mut waits: HashMap<SessionId, Pause> = HashMap::new();
        let mut away = Pause::new(AWAY.0, AWAY.1);
        let mut is_away = false;
        let mut resume = clock::boot();
        loop {
            let now = clock::boot();
            let mut wake = IDLE;
            while turns.len() < AT_ONCE {
                if now < resume {
                    wake = resume.since(now);
                    break;
                }
                let again_now = busy.iter().filter(|id| waits.contains_key(*id)).count();
                let due = later.first().copied().filter(|(at, _)| *at <= now);
                let new = if due.is_some() && again_now == 0 { None } else { self.outbox.take() };
                let id = match (new, due) {
                    (Some(id), _) if waits.contains_key(&id) => {
                        later.insert((now, id));
                        continue;
                    }
                    (Some(id), _) => id,
                    (None, Some(first)) if again_now < AGAIN_AT_ONCE => {
                        later.remove(&first);
                        first.1
                    }
                    // Until a turn ends.
                    (None, Some(_)) => break,
                    (None, None) => {
                        wake = later.first().map_or(IDLE, |(at, _)| at.since(now));
                        break;
                    }
                };
                if busy.insert(id) {
                    let publisher = &self;
                    turns.push(async move { (id, publisher.tell(id).await) });
                } else {
                    again.insert(id);
                }
            }
            tokio::select! {
                Some((id, outcome)) = turns.next(), if !turns.is_empty() => {
                    busy.remove(&id);
                    let mut repeat = again.remove(&id);
                    match outcome {
                        Outcome::Told => {
                            waits.remove(&id);
                            away.reset();
                            if std::mem::take(&mut is_away) {
                                tracing::info!("the API server is told of sessions again");
                            }
                        }
                        Outcome::Away(why) => {
                            repeat = true;
                            // The first that fails speaks for all that are under way.
                            if clock::boot() >= resume {
                                resume = clock::boot().plus(away.next());
                            }
                            if !std::mem::replace(&mut is_away, true) {
                                tracing::warn!(why, "the API server cannot be told of sessions; their records wait");
                            }
                        }
                        Outcome::Waits { why, pause } => {
                            let new = !waits.contains_key(&id);
                            // As long as it fails it waits longer each time, by the bounds of its
                            // last failure: one refusal among others is not waited for so long.
                            let pause = waits
                                .entry(id)
                                .and_modify(|before| before.rebound(&pause))
                                .or_insert(pause);
                            later.insert((clock::boot().plus(pause.next()), id));
                            if new {
                                tracing::warn!(session = %id, why, "a SupportSession waits");
                            }
                        }
                    }
                    if repeat {
                        self.outbox.again(id);
                    }
                }
                () = self.outbox.added() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    async fn tell(&self, id: SessionId) -> Outcome {
        match self.step(id).await {
            Ok(()) => Outcome::Told,
            Err(failure) => failure.into(),
        }
    }

    async fn step(&self, id: SessionId) -> Result<(), Failure> {
        let Some(record) = self.outbox.get(id) else { return Ok(()) };
        let namespace = record.begun.window.namespace.as_str();
        if namespace != self.cluster.namespace.as_str() {
            self.wide.send_if_modified(|wide| !std::mem::replace(wide, true));
        }
        let uid = match &record.published {
            Published::Ended => return Ok(()),
            Published::Begun(uid) => uid.clone(),
            Published::Nothing => {
                let Some(uid) = self.create(id, &record).await? else {
                    self.outbox.done(id);
                    return Ok(());
                };
                self.outbox.begun(id, &uid);
                uid
            }
        };
        // It may have ended meanwhile.
        let Some(ended) = self.outbox.get(id).and_then(|record| record.ended) else {
            return Ok(());
        };
        let api = sessions(&self.cluster.client, Some(namespace));
        let name = id.to_string();
        let there = find(PATIENCE, api.get(&name)).await?;
        let Some(there) = there.filter(|there| there.metadata.uid.as_ref() == Some(&uid)) else {
            // Deleted by force: there is nothing left that could say how it ended.
            self.outbox.done(id);
            return Ok(());
        };
        let params = PatchParams::default();
        if let Some(status) = status(&there, &ended)? {
            let patch = json!({"metadata": {"uid": uid}, "status": status});
            ask(PATIENCE, api.patch_status(&name, &params, &Patch::Merge(&patch))).await?;
        }
        if self.carrier.is_open(id) {
            // Its turn comes again when all is closed.
            return Ok(());
        }
        if is_held(&there) {
            self.let_go(&name, &uid, &there, &api).await?;
        }
        self.outbox.done(id);
        Ok(())
    }

    /// Gives the object's uid; `None` if there never can be one.
    async fn create(&self, id: SessionId, record: &Record) -> Result<Option<String>, Failure> {
        let namespace = record.begun.window.namespace.as_str();
        let api = sessions(&self.cluster.client, Some(namespace));
        let object = object(id, record, record.ended.is_none() || self.carrier.is_open(id))?;
        match ask(PATIENCE, api.create(&PostParams::default(), &object)).await {
            Ok(made) => Ok(made.metadata.uid),
            Err(Failure::Conflict(why)) => {
                let there = find(PATIENCE, api.get(&id.to_string())).await?;
                let there = there.ok_or(Failure::Conflict(why))?;
                if is_same(&there, &object) {
                    return Ok(there.metadata.uid);
                }
                tracing::error!(session = %id, "another SupportSession has the name of a session");
                Ok(None)
            }
            Err(Failure::NotFound(why)) if why.contains(&format!("namespaces \"{namespace}\"")) => {
                tracing::warn!(session = %id, why, "a session's namespace is gone, and its object with it");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Takes the finalizer off.
    async fn let_go(
        &self,
        name: &str,
        uid: &str,
        there: &DynamicObject,
        api: &kube::Api<DynamicObject>,
    ) -> Result<(), Failure> {
        // Written to just now: what else is in the list is read again.
        let there = match find(PATIENCE, api.get(name)).await? {
            Some(now) if now.metadata.uid == there.metadata.uid => now,
            _ => return Ok(()),
        };
        let others: Vec<_> = there.metadata.finalizers.iter().flatten().collect();
        let others: Vec<_> = others.into_iter().filter(|f| *f != FINALIZER).collect();
        let version = &there.metadata.resource_version;
        let patch = json!({
            "metadata": {"uid": uid, "resourceVersion": version, "finalizers": others},
        });
        let params = PatchParams::default();
        match ask(PATIENCE, api.patch(name, &params, &Patch::Merge(&patch))).await {
            Ok(_) | Err(Failure::NotFound(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

fn object(id: SessionId, record: &Record, held: bool) -> Result<DynamicObject, Failure> {
    let mut object = SupportSession::new(&id.to_string(), files::spec(record));
    object.metadata.namespace = Some(record.begun.window.namespace.to_string());
    if record.relay.len() <= 63 {
        let label = (RELAY_POD.to_owned(), record.relay.clone());
        object.metadata.labels = Some(BTreeMap::from([label]));
    }
    object.metadata.finalizers = held.then(|| vec![FINALIZER.to_owned()]);
    serde_json::to_value(object).and_then(serde_json::from_value).map_err(unwritable)
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure::Refused { code: 0, why: error.to_string() }
}

/// Whether `there` is what `ours` was to make. Names hold a random UUID: nobody meets one by chance.
fn is_same(there: &DynamicObject, ours: &DynamicObject) -> bool {
    ["relayPod", "user", "terminal", "openedAt"].iter().all(|field| {
        let of = |object: &DynamicObject| object.data.pointer(&format!("/spec/{field}")).cloned();
        of(there) == of(ours)
    })
}

/// What the object is to say; `None` where it says so already. This relay knows best: it overrules
/// what the operator may have thought of a session whose relay it could not see.
fn status(there: &DynamicObject, ended: &Ended) -> Result<Option<Value>, Failure> {
    let mut status = files::status(ended).map_err(unwritable)?;
    status.observed_generation = there.metadata.generation;
    let status = serde_json::to_value(status).map_err(unwritable)?;
    let has = |field: &str| {
        there.data.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null)
            == status.get(field).unwrap_or(&Value::Null)
    };
    let same = ["endedAt", "endedBy", "overrun", "bytesIn", "bytesOut"].into_iter().all(has);
    Ok((!same).then_some(status))
}
