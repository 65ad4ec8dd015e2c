//! The owner of all streams: puts what they tell into the world, and publishes the policy that comes
//! of it.
//!
//! Nothing is published before every list that the Mesh needs was read to its end, and a list that is
//! read again changes nothing before its end: half a list would revoke what is still in force
//! (invariant 3). An event is published at once, together with those that already wait behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tidegate_crds::manifest::{Kind, Object};
use tidegate_policy::model::{Label, ObjectKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::clocks::Clocks;
use super::keeper::Keeper;
use super::raw::{Key, Raw};
use super::reflect::{Kick, Lasting, Reflector, Said};
use super::status::{self, Status};
use super::stream::{Reach, Stream, needed};
use super::wire::{Collection, Room, Trouble};
use super::world::World;
use crate::clock::{self, Boot, Now};
use crate::metrics::Metrics;
use crate::source::{Feed, Policy, Reload, Told, age};
use crate::supervisor::Supervisor;

/// How often the clocks are read, to notice that one was stepped or that the machine slept.
const TICK: Duration = Duration::from_millis(250);
/// Messages that are taken over before one policy is published for all of them.
const BATCH: usize = 256;
/// Objects that are taken over before others get a turn on this thread.
const TURN: usize = 256;
/// How long after a disk that failed the journal is written anew.
const REWRITE_AFTER: Duration = Duration::from_secs(30);

/// What the follower is made of.
pub struct Parts {
    pub client: Client,
    pub namespace: Label,
    pub relay: Label,
    pub metrics: Arc<Metrics>,
    pub tasks: Supervisor,
    pub keeper: Keeper,
    pub boot_id: Option<String>,
    pub status: Arc<Status>,
    /// The policy of before and its age.
    pub restored: Option<(World, Now)>,
    pub first: oneshot::Sender<Feed>,
    pub reload: Reload,
    /// Where the keeper's journal is.
    pub journal: PathBuf,
}

/// One stream that is followed.
pub(super) struct Followed {
    pub(super) stream: Stream,
    /// Dropped with it, which ends its task.
    pub(super) _stop: DropGuard,
    pub(super) listing: Option<Listing>,
    /// It was listed to its end at least once.
    pub(super) complete: bool,
    /// The count of the last complete list.
    pub(super) relist: u64,
    /// Last sign of life.
    pub(super) heard: Now,
    /// Last proof that the API server read its store.
    pub(super) proven: Now,
    pub(super) trouble: Option<(Now, Trouble)>,
    pub(super) unproven: Option<(Now, Trouble)>,
}

/// A list that is being read.
pub(super) struct Listing {
    relist: u64,
    seen: BTreeSet<Key>,
    /// Objects that differ from those in force, which they replace at the list's end.
    changed: Vec<Raw>,
}

/// How far the journal is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// There is none: the Mesh is not known yet.
    No,
    /// It is being written anew, by lists of this count.
    Anew(u64),
    Whole,
}

pub(super) struct Follower {
    pub(super) parts: Kept,
    pub(super) world: Option<World>,
    /// Relays that came before it was known which Mesh is ours.
    pub(super) early: BTreeMap<Key, Raw>,
    pub(super) streams: BTreeMap<u64, Followed>,
    pub(super) next_id: u64,
    pub(super) tell: mpsc::Sender<(u64, Said)>,
    pub(super) kick: watch::Sender<Kick>,
    pub(super) lasting: Arc<Lasting>,
    /// Shared by all streams.
    pub(super) room: Room,
    pub(super) began: Now,
    pub(super) restored: Option<Now>,
    /// All lists that the Mesh needs have been complete at once.
    pub(super) ever_complete: bool,
    pub(super) first: Option<oneshot::Sender<Feed>>,
    pub(super) policy: Option<Policy>,
    pub(super) publisher: Option<watch::Sender<Arc<Policy>>>,
    /// Findings about the source itself.
    pub(super) own: Vec<String>,
    pub(super) told: Told,
    pub(super) written: Written,
    /// Something was put into the journal since the last commit.
    pub(super) uncommitted: bool,
    pub(super) committed: Option<Now>,
    pub(super) rewrote: Option<Boot>,
    pub(super) clocks: Clocks,
}

/// What stays as it was given.
pub(super) struct Kept {
    pub(super) client: Client,
    pub(super) namespace: Label,
    pub(super) relay: Label,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Supervisor,
    pub(super) keeper: Keeper,
    pub(super) boot_id: Option<String>,
    pub(super) status: Arc<Status>,
    pub(super) reload: Reload,
    pub(super) journal: PathBuf,
}

/// Why the source has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody holds the feed any more.
    Unwanted,
    /// The Relay has come to belong to another Mesh: the process must begin anew.
    AnotherMesh,
}

/// Follows the API server until there is a reason to end.
pub async fn run(parts: Parts) -> End {
    let (tell, mut heard) = mpsc::channel(BATCH);
    let mut follower = Follower::new(parts, tell);
    follower.adjust();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let reload = Arc::clone(&follower.parts.reload.0);
        tokio::select! {
            message = heard.recv() => {
                let Some(message) = message else { return End::Unwanted };
                follower.take(message).await;
                // What waits already is published with it.
                for _ in 1..BATCH {
                    let Ok(message) = heard.try_recv() else { break };
                    follower.take(message).await;
                }
            }
            _ = tick.tick() => follower.tick(clock::now()),
            () = reload.notified() => follower.ask_again(),
        }
        if let Some(end) = follower.settle(clock::now()) {
            return end;
        }
    }
}

impl Follower {
    fn new(parts: Parts, tell: mpsc::Sender<(u64, Said)>) -> Self {
        let now = clock::now();
        let (world, restored) = parts.restored.unzip();
        Self {
            written: if world.is_some() { Written::Whole } else { Written::No },
            world,
            early: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_id: 0,
            tell,
            kick: watch::Sender::new(Kick::default()),
            lasting: Arc::new(Lasting::default()),
            room: Room::default(),
            began: now,
            restored,
            ever_complete: false,
            first: Some(parts.first),
            policy: None,
            publisher: None,
            own: Vec::new(),
            told: Told::default(),
            uncommitted: false,
            committed: None,
            rewrote: None,
            clocks: Clocks::new(now),
            parts: Kept {
                client: parts.client,
                namespace: parts.namespace,
                relay: parts.relay,
                metrics: parts.metrics,
                tasks: parts.tasks,
                keeper: parts.keeper,
                boot_id: parts.boot_id,
                status: parts.status,
                reload: parts.reload,
                journal: parts.journal,
            },
        }
    }

    /// Starts and stops streams as the Mesh needs them now.
    pub(super) fn adjust(&mut self) {
        let wanted = self.wanted();
        // Whose a namespace is depends on all Meshes: it is not ours before the others are known.
        let others = Stream { kind: Kind::Mesh, reach: Reach::Elsewhere };
        let known = |it: &Followed| it.stream == others && it.complete;
        let apart = self.streams.values().any(known);
        let excess = |followed: &Followed| !wanted.contains(&followed.stream);
        let stopped: Vec<u64> =
            self.streams.iter().filter(|(_, it)| excess(it)).map(|(id, _)| *id).collect();
        for id in stopped {
            let Some(followed) = self.streams.remove(&id) else { continue };
            if let Some(world) = &mut self.world {
                for object in world.vanished(followed.stream, &BTreeSet::new()) {
                    world.remove(&object, Some(&self.parts.keeper));
                }
            }
        }
        let running: BTreeSet<Stream> = self.streams.values().map(|it| it.stream).collect();
        for stream in wanted.difference(&running) {
            if apart || stream.reach != Reach::Cluster {
                self.start(*stream);
            }
        }
    }

    /// The streams that the Mesh needs.
    pub(super) fn wanted(&self) -> BTreeSet<Stream> {
        match &self.world {
            Some(world) => needed(world.tenants()).collect(),
            // Which Mesh is ours is known by the Relay.
            None => BTreeSet::from([Stream { kind: Kind::Relay, reach: Reach::Home }]),
        }
    }

    fn start(&mut self, stream: Stream) {
        self.next_id = self.next_id.saturating_add(1);
        let home = self.parts.namespace.as_str();
        let reflector = Reflector {
            stream,
            id: self.next_id,
            collection: Collection {
                client: self.parts.client.clone(),
                path: stream.path(home),
                selector: stream.selector(home),
                room: self.room.clone(),
            },
            lasting: Arc::clone(&self.lasting),
            kick: self.kick.subscribe(),
            tell: self.tell.clone(),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        self.parts.tasks.spawn("policy watch", async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = reflector.run() => {}
            }
        });
        // Nothing is known of it before it was read; of a restart, what the process before knew.
        let since = self.restored.filter(|_| !self.ever_complete).unwrap_or_else(clock::now);
        let followed = Followed {
            stream,
            _stop: stop.drop_guard(),
            listing: None,
            complete: false,
            relist: 0,
            heard: since,
            proven: since,
            trouble: None,
            unproven: None,
        };
        self.streams.insert(self.next_id, followed);
    }

    /// Takes over what a stream tells.
    async fn take(&mut self, (id, said): (u64, Said)) {
        // The last words of a stream that was stopped.
        let Some(followed) = self.streams.get_mut(&id) else { return };
        let kind = followed.stream.kind;
        match said {
            Said::Listing { relist } => {
                self.parts.metrics.policy_list(kind);
                followed.listing =
                    Some(Listing { relist, seen: BTreeSet::new(), changed: Vec::new() });
            }
            // What is held with it is let go of when it was taken over.
            Said::Page(raws, _held) => self.page(id, raws).await,
            Said::Listed { at } => self.listed(id, at).await,
            Said::Put(raw, _held) => {
                self.parts.metrics.policy_event(kind);
                self.put(*raw);
            }
            Said::Removed(raw, _held) => {
                self.parts.metrics.policy_event(kind);
                match &mut self.world {
                    Some(world) => world.remove(&raw.reference, Some(&self.parts.keeper)),
                    None => drop(self.early.remove(&raw.key())),
                }
            }
            Said::Alive { at, news } => {
                followed.heard = at;
                if news {
                    followed.proven = at;
                    followed.unproven = None;
                }
                followed.recover();
            }
            Said::Proven { at } => {
                followed.proven = at;
                followed.unproven = None;
            }
            Said::Unproven(trouble) => {
                let since = followed.unproven.take().map_or_else(clock::now, |(since, _)| since);
                followed.unproven = Some((since, trouble));
            }
            Said::Trouble(trouble) => {
                self.parts.metrics.policy_trouble(kind);
                followed.fail(self.parts.namespace.as_str(), trouble);
            }
        }
    }

    async fn page(&mut self, id: u64, raws: Vec<Raw>) {
        // As long as nothing is in force, half of a list does no harm, and need not be kept apart.
        let direct = self.publisher.is_none() && self.restored.is_none();
        let Some(listing) = self.streams.get_mut(&id).and_then(|it| it.listing.as_mut()) else {
            return;
        };
        let rewriting = matches!(self.written, Written::Anew(_)) && !direct;
        let mut apply = Vec::new();
        for raw in raws {
            listing.seen.insert(raw.key());
            match &self.world {
                Some(world) if world.knows(&raw) => {
                    if rewriting {
                        self.parts.keeper.put(raw.reference, raw.value);
                    }
                }
                _ if direct => apply.push(raw),
                _ => listing.changed.push(raw),
            }
        }
        self.put_all(apply).await;
    }

    async fn listed(&mut self, id: u64, at: Now) {
        let Some(followed) = self.streams.get_mut(&id) else { return };
        let Some(listing) = followed.listing.take() else { return };
        followed.complete = true;
        followed.relist = listing.relist;
        followed.heard = at;
        followed.proven = at;
        followed.unproven = None;
        followed.recover();
        let stream = followed.stream;
        self.put_all(listing.changed).await;
        match &mut self.world {
            Some(world) => {
                for object in world.vanished(stream, &listing.seen) {
                    world.remove(&object, Some(&self.parts.keeper));
                }
            }
            None => self.early.retain(|key, _| listing.seen.contains(key)),
        }
    }

    async fn put_all(&mut self, raws: Vec<Raw>) {
        for (count, raw) in (1_usize..).zip(raws) {
            self.put(raw);
            if count.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
        }
    }

    fn put(&mut self, raw: Raw) {
        if let Some(world) = &mut self.world {
            world.put(raw, Some(&self.parts.keeper));
        } else {
            self.early.insert(raw.key(), raw);
            self.found();
        }
    }

    /// Begins the world of the Mesh that our Relay names, once there is one.
    fn found(&mut self) {
        let key = (self.parts.namespace.to_string(), self.parts.relay.to_string());
        let Some(mesh) = self.early.get(&key).and_then(mesh_of) else { return };
        let home = ObjectKey { namespace: self.parts.namespace.clone(), name: mesh };
        let mut world = World::new(home, self.parts.relay.clone());
        self.parts.keeper.begin(world.head());
        self.written = Written::Anew(self.kick.borrow().relist);
        for raw in std::mem::take(&mut self.early).into_values() {
            world.put(raw, Some(&self.parts.keeper));
        }
        self.world = Some(world);
    }

    /// A clock was stepped, or somebody asks: a sign of life is wanted now.
    fn ask_again(&self) {
        self.kick.send_modify(Kick::again);
    }

    fn tick(&mut self, now: Now) {
        if self.clocks.moved(now) {
            tracing::info!("a clock was stepped or the process stood still; asking the API server");
            self.ask_again();
        }
        let rested = self.rewrote.is_none_or(|at| now.boot.since(at) >= REWRITE_AFTER);
        if let Some(world) = &self.world
            && rested
            && self.publisher.is_some()
            && self.parts.keeper.failed()
        {
            // No copy of the objects is in memory: they are asked for again.
            self.rewrote = Some(now.boot);
            self.parts.keeper.begin(world.head());
            self.kick.send_modify(|kick| kick.relist = kick.relist.wrapping_add(1));
            self.written = Written::Anew(self.kick.borrow().relist);
        }
        let mut oldest: BTreeMap<Kind, Now> = BTreeMap::new();
        for followed in self.streams.values() {
            let as_of = oldest.entry(followed.stream.kind).or_insert(now);
            *as_of = earlier(*as_of, followed.as_of());
        }
        for (kind, as_of) in oldest {
            self.parts.metrics.set_policy_watch_age(kind, age(as_of, now));
        }
    }
}

impl Followed {
    pub(super) fn as_of(&self) -> Now {
        earlier(self.heard, self.proven)
    }

    fn fail(&mut self, home: &str, trouble: Trouble) {
        if self.trouble.as_ref().is_none_or(|(_, before)| *before != trouble) {
            tracing::warn!("{}", status::trouble(self.stream, home, &trouble));
        }
        let since = self.trouble.take().map_or_else(clock::now, |(since, _)| since);
        self.trouble = Some((since, trouble));
    }

    fn recover(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("the {} can be read again", self.stream);
        }
    }
}

/// By each clock the earlier one: what is said of both holds of either.
pub(super) fn earlier(a: Now, b: Now) -> Now {
    Now { wall: a.wall.min(b.wall), boot: a.boot.min(b.boot) }
}

fn mesh_of(raw: &Raw) -> Option<Label> {
    match &raw.object {
        Ok(Object::Relay(relay)) => Label::parse(&relay.spec.mesh_ref.name).ok(),
        _ => None,
    }
}
