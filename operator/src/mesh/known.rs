//! All Meshes and namespaces, as the watches tell them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt as _};
use tidegate_crds::Mesh;
use tidegate_crds::compile::{Identity, labels, mesh as compile};
use tidegate_crds::index::{Remains, Tenants, goes};
use tidegate_crds::manifest::Kind;

use super::tenancy::{Candidate, full};
use crate::guarded::Unread;
use crate::watching::{Change, Key};

/// Objects of one kind, and whether all are known.
#[derive(Debug)]
pub struct Set<T> {
    objects: BTreeMap<Key, T>,
    /// Seen since the last list began.
    seen: Option<BTreeSet<Key>>,
    complete: bool,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), seen: None, complete: false }
    }
}

impl<T> Set<T> {
    /// Takes a change, keeping `what` of each object. What cannot be decoded is as if it were not there.
    pub fn take<K: Resource>(&mut self, change: Change<K>, what: impl FnOnce(K) -> T) {
        self.take_or(change, what, |_| None);
    }

    /// As [`Set::take`], keeping what `undecodable` gives of what cannot be decoded and is not being deleted.
    pub fn take_or<K: Resource>(
        &mut self,
        change: Change<K>,
        what: impl FnOnce(K) -> T,
        undecodable: impl FnOnce(Unread<K>) -> Option<T>,
    ) {
        match change {
            Change::Begin => self.seen = Some(BTreeSet::new()),
            Change::Put(object) => self.put(Key::of(&object), what(object)),
            Change::Undecodable { key, deleting, unread } => {
                match Some(*unread).filter(|_| !deleting).and_then(undecodable) {
                    Some(kept) => self.put(key, kept),
                    None => drop(self.objects.remove(&key)),
                }
            }
            Change::Gone(key) => {
                self.objects.remove(&key);
            }
            Change::Complete => {
                if let Some(seen) = self.seen.take() {
                    self.objects.retain(|key, _| seen.contains(key));
                }
                self.complete = true;
            }
        }
    }

    fn put(&mut self, key: Key, kept: T) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
        self.objects.insert(key, kept);
    }

    /// Whether there has been a whole list.
    pub fn complete(&self) -> bool {
        self.complete
    }

    pub fn objects(&self) -> &BTreeMap<Key, T> {
        &self.objects
    }
}

/// All Meshes and namespaces.
#[derive(Debug, Default)]
pub struct Known {
    /// Or what is left of one that cannot be decoded, to which nothing may be written.
    pub meshes: Set<Result<Mesh, Unread<Mesh>>>,
    namespaces: Set<Space>,
}

#[derive(Debug)]
struct Space {
    labels: BTreeMap<String, String>,
    /// It is being deleted.
    leaving: bool,
}

impl Known {
    pub fn complete(&self) -> bool {
        self.meshes.complete() && self.namespaces.complete()
    }

    pub fn mesh(&mut self, change: Change<Mesh>) {
        self.meshes.take_or(change, Ok, |unread| Some(Err(unread)));
    }

    pub fn namespace(&mut self, change: Change<PartialObjectMeta<Namespace>>) {
        self.namespaces.take(change, |namespace| {
            let metadata = &namespace.metadata;
            let leaving = goes(Kind::Namespace, metadata.deletion_timestamp.is_some());
            Space { labels: labels(metadata.labels.as_ref()), leaving }
        });
    }

    /// The Meshes as the judge sees them; one that is being deleted is not among them.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.meshes().filter_map(|(key, mesh)| Some(candidate(key, mesh.ok()?))).collect()
    }

    /// Whose each namespace is, by the rule that relays go by.
    pub fn tenants(&self) -> Tenants {
        self.tenants_where(|space| !space.leaving)
    }

    /// As if no namespace were being deleted.
    pub fn tenants_but_for_deletions(&self) -> Tenants {
        self.tenants_where(|_| true)
    }

    fn meshes(&self) -> impl Iterator<Item = (&Key, Result<&Mesh, &Remains>)> {
        let stays = |mesh: &Mesh| !goes(Kind::Mesh, mesh.metadata.deletion_timestamp.is_some());
        let all = self.meshes.objects().iter().map(move |(key, mesh)| (key, counting(mesh)));
        all.filter(move |(_, mesh)| mesh.map_or(true, stays))
    }

    fn tenants_where(&self, counts: impl Fn(&Space) -> bool) -> Tenants {
        let mut tenants = Tenants::default();
        for (key, space) in self.namespaces.objects().iter().filter(|(_, space)| counts(space)) {
            tenants.put_namespace(&key.name, &space.labels);
        }
        for (key, mesh) in self.meshes() {
            // A name that is no label is no Mesh's.
            let Some(full) = full(key) else { continue };
            match mesh {
                // What is wrong with it is the candidate's to tell.
                Ok(mesh) => drop(tenants.put_mesh(full, mesh)),
                Err(remains) => tenants.put_unreadable_mesh(full, remains),
            }
        }
        tenants
    }
}

/// A Mesh as far as it counts.
fn counting(mesh: &Result<Mesh, Unread<Mesh>>) -> Result<&Mesh, &Remains> {
    mesh.as_ref().or_else(|unread| unread.bare.as_ref().ok_or(&unread.remains))
}

fn candidate(key: &Key, mesh: &Mesh) -> Candidate {
    Candidate {
        key: key.clone(),
        uid: mesh.uid().unwrap_or_default(),
        created: mesh.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
        compiled: compile(mesh, &Identity::of(&mesh.metadata)),
    }
}
