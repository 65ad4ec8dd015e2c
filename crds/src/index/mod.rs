//! One Mesh's policy from an API server's objects, one object at a time.
//!
//! Pure and incremental: each object is compiled at once and only what it compiled to is kept. The order
//! of puts and removes never matters: what is in force depends on the objects as they are now. A changed
//! window costs the logarithm of the number of windows; a changed user or terminal that, and a look at
//! those that want one of its values.
//!
//! Uniqueness in the mesh (names of terminals, keys, listen ports) needs a word on who was first, which
//! only the operator gives: where two want one value, the one that is `Accepted` in its present
//! generation has it; while none is, the one that holds it by its status, so that an edit which nobody
//! has looked at yet loses nothing; else neither. The other is wholly out of force. What does not compile
//! is out of force and keeps what its status holds: its values are free once it is gone, or wants others.
//! So does what cannot even be decoded, as far as its status can be read by itself.
//! [`Index::acceptance`] is what the operator gives that word by, [`Index::holds_once`] what it lets a
//! status hold.
//!
//! Tenancy (invariant 1, DESIGN "Who and what"): an object counts only in a namespace that this Mesh
//! serves, and references never cross namespaces.

mod apply;
mod holds;
mod rivals;
mod tenants;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_policy::model::{self, Label, ObjectKey, Window};
use tidegate_policy::snapshot::Snapshot;

use crate::claims::{self, Acceptance, Candidate, Claim};
use crate::compile::{CompiledMesh, Refusal, RelaySettings};
use crate::manifest::ObjectRef;
pub use holds::{Remains, goes};
use jiff::Timestamp;
use rivals::Rivals;
pub use tenants::{Held, Owner, Readiness, Tenants};
pub use verdict::Verdict;

/// The objects of one Mesh, compiled.
#[derive(Clone, Debug)]
pub struct Index {
    home: ObjectKey,
    tenants: Tenants,
    /// Namespaces that are this Mesh's now.
    served: BTreeSet<String>,
    /// Valid users and terminals, and those that are not but hold something, wherever they are.
    claimants: BTreeMap<Arc<ObjectRef>, Claimant>,
    /// Of those in served namespaces.
    rivals: Rivals,
    /// Valid windows of namespaces that are not served. Those of served ones are in the snapshot.
    elsewhere: BTreeMap<ObjectKey, Arc<Window>>,
    /// Valid Relays of the Mesh's namespace, of whichever Mesh.
    relays: BTreeMap<Label, Arc<RelaySettings>>,
    /// Why objects do not compile. A good object is not here.
    refused: BTreeMap<ObjectRef, Arc<[Refusal]>>,
    /// What is in force, under a Mesh that may be none.
    snapshot: Snapshot,
    /// The Mesh of `snapshot`; `None`: it is not there, not valid, or not the one of its namespace.
    mesh: Option<CompiledMesh>,
    tracing: bool,
}

/// A user or terminal that only one may have something of.
#[derive(Clone, Debug)]
struct Claimant {
    /// `None`: it is not valid, and in force nowhere.
    policy: Option<Policy>,
    created: Timestamp,
    /// Of one that is not valid: what it holds.
    wants: Box<[Claim]>,
    /// By its status.
    holds: Box<[Claim]>,
    /// In its present generation.
    accepted: bool,
}

#[derive(Clone, Debug)]
enum Policy {
    User(Arc<model::LoginUser>),
    Terminal(Arc<model::Terminal>),
}

impl Policy {
    fn meta(&self) -> &model::Meta {
        match self {
            Self::User(user) => &user.meta,
            Self::Terminal(terminal) => &terminal.meta,
        }
    }
}

/// What a change of one object changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Change {
    /// Whether what `decide` reads is different.
    pub snapshot: bool,
    /// Whether the settings of a Relay are.
    pub relays: bool,
    /// Objects whose verdict may be another: the object itself, and those that want a value that it
    /// wants or wanted.
    pub touched: Vec<ObjectRef>,
    /// Windows that name or select a user or terminal that came into force, changed or went. Empty unless
    /// [`Index::trace`] asks for them.
    pub windows: Vec<ObjectRef>,
}

impl Change {
    /// Both changes, each object once.
    pub fn and(mut self, other: Self) -> Self {
        self.snapshot |= other.snapshot;
        self.relays |= other.relays;
        self.touched.extend(other.touched);
        self.windows.extend(other.windows);
        self.tidy()
    }

    fn tidy(mut self) -> Self {
        for list in [&mut self.touched, &mut self.windows] {
            list.sort();
            list.dedup();
        }
        self
    }
}

impl Index {
    /// An empty index of the Mesh `home`.
    pub fn new(home: ObjectKey) -> Self {
        let placeholder = model::Mesh {
            meta: model::Meta {
                key: home.clone(),
                uid: "".into(),
                generation: 0,
                created: jiff::Timestamp::UNIX_EPOCH,
            },
            domain: "".into(),
            max_policy_age: jiff::SignedDuration::ZERO,
            session_retention: jiff::SignedDuration::ZERO,
            host_keys: model::HostKeys::default(),
        };
        Self {
            home,
            tenants: Tenants::default(),
            served: BTreeSet::new(),
            claimants: BTreeMap::new(),
            rivals: Rivals::default(),
            elsewhere: BTreeMap::new(),
            relays: BTreeMap::new(),
            refused: BTreeMap::new(),
            snapshot: Snapshot::new(placeholder),
            mesh: None,
            tracing: false,
        }
    }

    /// Whether changes name the windows that refer to what changed. That costs a look at every such
    /// window, so it is off at first.
    pub fn trace(&mut self, on: bool) {
        self.tracing = on;
    }

    /// The Mesh, by its object.
    pub fn home(&self) -> &ObjectKey {
        &self.home
    }

    /// The Mesh, as far as it is in force.
    pub fn mesh(&self) -> Option<&CompiledMesh> {
        self.mesh.as_ref()
    }

    /// What is in force; `None`: no Mesh is, so nobody is admitted. Cheap.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.mesh.as_ref().map(|_| self.snapshot.clone())
    }

    /// A valid Relay of this Mesh.
    pub fn relay(&self, name: &Label) -> Option<Arc<RelaySettings>> {
        self.relays.get(name).filter(|relay| relay.mesh == self.home.name).cloned()
    }

    /// The valid Relays of this Mesh, by name.
    pub fn relays(&self) -> impl Iterator<Item = &Arc<RelaySettings>> {
        self.relays.values().filter(|relay| relay.mesh == self.home.name)
    }

    /// A valid window, in force or not.
    pub fn window(&self, key: &ObjectKey) -> Option<&Arc<Window>> {
        self.snapshot.window(key).or_else(|| self.elsewhere.get(key))
    }

    /// Why an object does not compile; empty if it does, or is not there.
    pub fn refusals(&self, object: &ObjectRef) -> &[Refusal] {
        self.refused.get(object).map_or(&[], |refusals| refusals)
    }

    /// All objects that do not compile.
    pub fn refused(&self) -> impl Iterator<Item = (&ObjectRef, &[Refusal])> {
        self.refused.iter().map(|(object, refusals)| (object, &**refusals))
    }

    /// The names, keys and ports that a valid user or terminal wants for itself.
    pub fn wants(&self, object: &ObjectRef) -> &[Claim] {
        let valid = self.claimants.get(object).filter(|claimant| claimant.policy.is_some());
        valid.map_or(&[], |claimant| &claimant.wants)
    }

    /// Those that it has by its status.
    pub fn holds(&self, object: &ObjectRef) -> &[Claim] {
        self.claimants.get(object).map_or(&[], |claimant| &claimant.holds)
    }

    /// Which Mesh serves which namespace.
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// Whether a namespace is this Mesh's.
    pub fn serves(&self, namespace: &str) -> bool {
        self.served.contains(namespace)
    }

    /// The namespaces that are this Mesh's.
    pub fn served(&self) -> impl Iterator<Item = &str> {
        self.served.iter().map(String::as_str)
    }

    /// Who is to be accepted of `object` and all with whom it contends, directly or through others, by
    /// what their statuses say that they hold and what their specs want. One that is not valid gets no
    /// outcome, but keeps what it holds from the others. Empty if `object` is no user or terminal of a
    /// served namespace that wants or holds something. Once each has its outcome in its status, exactly
    /// the accepted ones are in force.
    pub fn acceptance(&self, object: &ObjectRef) -> Vec<(ObjectRef, Acceptance)> {
        let Some((first, _)) = self.claimants.get_key_value(object) else { return Vec::new() };
        if !self.serves(&object.namespace) {
            return Vec::new();
        }
        let wants = |object: &ObjectRef| -> &[Claim] {
            self.claimants.get(object).map_or(&[], |claimant| &claimant.wants)
        };
        let mut group = BTreeSet::from([first]);
        let mut left = vec![first];
        while let Some(next) = left.pop() {
            for other in self.rivals.wanting(wants(next)) {
                if group.insert(other) {
                    left.push(other);
                }
            }
        }
        // What a status says of values that were another's since is no longer so.
        let kept: Vec<(&ObjectRef, Vec<Claim>)> = group
            .iter()
            .map(|object| {
                let own = wants(object).iter().filter(|claim| self.rivals.keeps(claim, object));
                (&***object, own.cloned().collect())
            })
            .collect();
        let candidates: Vec<_> = kept
            .iter()
            .filter_map(|(object, kept)| {
                let Claimant { policy, created, wants, .. } = self.claimants.get(*object)?;
                let wants = if policy.is_some() { wants } else { kept.as_slice() };
                Some(Candidate { object, created: *created, holds: kept, wants })
            })
            .collect();
        let outcomes = claims::accept(&candidates);
        let all = candidates.iter().map(|candidate| candidate.object.clone()).zip(outcomes);
        let valid =
            |object: &ObjectRef| self.claimants.get(object).is_some_and(|own| own.policy.is_some());
        all.filter(|(object, _)| valid(object)).collect()
    }
}
