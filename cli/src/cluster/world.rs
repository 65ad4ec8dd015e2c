//! One Mesh as a cluster holds it, compiled as its relays compile it.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_commands::{Known, Place};
use tidegate_crds::index::{Index, Owner, Verdict};
use tidegate_crds::manifest::{Kind, Object, ObjectRef};
use tidegate_crds::mesh::TenantsFrom;
use tidegate_policy::model::ObjectKey;

use super::choose::{self, Asked, choose};
use super::{Cluster, Kindred, Trouble};

/// What of the Mesh a question needs, beside the Mesh and its Relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub users: bool,
    pub terminals: bool,
    /// Terminals of this name alone.
    pub named: Option<&'a str>,
    pub windows: bool,
}

impl Wanted<'_> {
    /// Everything that `decide` reads.
    pub const ALL: Wanted<'static> =
        Wanted { users: true, terminals: true, named: None, windows: true };
    pub const RELAYS: Wanted<'static> =
        Wanted { users: false, terminals: false, named: None, windows: false };
}

/// A mesh, and what only its cluster knows of it.
#[derive(Clone, Debug)]
pub struct World {
    pub known: Known,
    pub mesh: ObjectKey,
    /// The public host keys of the Mesh's relays, as its status has them.
    pub host_keys: Vec<String>,
    /// The one namespace of the mesh; `None`: it selects its tenants, so that any may be one.
    pub scope: Option<String>,
    /// The namespaces that are the mesh's, where `scope` is `None`.
    pub served: Vec<String>,
}

/// The Meshes that may be seen, and what namespaces are called where one selects them.
struct Meshes {
    objects: Vec<Object>,
    keys: Vec<ObjectKey>,
    namespaces: Option<Vec<Object>>,
}

impl Cluster {
    /// Reads the Mesh that is meant, and what is wanted of it.
    pub async fn world(&self, wanted: Wanted<'_>) -> Result<World, Trouble> {
        let mut unread = Unread::default();
        let meshes = self.meshes(&mut unread).await?;
        let home = self.choose(&meshes)?;
        let mut index = Index::new(home.clone());
        let mut selects = false;
        let mut host_keys = Vec::new();
        for object in meshes.objects.iter().chain(meshes.namespaces.iter().flatten()) {
            let _ = index.put(object);
            if let Object::Mesh(mesh) = object
                && object.reference() == reference(Kind::Mesh, &home)
            {
                let tenants = mesh.spec.tenants.as_ref();
                selects = tenants.is_some_and(|tenants| tenants.from == TenantsFrom::Selector);
                host_keys =
                    mesh.status.as_ref().map(|status| status.host_keys.clone()).unwrap_or_default();
            }
        }
        let own = home.namespace.as_str();
        let scope = (!selects).then_some(own);
        let mut read = vec![(Kind::Relay, Some(own), None)];
        if wanted.users {
            read.push((Kind::LoginUser, scope, None));
        }
        let named = wanted.named.map(|name| format!("metadata.name={name}"));
        if wanted.terminals || named.is_some() {
            read.push((Kind::Terminal, scope, named.as_deref()));
        }
        if wanted.windows {
            read.push((Kind::SupportWindow, scope, None));
        }
        let mut claimants = Vec::new();
        for (kind, namespace, fields) in read {
            let take = |value| {
                let Some(object) = unread.decode(kind, &value) else { return };
                if matches!(kind, Kind::LoginUser | Kind::Terminal) {
                    claimants.push(object.reference());
                }
                let _ = index.put(&object);
            };
            self.each(Kindred::Own(kind), namespace, fields, take).await?;
        }
        claimants.sort();
        claimants.dedup();
        let Some(snapshot) = index.snapshot() else {
            let why = why(&index.verdict(&reference(Kind::Mesh, &home)));
            return Err(Trouble::new(format_args!("mesh {home} is not in force: {why}")));
        };
        let place = Place::Mesh { namespace: own.to_owned(), name: home.name.to_string() };
        let warning = warning(&index, &claimants, &unread, &place);
        let relays = index.relays().map(|relay| (**relay).clone()).collect();
        Ok(World {
            known: Known { snapshot, relays, place, warning },
            host_keys,
            scope: scope.map(ToOwned::to_owned),
            served: index.served().map(ToOwned::to_owned).collect(),
            mesh: home,
        })
    }

    /// All Meshes; where only some namespaces may be read, those of the namespace that is meant.
    async fn meshes(&self, unread: &mut Unread) -> Result<Meshes, Trouble> {
        let mut objects = BTreeMap::new();
        let mut take = |value: Value| {
            if let Some(object) = unread.decode(Kind::Mesh, &value) {
                objects.insert(object.reference(), object);
            }
        };
        let kind = Kindred::Own(Kind::Mesh);
        match self.each(kind, None, None, &mut take).await {
            Err(trouble) if trouble.forbidden => {
                let named = self.mesh.as_deref().and_then(|mesh| mesh.split_once('/'));
                let near = named.map_or(self.namespace.as_str(), |(namespace, _)| namespace);
                self.each(kind, Some(near), None, &mut take).await?;
            }
            other => other?,
        }
        let keys: Vec<_> =
            objects.keys().filter_map(|o: &ObjectRef| choose::key(&o.namespace, &o.name)).collect();
        let selects = objects.values().any(|object| match object {
            Object::Mesh(mesh) => mesh
                .spec
                .tenants
                .as_ref()
                .is_some_and(|tenants| tenants.from == TenantsFrom::Selector),
            _ => false,
        });
        let namespaces = if selects { Some(self.namespaces().await?) } else { None };
        Ok(Meshes { objects: objects.into_values().collect(), keys, namespaces })
    }

    async fn namespaces(&self) -> Result<Vec<Object>, Trouble> {
        let mut all = Vec::new();
        let take = |value: Value| all.extend(Object::decode(Kind::Namespace, &value));
        self.each(Kindred::Own(Kind::Namespace), None, None, take).await?;
        Ok(all)
    }

    fn choose(&self, meshes: &Meshes) -> Result<ObjectKey, Trouble> {
        // Who serves which namespace does not depend on the home that an index is of.
        let index = meshes.keys.first().map(|first| {
            let mut index = Index::new(first.clone());
            for object in meshes.objects.iter().chain(meshes.namespaces.iter().flatten()) {
                let _ = index.put(object);
            }
            index
        });
        let serves = |mesh: &ObjectKey, namespace: &str| {
            let owner = index.as_ref().map(|index| index.tenants().owner(namespace));
            matches!(owner, Some(Owner::Mesh(owner)) if owner == *mesh)
        };
        let asked = Asked { mesh: self.mesh.as_deref(), namespace: &self.namespace };
        choose(&meshes.keys, asked, serves)
    }
}

fn reference(kind: Kind, key: &ObjectKey) -> ObjectRef {
    ObjectRef { kind, namespace: key.namespace.to_string(), name: key.name.to_string() }
}

/// Objects that this program does not understand, though the API server has them.
#[derive(Default)]
struct Unread {
    count: usize,
    first: Option<String>,
}

impl Unread {
    fn decode(&mut self, kind: Kind, value: &Value) -> Option<Object> {
        match Object::decode_served(kind, value) {
            Ok(object) => Some(object),
            Err(error) => {
                self.count += 1;
                self.first.get_or_insert_with(|| {
                    let text = |field| {
                        value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str)
                    };
                    let namespace = text("namespace").unwrap_or_default();
                    let name = text("name").unwrap_or_default();
                    format!("{kind} {namespace}/{name} (cannot be read: {error})")
                });
                None
            }
        }
    }
}

/// Why an object is not in force.
fn why(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Invalid(refusals) => {
            refusals.first().map_or_else(|| "it is not valid".to_owned(), ToString::to_string)
        }
        Verdict::NotServed(sentence) => sentence.clone(),
        Verdict::Contested { claim, with, .. } => {
            let with: Vec<String> = with.iter().take(3).map(ToString::to_string).collect();
            format!("{claim} is also wanted by {}", with.join(", "))
        }
        Verdict::Unknown | Verdict::InForce | Verdict::Unresolved(_) => {
            "it is not there".to_owned()
        }
    }
}

/// A sentence for stderr where objects of the mesh are not in force; empty where all are.
fn warning(index: &Index, claimants: &[ObjectRef], unread: &Unread, place: &Place) -> String {
    let contested = claimants.iter().filter_map(|object| match index.verdict(object) {
        verdict @ Verdict::Contested { .. } => Some(format!("{object} ({})", why(&verdict))),
        _ => None,
    });
    let refused = index.refused().filter(|(object, _)| index.serves(&object.namespace));
    let refused = refused.map(|(object, refusals)| {
        format!("{object} ({})", why(&Verdict::Invalid(refusals.to_vec())))
    });
    let all: Vec<String> = refused.chain(contested).chain(unread.first.clone()).collect();
    let Some(first) = all.first() else { return String::new() };
    let count = all.len() + unread.count.saturating_sub(1);
    let objects = if count == 1 { "object" } else { "objects" };
    let first = crate::output::clean(first);
    let which = if count == 1 { first } else { format!("{first} and {} more", count - 1) };
    format!(
        "warning: {count} {objects} of {place} not in force and left out of this answer: {which}\n"
    )
}
