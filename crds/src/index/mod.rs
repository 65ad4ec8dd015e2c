//! STAND-IN until branch crds has it.
use crate::compile::{self, Identity, Refusal, RelaySettings};
use crate::manifest::{Object, ObjectRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_policy::snapshot::Snapshot;

pub struct Index {
    home: ObjectKey,
    objects: BTreeMap<ObjectRef, Object>,
    bad: BTreeMap<ObjectRef, Vec<Refusal>>,
}

#[derive(Default)]
pub struct Change {
    pub snapshot: bool,
    pub touched: Vec<ObjectRef>,
}

fn identity(meta: &ObjectMeta) -> Identity {
    Identity {
        uid: meta.uid.clone().unwrap_or_default().into(),
        generation: meta.generation.unwrap_or(1),
        created: meta.creation_timestamp.as_ref().map_or(jiff::Timestamp::UNIX_EPOCH, |t| t.0),
    }
}

impl Index {
    pub fn new(home: ObjectKey) -> Self {
        Self { home, objects: BTreeMap::new(), bad: BTreeMap::new() }
    }
    pub fn put(&mut self, object: &Object) -> Change {
        use crate::manifest::Kind;
        let (kind, meta) = match object {
            Object::Mesh(o) => (Kind::Mesh, o.metadata.clone()),
            Object::Relay(o) => (Kind::Relay, o.metadata.clone()),
            Object::LoginUser(o) => (Kind::LoginUser, o.metadata.clone()),
            Object::Terminal(o) => (Kind::Terminal, o.metadata.clone()),
            Object::SupportWindow(o) => (Kind::SupportWindow, o.metadata.clone()),
            Object::Namespace { .. } => return Change::default(),
        };
        let reference = ObjectRef {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        };
        let id = identity(&meta);
        let bad = match object {
            Object::Mesh(o) => compile::mesh(o, &id).err(),
            Object::Relay(o) => compile::relay(o).err(),
            Object::LoginUser(o) => compile::login_user(o, &id, &self.home.namespace).err(),
            Object::Terminal(o) => compile::terminal(o, &id).err(),
            Object::SupportWindow(o) => compile::window(o, &id).err(),
            Object::Namespace { .. } => None,
        };
        self.bad.remove(&reference);
        if let Some(bad) = bad {
            self.bad.insert(reference.clone(), bad);
        }
        self.objects.insert(reference.clone(), object.clone());
        Change { snapshot: true, touched: vec![reference] }
    }
    pub fn remove(&mut self, object: &ObjectRef) -> Change {
        self.bad.remove(object);
        Change { snapshot: self.objects.remove(object).is_some(), touched: vec![object.clone()] }
    }
    pub fn snapshot(&self) -> Option<Snapshot> {
        let mut mesh = None;
        for object in self.objects.values() {
            if let Object::Mesh(o) = object
                && o.metadata.name.as_deref() == Some(self.home.name.as_str())
            {
                mesh = compile::mesh(o, &identity(&o.metadata)).ok();
            }
        }
        let mut snapshot = Snapshot::new(mesh?.mesh);
        for object in self.objects.values() {
            match object {
                Object::LoginUser(o) => {
                    if let Ok(user) =
                        compile::login_user(o, &identity(&o.metadata), &self.home.namespace)
                    {
                        snapshot.put_user(user);
                    }
                }
                Object::Terminal(o) => {
                    if let Ok(terminal) = compile::terminal(o, &identity(&o.metadata)) {
                        snapshot.put_terminal(terminal);
                    }
                }
                Object::SupportWindow(o) => {
                    if let Ok(window) = compile::window(o, &identity(&o.metadata)) {
                        snapshot.put_window(window);
                    }
                }
                _ => {}
            }
        }
        Some(snapshot)
    }
    pub fn relay(&self, name: &Label) -> Option<Arc<RelaySettings>> {
        self.objects.values().find_map(|object| match object {
            Object::Relay(o) if o.metadata.name.as_deref() == Some(name.as_str()) => {
                compile::relay(o).ok().map(Arc::new)
            }
            _ => None,
        })
    }
    pub fn refusals(&self, object: &ObjectRef) -> Vec<Refusal> {
        self.bad.get(object).cloned().unwrap_or_default()
    }
}
