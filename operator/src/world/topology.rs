//! Which Mesh serves which namespace, and one index for each Mesh. Pure.

use std::collections::BTreeMap;

use tidegate_crds::index::{Change, Index, Owner, Remains, Tenants};
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_policy::model::{Label, ObjectKey};

/// The Meshes, the namespaces, and what is in force in each Mesh.
#[derive(Debug, Default)]
pub struct Topology {
    /// Few, so they are kept as they are: a new Mesh's index is told of all.
    meshes: BTreeMap<ObjectRef, Result<Object, String>>,
    namespaces: BTreeMap<ObjectRef, Object>,
    tenants: Tenants,
    indexes: BTreeMap<ObjectKey, Index>,
    /// Whose each namespace is that has objects of ours.
    owners: BTreeMap<String, Owner>,
}

/// What a change of a Mesh or namespace comes to.
#[derive(Debug)]
pub enum Turn {
    /// No namespace with objects has another Mesh now; these may stand otherwise.
    Touched(Vec<ObjectRef>),
    /// Some have: all indexes are empty, and the objects have to be listed anew.
    Anew,
}

impl Topology {
    /// Takes a Mesh or Namespace as it is now; `None`: it is gone.
    pub fn put(&mut self, reference: &ObjectRef, object: Option<&Result<Object, String>>) -> Turn {
        match reference.kind {
            Kind::Namespace => self.put_namespace(reference, object),
            Kind::Mesh => self.put_mesh(reference, object),
            _ => return Turn::Touched(Vec::new()),
        }
        let now: Vec<_> =
            self.owners.keys().map(|name| (name.clone(), self.tenants.owner(name))).collect();
        let moved = now.iter().any(|(name, owner)| self.owners.get(name) != Some(owner));
        if moved {
            self.owners.extend(now);
            self.rebuild();
            return Turn::Anew;
        }
        let mut touched = Vec::new();
        for index in self.indexes.values_mut() {
            touched.extend(tell(index, reference, object).touched);
        }
        if reference.kind == Kind::Mesh && self.indexes.len() != self.meshes.len() {
            self.match_indexes();
        }
        Turn::Touched(touched)
    }

    fn put_namespace(&mut self, reference: &ObjectRef, object: Option<&Result<Object, String>>) {
        if let Some(Ok(namespace @ Object::Namespace { name, labels })) = object {
            self.tenants.put_namespace(name, labels);
            self.namespaces.insert(reference.clone(), namespace.clone());
        } else {
            self.tenants.remove_namespace(&reference.name);
            self.namespaces.remove(reference);
        }
    }

    fn put_mesh(&mut self, reference: &ObjectRef, object: Option<&Result<Object, String>>) {
        let Some(key) = key_of(reference) else { return };
        match object {
            None => {
                self.meshes.remove(reference);
                self.tenants.remove_mesh(&key);
            }
            Some(object) => {
                match object {
                    // Why it is refused is the Mesh controller's to say.
                    Ok(Object::Mesh(mesh)) => drop(self.tenants.put_mesh(key, mesh)),
                    _ => self.tenants.put_unreadable_mesh(key),
                }
                self.meshes.insert(reference.clone(), object.clone());
            }
        }
    }

    /// Empty indexes that know all Meshes and namespaces.
    fn rebuild(&mut self) {
        self.indexes.clear();
        self.match_indexes();
    }

    /// One index for each Mesh.
    fn match_indexes(&mut self) {
        let homes: Vec<ObjectKey> = self.meshes.keys().filter_map(key_of).collect();
        self.indexes.retain(|home, _| homes.contains(home));
        for home in homes {
            if self.indexes.contains_key(&home) {
                continue;
            }
            let mut index = Index::new(home.clone());
            index.trace(true);
            for namespace in self.namespaces.values() {
                let _ = index.put(namespace);
            }
            for (reference, mesh) in &self.meshes {
                let _ = tell(&mut index, reference, Some(mesh));
            }
            self.indexes.insert(home, index);
        }
    }

    /// Forgets all that is in force, for a new look at everything.
    pub fn clear(&mut self) {
        self.rebuild();
    }

    /// Whose a namespace is that has objects.
    pub fn owner(&mut self, namespace: &str) -> &Owner {
        if !self.owners.contains_key(namespace) {
            self.owners.insert(namespace.to_owned(), self.tenants.owner(namespace));
        }
        self.owners.get(namespace).unwrap_or(&Owner::Nobody)
    }

    /// The index of the Mesh that serves a namespace.
    pub fn index(&mut self, namespace: &str) -> Result<&mut Index, Owner> {
        let owner = self.owner(namespace).clone();
        let Owner::Mesh(home) = &owner else { return Err(owner) };
        self.indexes.get_mut(home).ok_or(owner)
    }

    /// As [`Topology::index`], of a namespace that was asked for before.
    pub fn served_by(&self, namespace: &str) -> Option<&Index> {
        match self.owners.get(namespace)? {
            Owner::Mesh(home) => self.indexes.get(home),
            _ => None,
        }
    }

    /// The Meshes and namespaces that are known, of one kind.
    pub fn known(&self, kind: Kind) -> Vec<ObjectRef> {
        match kind {
            Kind::Mesh => self.meshes.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

fn tell(
    index: &mut Index,
    reference: &ObjectRef,
    object: Option<&Result<Object, String>>,
) -> Change {
    match object {
        Some(Ok(object)) => index.put(object),
        Some(Err(error)) => index.put_unreadable(reference, error.as_str(), &Remains::default()),
        None => index.remove(reference),
    }
}

fn key_of(reference: &ObjectRef) -> Option<ObjectKey> {
    let namespace = Label::parse(&reference.namespace).ok()?;
    Some(ObjectKey { namespace, name: Label::parse(&reference.name).ok()? })
}
