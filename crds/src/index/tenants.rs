//! Which Mesh serves which namespace.
//!
//! A Mesh's own namespace is always its own. Any other belongs to the one Mesh whose selector matches its
//! labels; of several to the one that alone is Ready in its present generation, else to the one that alone
//! is Ready in whichever generation, and so on by [`Readiness`], else to none.
//!
//! Relays and operator go by this alone, so that they agree at every instant. What the operator says of a
//! Mesh is a word on who is to be Ready; whose a namespace is hangs on that word once it is written.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::model::ObjectKey;

use crate::Mesh;
use crate::compile::{self, CompiledMesh, Identity, Refusal};
use crate::mesh::{NAMESPACE_TAKEN, key_fault};

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

/// What a Mesh's condition Ready says of its right to its namespaces. A Mesh that is not Ready for the sake
/// of its keys alone has that right: no other Mesh is in its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Readiness {
    /// That it has none, or nothing.
    Not,
    /// That its own namespace is its own, and another Mesh has one that it selects.
    Partly,
    /// That a former generation had: nobody has looked at the present one.
    Formerly,
    Now,
}

impl Readiness {
    pub fn of(mesh: &Mesh) -> Self {
        let conditions = mesh.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.filter(|c| c.type_ == "Ready");
        let generation = mesh.metadata.generation;
        let each = ready.map(|c| {
            if c.status == "True" || key_fault::ALL.contains(&c.reason.as_str()) {
                let now = c.observed_generation.is_some() && c.observed_generation == generation;
                if now { Self::Now } else { Self::Formerly }
            } else if c.reason == NAMESPACE_TAKEN {
                Self::Partly
            } else {
                Self::Not
            }
        });
        each.max().unwrap_or(Self::Not)
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
    /// Takes a Mesh as it is now.
    ///
    /// # Errors
    /// Why its spec is refused. Such a Mesh serves nobody, but it is there.
    pub fn put_mesh(&mut self, key: ObjectKey, mesh: &Mesh) -> Result<(), Vec<Refusal>> {
        let (compiled, refusals) = match compile::mesh(mesh, &Identity::of(&mesh.metadata)) {
            Ok(compiled) => (Some(compiled), Ok(())),
            Err(refusals) => (None, Err(refusals)),
        };
        self.meshes.insert(key, Known { mesh: compiled, ready: Readiness::of(mesh) });
        refusals
    }

    /// Takes a Mesh that cannot even be decoded: it serves nobody, but it is there.
    pub fn put_unreadable_mesh(&mut self, key: ObjectKey) {
        self.meshes.insert(key, Known { mesh: None, ready: Readiness::Not });
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

    /// What a Mesh's status says; of one that is not there, nothing.
    pub fn readiness(&self, key: &ObjectKey) -> Readiness {
        self.meshes.get(key).map_or(Readiness::Not, |known| known.ready)
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

    /// The namespaces that a Mesh wants beside its own, whosever they are. Another Mesh's own is none.
    pub fn wanted(&self, key: &ObjectKey) -> impl Iterator<Item = &str> {
        let selector = self.mesh(key).and_then(|mesh| mesh.tenants.as_ref());
        let selected = self.namespaces.iter().filter(move |(name, labels)| {
            selector.is_some_and(|selector| selector.matches(labels)) && !self.is_home(name)
        });
        selected.map(|(name, _)| name.as_str())
    }

    /// Whether a namespace has a Mesh, good or bad.
    fn is_home(&self, namespace: &str) -> bool {
        self.meshes.keys().any(|key| key.namespace.as_str() == namespace)
    }

    /// Whose `namespace` is. One that is not known, and has no Mesh of its own, is nobody's: a selector
    /// might match what its labels turn out to be.
    pub fn owner(&self, namespace: &str) -> Owner {
        if self.is_home(namespace) {
            let own = self.meshes.iter().filter(|(key, _)| key.namespace.as_str() == namespace);
            return decided(own.filter(|(_, known)| known.mesh.is_some()));
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
    let levels = [Readiness::Now, Readiness::Formerly, Readiness::Partly, Readiness::Not];
    let owner = levels.into_iter().find_map(only);
    match (wanting.as_slice(), owner) {
        ([], _) => Owner::Nobody,
        (_, Some((key, _))) => Owner::Mesh((*key).clone()),
        _ => Owner::Contested(wanting.iter().map(|(key, _)| (*key).clone()).collect()),
    }
}
