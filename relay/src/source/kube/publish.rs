//! What comes of the world: the policy on the feed, the sentences of the admin port, the journal's
//! commits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_crds::manifest::Finding;
use tidegate_policy::snapshot::Snapshot;
use tokio::sync::{oneshot, watch};

use super::follow::{End, Followed, Follower, Written, earlier};
use super::journal::Commit;
use super::reflect::Kick;
use super::status;
use crate::clock::Now;
use crate::source::remember::Instant;
use crate::source::{Policy, Unreadable, about, age};

/// How long a first look at the API server may take before the policy of before is in force.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long a connection may be broken before that is a finding.
const LASTING: Duration = Duration::from_secs(5);
/// Between changes, that policy was seen is written down this often.
const SEEN_EVERY: Duration = Duration::from_secs(10);

impl Follower {
    /// Publishes and keeps what has changed; `Some`: it is over.
    pub(super) fn settle(&mut self, now: Now) -> Option<End> {
        self.adjust();
        self.ever_complete = self.ever_complete || self.complete();
        let unwanted = match &self.publisher {
            Some(publisher) => publisher.is_closed(),
            None => self.first.as_ref().is_none_or(oneshot::Sender::is_closed),
        };
        if unwanted {
            return Some(End::Unwanted);
        }
        if !self.still_ours() {
            return Some(End::AnotherMesh);
        }
        match self.publisher {
            None => self.publish_first(now),
            Some(_) => self.publish(now),
        }
        self.report(now);
        self.commit();
        None
    }

    /// Whether the Relay still belongs to the Mesh of this process.
    fn still_ours(&self) -> bool {
        let Some(world) = self.world.as_ref().filter(|world| world.foreign()) else { return true };
        tracing::error!(
            was = %world.home(),
            "the Relay belongs to another Mesh now; the relay ends, to begin anew"
        );
        // Best effort: the next process looks for the same Mesh otherwise, and ends again.
        let _ = std::fs::remove_file(&self.parts.journal);
        false
    }

    pub(super) fn complete(&self) -> bool {
        let complete = self.streams.values().filter(|it| it.complete).map(|it| it.stream);
        self.world.is_some() && self.wanted().is_subset(&complete.collect())
    }

    /// The policy's age is that of the stream of which least is known.
    fn as_of(&self, now: Now) -> Now {
        self.streams.values().map(Followed::as_of).reduce(earlier).unwrap_or(now)
    }

    fn publish_first(&mut self, now: Now) {
        let waited = now.boot.since(self.began.boot) >= FIRST_LOOK
            || self.streams.values().any(|followed| followed.trouble.is_some());
        let makeshift = self.restored.is_some() && waited;
        if !(self.complete() || makeshift) {
            return;
        }
        let Some(world) = &mut self.world else { return };
        let (Some(snapshot), Some(relay)) = (world.index().snapshot(), world.relay()) else {
            return;
        };
        self.uncommitted |= world.take_changed().kept;
        let mut findings = world.findings();
        findings.splice(0..0, self.own.iter().cloned().map(about));
        let as_of = self.as_of(now);
        let policy = Policy {
            serial: 1,
            snapshot: Arc::new(snapshot),
            relay,
            findings: findings.into(),
            as_of,
            unreadable: self.unreadable(now),
            kept: Arc::default(),
        };
        if !self.complete() {
            let old = age(as_of, now);
            tracing::warn!(age = ?old, "policy is that of before, until the API server can be read");
        }
        if self.lasting.admits_up_to(policy.most()) {
            self.kick.send_modify(Kick::again);
        }
        self.told.tell(&policy);
        let (publisher, feed) = watch::channel(Arc::new(policy.clone()));
        self.policy = Some(policy);
        self.publisher = Some(publisher);
        self.first.take().map(|first| first.send(feed));
    }

    fn publish(&mut self, now: Now) {
        let as_of = self.as_of(now);
        let unreadable = self.unreadable(now);
        let (Some(world), Some(policy), Some(publisher)) =
            (&mut self.world, &mut self.policy, &self.publisher)
        else {
            return;
        };
        let changed = world.take_changed();
        self.uncommitted |= changed.kept;
        let own_changed = policy.unreadable != unreadable;
        policy.as_of = as_of;
        policy.unreadable = unreadable;
        if changed.policy {
            let mut own = Vec::new();
            let snapshot = world.index().snapshot().unwrap_or_else(|| {
                // Nobody is let in, and every session is cut.
                own.push(status::no_mesh(
                    self.parts.namespace.as_str(),
                    world.home().name.as_str(),
                ));
                Snapshot::new(policy.snapshot.mesh().clone())
            });
            policy.snapshot = Arc::new(snapshot);
            match world.relay() {
                Some(relay) => policy.relay = relay,
                None => own.push(format!(
                    "{}; the settings of before stay in force",
                    status::no_relay(self.parts.namespace.as_str(), self.parts.relay.as_str())
                )),
            }
            if self.lasting.admits_up_to(policy.most()) {
                self.kick.send_modify(Kick::again);
            }
            self.own = own;
        }
        let wake = changed.policy || changed.findings || own_changed;
        if changed.findings || own_changed || changed.policy && !self.own.is_empty() {
            let source = policy.unreadable.iter().map(|unreadable| unreadable.why.clone());
            let mut findings: Vec<Finding> =
                source.chain(self.own.iter().cloned()).map(about).collect();
            findings.append(&mut world.findings());
            policy.findings = findings.into();
        }
        policy.serial += u64::from(wake);
        let publish = Arc::new(policy.clone());
        publisher.send_if_modified(|published| {
            *published = publish;
            wake
        });
        if changed.findings || own_changed {
            self.told.tell(policy);
        }
    }

    /// What has kept the source from being read for a while, the gravest first.
    fn unreadable(&self, now: Now) -> Option<Unreadable> {
        let home = self.parts.namespace.as_str();
        let lasting = |since: &Now| now.boot.since(since.boot) >= LASTING;
        let troubles = self.streams.values().filter_map(|followed| {
            let (since, trouble) = followed.trouble.as_ref()?;
            let tell = trouble.denies() || lasting(since);
            tell.then(|| Unreadable {
                since: *since,
                why: status::trouble(followed.stream, home, trouble),
            })
        });
        // Where a watch is broken, that is what is wrong: the API server may not even answer.
        let answered = self.streams.values().filter(|followed| followed.trouble.is_none());
        let unproven = answered.filter_map(|followed| {
            let (since, trouble) = followed.unproven.as_ref()?;
            lasting(since).then(|| Unreadable {
                since: *since,
                why: status::unproven(followed.stream, trouble),
            })
        });
        let found = troubles.chain(unproven).min_by_key(|found| found.since.boot)?;
        // The same one for as long as it lasts.
        let before = self.policy.as_ref().and_then(|policy| policy.unreadable.as_ref());
        let same = before.filter(|before| before.since == found.since);
        Some(same.cloned().unwrap_or(found))
    }

    /// Says why the policy is not complete.
    fn report(&self, now: Now) {
        let home = self.parts.namespace.as_str();
        let published = self.publisher.is_some();
        let troubles = self.streams.values().filter_map(|followed| {
            let (_, trouble) = followed.trouble.as_ref()?;
            // Without a connection policy grows old, which is told when it is.
            let tell = trouble.denies() || !published;
            tell.then(|| status::trouble(followed.stream, home, trouble))
        });
        let mut reasons: Vec<String> = troubles.collect::<BTreeSet<_>>().into_iter().collect();
        if !published && reasons.is_empty() {
            let done = self.streams.values().filter(|followed| followed.complete).count();
            let relay = self.parts.relay.as_str();
            reasons.push(match &self.world {
                _ if done < self.wanted().len() => status::reading(done, self.wanted().len()),
                Some(world) if world.relay().is_some() => {
                    status::no_mesh(home, world.home().name.as_str())
                }
                _ => status::no_relay(home, relay),
            });
        }
        if self.parts.status.set(reasons.clone()) {
            let waited = now.boot.since(self.began.boot).as_secs();
            for reason in reasons {
                tracing::info!(waited, "not ready: {reason}");
            }
        }
    }

    /// Has what is in force be kept for a restart, without waiting for it.
    fn commit(&mut self) {
        let Some(policy) = &self.policy else { return };
        if let Written::Anew(relist) = self.written {
            let whole = |followed: &Followed| followed.complete && followed.relist >= relist;
            if !self.complete() || !self.streams.values().all(whole) {
                return;
            }
            self.written = Written::Whole;
            self.committed = None;
        }
        if self.written != Written::Whole {
            return;
        }
        let due = self.committed.is_none_or(|at| {
            policy.as_of.boot.since(at.boot) >= SEEN_EVERY || policy.as_of.wall < at.wall
        });
        if due || self.uncommitted {
            self.uncommitted = false;
            self.committed = Some(policy.as_of);
            let as_of = Instant::of(policy.as_of, self.parts.boot_id.as_deref());
            self.parts.keeper.commit(Commit { as_of });
        }
    }
}
