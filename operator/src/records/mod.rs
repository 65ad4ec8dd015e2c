//! What relays write, and what becomes of it: SupportSessions and SupportClaims.
//!
//! One task watches sessions, claims, the relays' pods and the names of windows, keeps a few facts of
//! each, and asks two pure rules (`support_session::rule`, `support_claim::rule`) what is to be done and
//! when. Nothing is polled: what waits for an instant is on the agenda. Nothing is concluded from a list
//! that is not complete, and a pod that is not known is asked for before it counts as gone.

mod agenda;
mod facts;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use tidegate_crds::{SupportClaim, SupportSession, SupportWindow};
use tidegate_process::clock;
use tokio::sync::watch;

pub use agenda::Agenda;
pub use facts::{Claim, Pod, PodState, Session};

use crate::Context;
use crate::backoff::{Backoff, jittered};
use crate::mesh::{Set, Tenancy};
use crate::metrics::Outcome;
use crate::watching::{Change, Key, watch as watch_all};
use crate::write::WriteError;
use crate::{support_claim, support_session};

/// The pods of relays.
const PODS: &str = "app.kubernetes.io/name=tidegate,app.kubernetes.io/component=relay";
/// Requests at once, and how many objects are seen to before the watches are heard again.
const AT_ONCE: usize = 8;
const BATCH: usize = 100;
/// How many pods that are gone are remembered.
const REMEMBERED: usize = 4096;
/// How long the watch has to show what was written, before it is looked at again.
const SETTLE: Duration = Duration::from_secs(30);
/// The agenda is looked at anew after this long, since the wall clock may be stepped.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// How long changes are collected before they are acted on.
const COLLECT: Duration = Duration::from_millis(50);

/// What is to be seen to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    Session(Key),
    Claim(Key),
}

/// What a rule says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<A> {
    /// Nothing, until something changes.
    Nothing,
    /// Nothing before then, unless something changes.
    At(Timestamp),
    /// This, now.
    Act(A),
}

/// Why an object could not be seen to; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot read {what}: {source}")]
    Read { what: String, source: kube::Error },
    #[error("cannot write: {0}")]
    Write(#[from] WriteError),
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Records {
    pub sessions: Set<Session>,
    pub claims: Set<Claim>,
    pub pods: Set<Pod>,
    /// Windows' names; nothing else of them is kept.
    pub windows: Set<()>,
    pub tenancy: Tenancy,
}

impl Records {
    /// Before this nothing is done.
    pub fn complete(&self) -> bool {
        self.sessions.complete()
            && self.claims.complete()
            && self.pods.complete()
            && self.windows.complete()
            && self.tenancy.complete
    }

    /// What is known of a relay's pod in the namespace of a fleet.
    pub fn pod(&self, namespace: &str, name: &str) -> PodState {
        match self.pods.objects().get(&Key::new(namespace, name)) {
            Some(pod) => pod.state,
            None => PodState::Gone,
        }
    }
}

/// Runs for ever. `held` is told of the namespaces whose sessions' records relays hold.
pub async fn run(
    ctx: Arc<Context>,
    mut tenancy: watch::Receiver<Tenancy>,
    held: watch::Sender<Option<BTreeSet<String>>>,
) {
    let (client, metrics) = (&ctx.client, &ctx.metrics);
    let all = Config::default;
    let mut sessions =
        pin!(watch_all(client.clone(), all(), "SupportSession", Arc::clone(metrics)));
    let mut claims = pin!(watch_all(client.clone(), all(), "SupportClaim", Arc::clone(metrics)));
    let mut windows = pin!(watch_all(client.clone(), all(), "SupportWindow", Arc::clone(metrics)));
    let mut pods = pin!(watch_all(client.clone(), all().labels(PODS), "Pod", Arc::clone(metrics)));
    let mut keeper = Keeper::new(Arc::clone(&ctx), held);
    loop {
        let mut due = clock::boot().plus(keeper.wait());
        // What changes within a moment is seen to together.
        loop {
            tokio::select! {
                Some(change) = sessions.next() => keeper.session(change),
                Some(change) = claims.next() => keeper.claim(change),
                Some(change) = windows.next() => keeper.window(change),
                Some(change) = pods.next() => keeper.pod(change),
                Ok(()) = tenancy.changed() => {
                    let now = tenancy.borrow_and_update().clone();
                    keeper.tenancy(now);
                }
                () = tokio::time::sleep(due.since(clock::boot())) => break,
            }
            due = due.min(clock::boot().plus(COLLECT));
        }
        keeper.turn().await;
    }
}

struct Keeper {
    ctx: Arc<Context>,
    records: Records,
    /// What is to be looked at, since something about it changed.
    dirty: BTreeSet<Task>,
    agenda: Agenda<Task>,
    backoff: Backoff<Task>,
    /// Pods that the API server itself said are not there.
    gone: BTreeSet<Key>,
    held: watch::Sender<Option<BTreeSet<String>>>,
}

impl Keeper {
    fn new(ctx: Arc<Context>, held: watch::Sender<Option<BTreeSet<String>>>) -> Self {
        Self {
            ctx,
            records: Records::default(),
            dirty: BTreeSet::new(),
            agenda: Agenda::default(),
            backoff: Backoff::default(),
            gone: BTreeSet::new(),
            held,
        }
    }

    fn session(&mut self, change: Change<SupportSession>) {
        if let Some(key) = subject(&change) {
            self.dirty.insert(Task::Session(key.clone()));
            // A claim's session may have ended.
            for (at, claim) in self.records.claims.objects() {
                if claim.session == key {
                    self.dirty.insert(Task::Claim(at.clone()));
                }
            }
        } else {
            self.all();
        }
        self.records.sessions.take(change, |session| Session::of(&session));
    }

    fn claim(&mut self, change: Change<SupportClaim>) {
        match subject(&change) {
            Some(key) => drop(self.dirty.insert(Task::Claim(key))),
            None => self.all(),
        }
        self.records.claims.take(change, |claim| Claim::of(&claim));
    }

    fn window(&mut self, change: Change<PartialObjectMeta<SupportWindow>>) {
        match &change {
            Change::Gone(window) => {
                for (at, claim) in self.records.claims.objects() {
                    if claim.window == *window {
                        self.dirty.insert(Task::Claim(at.clone()));
                    }
                }
            }
            Change::Complete => self.all(),
            _ => {}
        }
        self.records.windows.take(change, |_| ());
    }

    fn pod(&mut self, change: Change<KubePod>) {
        match subject(&change) {
            Some(pod) => {
                self.gone.remove(&pod);
                let of_pod = |name: &str| name == pod.name;
                for (at, session) in self.records.sessions.objects() {
                    if of_pod(&session.pod) {
                        self.dirty.insert(Task::Session(at.clone()));
                    }
                }
                for (at, claim) in self.records.claims.objects() {
                    if of_pod(&claim.pod) {
                        self.dirty.insert(Task::Claim(at.clone()));
                    }
                }
            }
            None => self.all(),
        }
        self.records.pods.take(change, |pod| Pod::of(&pod));
    }

    fn tenancy(&mut self, tenancy: Tenancy) {
        self.records.tenancy = tenancy;
        self.all();
    }

    /// Everything is looked at again.
    fn all(&mut self) {
        let sessions = self.records.sessions.objects().keys().cloned().map(Task::Session);
        self.dirty.extend(sessions);
        let claims = self.records.claims.objects().keys().cloned().map(Task::Claim);
        self.dirty.extend(claims);
    }

    /// How long until something is due.
    fn wait(&self) -> Duration {
        let now = clock::now().wall;
        let next = self.agenda.next().map(|at| Duration::try_from(at.duration_since(now)));
        next.map_or(LONGEST_SLEEP, Result::unwrap_or_default).min(LONGEST_SLEEP)
    }

    /// Sees to what changed and to what is due.
    async fn turn(&mut self) {
        self.tell_held();
        if !self.records.complete() {
            return;
        }
        let now = clock::now().wall;
        let metrics = &self.ctx.metrics;
        metrics.set_objects("SupportSession", self.records.sessions.objects().len());
        metrics.set_objects("SupportClaim", self.records.claims.objects().len());
        let mut tasks = std::mem::take(&mut self.dirty);
        tasks.extend(self.agenda.due(now));
        let mut acts = Vec::new();
        for task in tasks {
            let step = match &task {
                Task::Session(key) => {
                    support_session::step(&self.records, key, now).map(Act::Session)
                }
                Task::Claim(key) => support_claim::step(&self.records, key, now).map(Act::Claim),
            };
            match step {
                Step::Nothing => self.agenda.remove(&task),
                Step::At(at) => self.agenda.set(task, at),
                Step::Act(_) if acts.len() >= BATCH => {
                    // The rest in the next turn, once the watches have been heard.
                    self.dirty.insert(task);
                }
                Step::Act(act) => acts.push((task, act)),
            }
        }
        if !self.dirty.is_empty() {
            // Due at once, whatever the agenda says.
            for task in std::mem::take(&mut self.dirty) {
                self.agenda.set(task, now);
            }
        }
        self.dereference(&mut acts).await;
        let ctx = &self.ctx;
        let results: Vec<_> = futures_util::stream::iter(acts)
            .map(|(task, act)| async move { (task, act.run(ctx).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (task, (result, took)) in results {
            self.settle(task, &result, took);
        }
    }

    /// Nothing is told of a list that is not complete: it may lack what is held.
    fn tell_held(&self) {
        if !self.records.sessions.complete() {
            return;
        }
        let sessions = self.records.sessions.objects().iter();
        let held = sessions.filter(|(_, session)| support_session::is_held(session));
        let held: BTreeSet<String> = held.map(|(key, _)| key.namespace.clone()).collect();
        self.held.send_if_modified(|told| {
            let news = told.as_ref() != Some(&held);
            *told = Some(held);
            news
        });
    }

    /// Asks, once for each, whether the pods that acts take for gone really are, and drops the acts of
    /// those that are there.
    async fn dereference(&mut self, acts: &mut Vec<(Task, Act)>) {
        let mut pods: BTreeSet<Key> =
            acts.iter().filter_map(|(_, act)| act.unless_pod().cloned()).collect();
        pods.retain(|pod| !self.gone.contains(pod));
        let ctx = &self.ctx;
        let answers: Vec<_> = futures_util::stream::iter(pods)
            .map(|pod| async move { (pod_is_gone(ctx, &pod).await, pod) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (answer, pod) in answers {
            match answer {
                Ok(true) => drop(self.gone.insert(pod)),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a relay's pod cannot be asked for"),
            }
        }
        let again = clock::now().wall.saturating_add(clock::signed(jittered(SETTLE)));
        let again = again.unwrap_or(Timestamp::MAX);
        acts.retain(|(task, act)| {
            let go = act.unless_pod().is_none_or(|pod| self.gone.contains(pod));
            if !go {
                self.agenda.set(task.clone(), again);
            }
            go
        });
        if self.gone.len() > REMEMBERED {
            self.gone.clear();
        }
    }

    /// When what was acted on is looked at again, unless its watch says something before.
    fn settle(&mut self, task: Task, result: &Result<(), RecordError>, took: Duration) {
        let controller = match task {
            Task::Session(_) => "support-session",
            Task::Claim(_) => "support-claim",
        };
        self.ctx.metrics.reconciled(controller, Outcome::of(result), took);
        let wait = match result {
            Ok(()) => {
                self.backoff.forget(&task);
                jittered(SETTLE)
            }
            // Somebody else wrote it: the watch will say what.
            Err(RecordError::Write(error)) if error.is_conflict() || error.is_not_found() => {
                jittered(SETTLE)
            }
            Err(error) => {
                let wait = self.backoff.failed(task.clone());
                tracing::warn!(?task, %error, ?wait, "a record is tried again");
                wait
            }
        };
        let again = clock::now().wall.saturating_add(clock::signed(wait));
        self.agenda.set(task, again.unwrap_or(Timestamp::MAX));
    }
}

/// What is to be done about one object.
enum Act {
    Session(support_session::Act),
    Claim(support_claim::Act),
}

impl Act {
    /// The pod that must not be there.
    fn unless_pod(&self) -> Option<&Key> {
        match self {
            Self::Session(act) => act.unless_pod.as_ref(),
            Self::Claim(act) => act.unless_pod.as_ref(),
        }
    }

    async fn run(self, ctx: &Context) -> (Result<(), RecordError>, Duration) {
        let begun = clock::boot();
        let result = match self {
            Self::Session(act) => support_session::act(ctx, act).await,
            Self::Claim(act) => support_claim::act(ctx, act).await,
        };
        (result, clock::boot().since(begun))
    }
}

impl<A> Step<A> {
    fn map<B>(self, into: impl FnOnce(A) -> B) -> Step<B> {
        match self {
            Self::Nothing => Step::Nothing,
            Self::At(at) => Step::At(at),
            Self::Act(act) => Step::Act(into(act)),
        }
    }
}

/// The object that a change is about; `None`: it is about all of them.
fn subject<K: kube::Resource>(change: &Change<K>) -> Option<Key> {
    match change {
        Change::Put(object) => Some(Key::of(object)),
        Change::Gone(key) | Change::Undecodable { key, .. } => Some(key.clone()),
        Change::Begin | Change::Complete => None,
    }
}

/// Whether there really is no such pod, asked of the API server itself.
async fn pod_is_gone(ctx: &Context, pod: &Key) -> Result<bool, RecordError> {
    let api: kube::Api<KubePod> = kube::Api::namespaced(ctx.client.clone(), &pod.namespace);
    let found = api.get_metadata_opt(&pod.name).await;
    match found {
        Ok(found) => Ok(found.is_none()),
        Err(source) => Err(RecordError::Read { what: format!("Pod {pod}"), source }),
    }
}
