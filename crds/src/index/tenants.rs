//! Which Mesh serves which namespace.
//!
//! A Mesh's own namespace is always its own. Any other belongs to the one Mesh whose selector matches its
//! labels; of several to the one that alone is Ready in its present generation, else to the one that alone
//! is Ready in whichever generation, else to none.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::model::ObjectKey;

use crate::Mesh;
use crate::compile::CompiledMesh;

/// The label that the API server puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// All Meshes and namespaces that are known.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    meshes: BTreeMap<ObjectKey, Known>,
    /// Labels of each namespace.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Debug)]
struct Known {
    /// `None`: its spec is refused. It serves nobody, but its namespace is no other Mesh's either.
    mesh: Option<CompiledMesh>,
    ready: Readiness,
}

/// What a Mesh's condition Ready says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Readiness {
    /// That it is not, or nothing.
    Not,
    /// That a former generation was: nobody has looked at the present one.
    Formerly,
    Now,
}

impl Readiness {
    pub fn of(mesh: &Mesh) -> Self {
        let conditions = mesh.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
        let generation = mesh.metadata.generation;
        let each = ready.map(|c| match c.observed_generation {
            Some(observed) if Some(observed) == generation => Self::Now,
            _ => Self::Formerly,
        });
        each.max().unwrap_or(Self::Not)
    }
}

impl From<bool> for Readiness {
    /// Whether it is in its present generation, where nothing is known of others.
    fn from(ready: bool) -> Self {
        if ready { Self::Now } else { Self::Not }
    }
}

/// Whose a namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    Mesh(ObjectKey),
    /// Several Meshes want it and not exactly one of them is Ready: they all, in the order of their names.
    Contested(Vec<ObjectKey>),
}

impl Tenants {
    /// Takes a Mesh: `None` where its spec is refused.
    pub fn put_mesh(
        &mut self,
        key: ObjectKey,
        mesh: Option<CompiledMesh>,
        ready: impl Into<Readiness>,
    ) {
        self.meshes.insert(key, Known { mesh, ready: ready.into() });
    }

    pub fn remove_mesh(&mut self, key: &ObjectKey) {
        self.meshes.remove(key);
    }

    pub fn put_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        let mut labels = labels.clone();
        labels.insert(NAME_LABEL.into(), name.into());
        self.namespaces.insert(name.into(), labels);
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// A Mesh whose spec is good.
    pub fn mesh(&self, key: &ObjectKey) -> Option<&CompiledMesh> {
        self.meshes.get(key)?.mesh.as_ref()
    }

    pub fn meshes(&self) -> impl Iterator<Item = &ObjectKey> {
        self.meshes.keys()
    }

    /// Every namespace that is known, or has a Mesh.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        let own = self.meshes.keys().map(|key| key.namespace.as_str());
        self.namespaces.keys().map(String::as_str).chain(own).collect()
    }

    pub fn knows(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Whose `namespace` is. One that is not known, and has no Mesh of its own, is nobody's: a selector
    /// might match what its labels turn out to be.
    pub fn owner(&self, namespace: &str) -> Owner {
        let own = || self.meshes.iter().filter(|(key, _)| key.namespace.as_str() == namespace);
        if own().next().is_some() {
            return decided(own().filter(|(_, known)| known.mesh.is_some()));
        }
        let Some(labels) = self.namespaces.get(namespace) else { return Owner::Nobody };
        decided(self.meshes.iter().filter(|(key, known)| {
            let tenants = known.mesh.as_ref().and_then(|mesh| mesh.tenants.as_ref());
            tenants.is_some_and(|selector| selector.matches(labels))
                // Of two Meshes in one namespace, one is in force at most.
                && self.owner(key.namespace.as_str()) == Owner::Mesh((*key).clone())
        }))
    }
}

fn decided<'a>(wanting: impl Iterator<Item = (&'a ObjectKey, &'a Known)>) -> Owner {
    let wanting: Vec<_> = wanting.collect();
    let only = |least: Readiness| {
        let mut ready = wanting.iter().filter(move |(_, known)| known.ready >= least);
        ready.next().filter(|_| ready.next().is_none())
    };
    let owner = [Readiness::Now, Readiness::Formerly, Readiness::Not].into_iter().find_map(only);
    match (wanting.as_slice(), owner) {
        ([], _) => Owner::Nobody,
        (_, Some((key, _))) => Owner::Mesh((*key).clone()),
        _ => Owner::Contested(wanting.iter().map(|(key, _)| (*key).clone()).collect()),
    }
}
