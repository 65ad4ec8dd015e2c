//! Claims as SupportClaim objects in the Mesh's namespace, where no tenant can delete them.
//!
//! Every claim is asked of the API server, which alone knows; what this relay watches only answers
//! `why`. Claims of this pod that nobody holds (of an earlier container, or made by a request whose
//! answer came too late) are freed as they are seen, if they can be used again. Those of other pods are
//! the operator's to free. Touches the network, through [`Cluster`] alone.

mod attempt;
mod book;
mod object;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, Preconditions};
use kube::core::DynamicObject;
use tidegate_crds::SupportClaim;
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Login, ObjectKey};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::table::{Asker, Limit, Wanted};
use super::{Claimed, Claims};
use crate::kube::Cluster;
use crate::kube::answer::{Failure, ask, find};
use crate::kube::pause::Pause;
use crate::kube::watch::{self, Seen};
use crate::lock::lock;
use crate::record::SessionId;
use crate::supervisor::Supervisor;
use attempt::{Attempt, Once};
use book::Book;
use object::Entry;

/// Claims that are asked for at once; more wait, within their time.
const AT_ONCE: usize = 16;
/// Requests to free a claim at once.
const FREEING_AT_ONCE: usize = 4;

/// How long it waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one request.
    pub request: Duration,
    /// For a claim, all in all.
    pub budget: Duration,
    /// Before a request is sent again, at first.
    pub again: Duration,
    /// For a claim to be given back, before it is left to be tried in the background.
    pub release: Duration,
    /// The longest pause between two tries in the background.
    pub background: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(2),
            budget: Duration::from_secs(5),
            again: Duration::from_millis(50),
            release: Duration::from_secs(1),
            background: Duration::from_secs(10),
        }
    }
}

/// The claims of one relay of a cluster. Clones share them.
#[derive(Clone)]
pub struct KubeClaims(Arc<Shared>);

struct Shared {
    api: Api<DynamicObject>,
    pod: String,
    /// Names this process: what an earlier container of the pod made is not its.
    process: Uuid,
    attempts: AtomicU64,
    patience: Patience,
    book: Mutex<Book>,
    turns: Semaphore,
    freeing: Semaphore,
    tasks: Supervisor,
}

impl std::fmt::Debug for KubeClaims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeClaims").field("pod", &self.0.pod).finish_non_exhaustive()
    }
}

impl KubeClaims {
    /// Begins to watch the claims, and to free what an earlier container of this pod left. Nothing is
    /// waited for: the API server may be away.
    pub fn new(cluster: &Cluster, tasks: &Supervisor) -> Self {
        Self::with(cluster, tasks, Patience::default())
    }

    fn with(cluster: &Cluster, tasks: &Supervisor, patience: Patience) -> Self {
        let resource = ApiResource::erase::<SupportClaim>(&());
        let namespace = cluster.namespace.as_str();
        let api = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
        let shared = Arc::new(Shared {
            api: api.clone(),
            pod: cluster.pod.clone(),
            process: Uuid::new_v4(),
            attempts: AtomicU64::new(0),
            patience,
            book: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            freeing: Semaphore::new(FREEING_AT_ONCE),
            tasks: tasks.clone(),
        });
        let sees = Arc::downgrade(&shared);
        tasks.critical(
            "claims watch",
            watch::follow(api, None, move |seen| {
                if let Some(shared) = sees.upgrade() {
                    shared.see(seen);
                }
            }),
        );
        Self(shared)
    }
}

impl Claims for KubeClaims {
    /// The attempt goes on when the future is dropped, so that it is always known what became of it.
    async fn claim(
        &self,
        candidate: &Candidate,
        session: SessionId,
        by: &Login,
        now: Timestamp,
    ) -> Claimed {
        let Some(wanted) = Wanted::of(candidate) else { return Claimed::Free };
        let limit = wanted.limit;
        let (reply, answer) = oneshot::channel();
        let (shared, user) = (Arc::clone(&self.0), by.to_string());
        self.0.tasks.spawn("claim", async move {
            // A claim that nobody waits for any more is dropped here, and so given back.
            let _ = reply.send(shared.claim(wanted, session, user, now).await);
        });
        answer.await.unwrap_or_else(|_| {
            let why = "the task that makes the claim has ended".to_owned();
            match limit {
                Limit::Once => Claimed::Uncertain { why },
                Limit::Places(_) => Claimed::Unavailable { why },
            }
        })
    }

    fn look(&self, candidate: &Candidate) -> Option<Claimed> {
        let Some(wanted) = Wanted::of(candidate) else { return Some(Claimed::Free) };
        lock(&self.0.book).look(&object::claim_name(&wanted), wanted.limit)
    }

    async fn retain(&self, _: &(dyn Fn(&ObjectKey) -> bool + Sync), _: Timestamp) {}
}

impl Shared {
    fn next_attempt(&self) -> String {
        format!("{}/{}", self.process, self.attempts.fetch_add(1, Ordering::Relaxed))
    }

    async fn claim(
        self: &Arc<Self>,
        wanted: Wanted,
        session: SessionId,
        user: String,
        at: Timestamp,
    ) -> Claimed {
        let session = session.to_string();
        let asker = Asker { session: &session, user: &user, relay: &self.pod, at };
        let turn = tokio::time::timeout(self.patience.budget, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Claimed::Away { why: "too many claims are under way".to_owned() };
        };
        // Its time begins now: one that waited long would be left too little to learn what it made.
        let attempt = Attempt::new(self);
        match wanted.limit {
            Limit::Places(most) => attempt.place(&wanted, most, &asker).await,
            Limit::Once => {
                let claimed = attempt.once(&wanted, &asker).await;
                if let Claimed::Uncertain { .. } = &claimed {
                    self.settle(attempt, wanted, session, user, at);
                }
                claimed
            }
        }
    }

    /// Makes true what was told: the window counts as used. The claim is created until it is there.
    fn settle(
        self: &Arc<Self>,
        mut attempt: Attempt,
        wanted: Wanted,
        session: String,
        user: String,
        at: Timestamp,
    ) {
        let shared = Arc::clone(self);
        self.tasks.spawn("uncertain claim", async move {
            let name = object::claim_name(&wanted);
            let mut pause = Pause::new(shared.patience.request, shared.patience.background);
            loop {
                tokio::time::sleep(pause.next()).await;
                let asker = Asker { session: &session, user: &user, relay: &shared.pod, at };
                attempt.until = crate::clock::boot().plus(shared.patience.budget);
                match attempt.create_once(&name, &wanted, &asker).await {
                    Once::Ours(entry) | Once::Theirs(entry) => {
                        lock(&shared.book).put(&name, entry);
                        return;
                    }
                    Once::Not(why) | Once::Unknown(why) => {
                        tracing::debug!(name, why, "a one-time claim is still uncertain");
                    }
                }
            }
        });
    }

    /// What the watch shows.
    fn see(self: &Arc<Self>, seen: Seen) {
        let mut book = lock(&self.book);
        match seen {
            Seen::Listing => {}
            Seen::Put(object) => {
                let Some(name) = object.metadata.name.clone() else { return };
                let entry = object::entry(&object);
                book.heard();
                let abandoned = book.abandoned(&name, &entry, &self.pod);
                let uid = entry.uid.clone();
                book.put(&name, entry);
                drop(book);
                if abandoned {
                    tracing::info!(name, "freeing a claim of this pod that no session holds");
                    self.free(name, uid, None);
                }
            }
            Seen::Gone(object) => {
                let metadata = &object.metadata;
                if let (Some(name), Some(uid)) = (&metadata.name, &metadata.uid) {
                    book.heard();
                    book.gone(name, uid);
                }
            }
            Seen::Listed(names) => book.only(&names),
            Seen::Lost(why) => {
                if book.lose(why.clone()) {
                    tracing::warn!(
                        why,
                        "the API server's claims cannot be watched; limited windows admit nobody until they can"
                    );
                }
            }
        }
    }

    /// Deletes a claim, until it is gone. The caller has marked it in the book.
    fn free(self: &Arc<Self>, name: String, uid: String, done: Option<oneshot::Sender<()>>) {
        let shared = Arc::clone(self);
        self.tasks.spawn("claim release", async move {
            shared.delete(&name, &uid).await;
            lock(&shared.book).freed(&name, &uid);
            if let Some(done) = done {
                let _ = done.send(());
            }
        });
    }

    /// The same for a claim that `attempt` may have made.
    fn free_attempt(self: &Arc<Self>, name: String, attempt: String) {
        let shared = Arc::clone(self);
        self.tasks.spawn("claim release", async move {
            let mut pause = Pause::new(shared.patience.again, shared.patience.background);
            let there = loop {
                match find(shared.patience.request, shared.api.get(&name)).await {
                    Ok(there) => break there.map(|object| object::entry(&object)),
                    Err(failure) => tracing::debug!(name, %failure, "reading a claim to free it"),
                }
                tokio::time::sleep(pause.next()).await;
            };
            // One that comes later is freed when the watch shows it.
            let Some(Entry { uid, .. }) = there.filter(|entry| entry.attempt == attempt) else {
                return;
            };
            let free = {
                let mut book = lock(&shared.book);
                !book.holds(&name, &attempt) && book.free(&uid)
            };
            if free {
                shared.delete(&name, &uid).await;
                lock(&shared.book).freed(&name, &uid);
            }
        });
    }

    async fn delete(&self, name: &str, uid: &str) {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        let mut pause = Pause::new(self.patience.again, self.patience.background);
        let mut told = false;
        loop {
            let turn = self.freeing.acquire().await;
            let deleted = ask(self.patience.request, self.api.delete(name, &params)).await;
            drop(turn);
            match deleted {
                Ok(_) | Err(Failure::NotFound(_)) => return,
                // The name may be another claim's by now.
                Err(Failure::Conflict(why)) => {
                    let there = find(self.patience.request, self.api.get(name)).await;
                    let there =
                        there.map(|there| there.is_some_and(|t| object::entry(&t).uid == uid));
                    if there == Ok(false) {
                        return;
                    }
                    tracing::debug!(name, why, "freeing a claim");
                }
                Err(Failure::Refused { why, .. }) if !told => {
                    told = true;
                    tracing::error!(name, why, "a claim cannot be freed");
                }
                Err(failure) => tracing::debug!(name, %failure, "freeing a claim"),
            }
            tokio::time::sleep(pause.next()).await;
        }
    }
}

/// A claim that was made; given back when dropped, if it can be used again.
pub struct Kept {
    shared: Arc<Shared>,
    name: String,
    uid: String,
    /// `false`: one-time, or given back.
    reusable: bool,
    once: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kept {
    fn new(shared: &Arc<Shared>, name: &str, entry: &Entry) -> Self {
        let once = entry.index.is_none();
        Self {
            shared: Arc::clone(shared),
            name: name.to_owned(),
            uid: entry.uid.clone(),
            reusable: !once,
            once,
        }
    }

    pub fn is_once(&self) -> bool {
        self.once
    }

    pub async fn release(mut self) {
        let (done, released) = oneshot::channel();
        if self.give_back(Some(done)) {
            // It goes on without us.
            let _ = tokio::time::timeout(self.shared.patience.release, released).await;
        }
    }

    fn give_back(&mut self, done: Option<oneshot::Sender<()>>) -> bool {
        if !std::mem::take(&mut self.reusable) {
            return false;
        }
        let free = {
            let mut book = lock(&self.shared.book);
            book.let_go(&self.name);
            book.free(&self.uid)
        };
        if free {
            self.shared.free(self.name.clone(), self.uid.clone(), done);
        }
        free
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back(None);
    }
}
