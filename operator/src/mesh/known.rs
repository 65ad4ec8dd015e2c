//! All Meshes and namespaces, as the watches tell them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use tidegate_crds::Mesh;
use tidegate_crds::compile::{Identity, labels, mesh as compile};

use super::tenancy::Candidate;
use super::update_status::condition;
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
    pub fn take<K>(&mut self, change: Change<K>, what: impl FnOnce(K) -> T)
    where
        K: kube::Resource,
    {
        match change {
            Change::Begin => self.seen = Some(BTreeSet::new()),
            Change::Put(object) => {
                let key = Key::of(&object);
                if let Some(seen) = &mut self.seen {
                    seen.insert(key.clone());
                }
                self.objects.insert(key, what(object));
            }
            Change::Gone(key) | Change::Undecodable(key) => {
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
    pub meshes: Set<Mesh>,
    /// Their labels.
    pub namespaces: Set<BTreeMap<String, String>>,
}

impl Known {
    pub fn complete(&self) -> bool {
        self.meshes.complete() && self.namespaces.complete()
    }

    pub fn mesh(&mut self, change: Change<Mesh>) {
        self.meshes.take(change, |mesh| mesh);
    }

    pub fn namespace(&mut self, change: Change<PartialObjectMeta<Namespace>>) {
        self.namespaces.take(change, |namespace| labels(namespace.metadata.labels.as_ref()));
    }

    /// The Meshes as the judge sees them; one that is being deleted is not among them.
    pub fn candidates(&self) -> Vec<Candidate> {
        let there = self.meshes.objects().iter();
        there
            .filter(|(_, mesh)| mesh.metadata.deletion_timestamp.is_none())
            .map(|(key, mesh)| candidate(key, mesh))
            .collect()
    }

    /// The namespaces' labels by their names.
    pub fn labels(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let all = self.namespaces.objects().iter();
        all.map(|(key, labels)| (key.name.clone(), labels.clone())).collect()
    }
}

fn candidate(key: &Key, mesh: &Mesh) -> Candidate {
    let created = mesh.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
    let uid = mesh.uid().unwrap_or_default();
    let generation = mesh.metadata.generation.unwrap_or_default();
    let identity = Identity { uid: Arc::from(uid.as_str()), generation, created };
    let ready = condition(mesh.status.as_ref());
    Candidate {
        key: key.clone(),
        created,
        compiled: compile(mesh, &identity),
        ready: ready.is_some_and(|ready| {
            ready.status == "True" && ready.observed_generation == Some(generation)
        }),
        uid,
    }
}
