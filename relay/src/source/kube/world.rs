//! What the streams gave so far, as policy: the index, which versions are in it, and what is wrong.
//! Pure, apart from what it asks the journal's keeper to write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_crds::compile::RelaySettings;
use tidegate_crds::index::{Change, Index, Remains, goes};
use tidegate_crds::manifest::{Finding, Kind, Object, ObjectRef, Rule, Severity};
use tidegate_crds::mesh::TenantsFrom;
use tidegate_policy::model::{Label, ObjectKey};

use super::journal::Head;
use super::keeper::Keeper;
use super::raw::{Key, Raw};
use super::stream::Stream;
use crate::source::about;

/// The most findings that are told.
const MAX_FINDINGS: usize = 500;
/// The longest sentence that is kept of an object that cannot be decoded.
const SENTENCE: usize = 300;

/// One Mesh's objects.
pub struct World {
    /// The Mesh.
    home: ObjectKey,
    index: Index,
    /// The version of each object that was taken over, decodable or not.
    known: BTreeMap<Kind, HashMap<Key, u64>>,
    /// Why objects could not be decoded.
    undecodable: BTreeMap<ObjectRef, String>,
    /// Our Relay.
    relay: Label,
    /// Whether the Mesh serves more than its own namespace.
    tenants: bool,
    /// Our Relay belongs to another Mesh.
    foreign: bool,
    changed: Changed,
}

/// What has changed since it was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// What `decide` reads, the Mesh, or the Relay.
    pub policy: bool,
    pub findings: bool,
    /// Anything that the journal has.
    pub kept: bool,
}

impl World {
    /// An empty one, of the Mesh `home` and its Relay `relay`.
    pub fn new(home: ObjectKey, relay: Label) -> Self {
        Self {
            index: Index::new(home.clone()),
            home,
            known: BTreeMap::new(),
            undecodable: BTreeMap::new(),
            relay,
            tenants: false,
            foreign: false,
            changed: Changed::default(),
        }
    }

    pub fn home(&self) -> &ObjectKey {
        &self.home
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn tenants(&self) -> bool {
        self.tenants
    }

    /// Whether our Relay has come to belong to another Mesh.
    pub fn foreign(&self) -> bool {
        self.foreign
    }

    /// Our Relay, as far as it can be used.
    pub fn relay(&self) -> Option<Arc<RelaySettings>> {
        self.index.relay(&self.relay)
    }

    pub fn head(&self) -> Head {
        Head::new(self.home.namespace.as_str(), self.relay.as_str(), self.home.name.as_str())
    }

    /// What has changed since the last call.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Whether an object that a list has is the one that was taken over. Versions are never ordered:
    /// a store that was set back has them again, smaller.
    pub fn knows(&self, raw: &Raw) -> bool {
        let known = self.known.get(&raw.reference.kind).and_then(|known| known.get(&raw.key()));
        known.is_some_and(|known| raw.version != 0 && *known == raw.version)
    }

    /// The objects of a stream that a complete list of it did not have.
    pub fn vanished(&self, stream: Stream, seen: &BTreeSet<Key>) -> Vec<ObjectRef> {
        let home = self.home.namespace.as_str();
        let known = self.known.get(&stream.kind).into_iter().flat_map(HashMap::keys);
        let gone = known.filter(|key| stream.has(&key.0, home) && !seen.contains(*key));
        gone.map(|(namespace, name)| ObjectRef {
            kind: stream.kind,
            namespace: namespace.clone(),
            name: name.clone(),
        })
        .collect()
    }

    /// Takes an object over, in the place of its former version.
    pub fn put(&mut self, raw: Raw, keeper: Option<&Keeper>) {
        let known = self.known.entry(raw.reference.kind).or_default();
        if raw.version != 0 && known.get(&raw.key()) == Some(&raw.version) {
            return;
        }
        known.insert(raw.key(), raw.version);
        self.changed.kept = true;
        let goes = goes(raw.reference.kind, raw.deleting);
        let refused = !self.index.refusals(&raw.reference).is_empty();
        let change = match &raw.object {
            _ if goes => {
                self.decodable(&raw.reference);
                self.index.remove(&raw.reference)
            }
            Ok(object) => {
                self.decodable(&raw.reference);
                self.look(&raw.reference, object);
                self.index.put(object)
            }
            Err(why) => {
                let sentence = sentence(why);
                self.changed.findings = true;
                self.undecodable.insert(raw.reference.clone(), sentence.clone());
                // It is still there: what another has is not ours because that cannot be read.
                let remains = Remains::of(&raw.value);
                let remains = if raw.is_too_large() { remains.unseen() } else { remains };
                self.index.put_unreadable(&raw.reference, sentence, &remains)
            }
        };
        self.note(&change, refused);
        if let Some(keeper) = keeper {
            self.keep(raw, keeper);
        }
    }

    /// Has an object written that was taken over.
    pub fn keep(&self, mut raw: Raw, keeper: &Keeper) {
        if raw.is_too_large() {
            raw.note_holds(self.index.known_holds(&raw.reference));
        }
        keeper.put(raw.reference, raw.value);
    }

    pub fn remove(&mut self, object: &ObjectRef, keeper: Option<&Keeper>) {
        let key = (object.namespace.clone(), object.name.clone());
        let known = self.known.entry(object.kind).or_default().remove(&key);
        if known.is_none() {
            return;
        }
        self.changed.kept = true;
        self.decodable(object);
        let refused = !self.index.refusals(object).is_empty();
        let change = self.index.remove(object);
        self.note(&change, refused);
        if let Some(keeper) = keeper {
            keeper.remove(object.clone());
        }
    }

    fn decodable(&mut self, object: &ObjectRef) {
        self.changed.findings |= self.undecodable.remove(object).is_some();
    }

    /// What the source itself goes by.
    fn look(&mut self, reference: &ObjectRef, object: &Object) {
        if reference.namespace != self.home.namespace.as_str() {
            return;
        }
        match object {
            Object::Mesh(mesh) if reference.name == self.home.name.as_str() => {
                let tenants = mesh.spec.tenants.as_ref();
                self.tenants = tenants.is_some_and(|tenants| tenants.from == TenantsFrom::Selector);
            }
            Object::Relay(relay) if reference.name == self.relay.as_str() => {
                self.foreign = relay.spec.mesh_ref.name != self.home.name.as_str();
            }
            _ => {}
        }
    }

    fn note(&mut self, change: &Change, was_refused: bool) {
        self.changed.policy |= change.snapshot || change.relays;
        let refused = change.touched.iter().any(|object| !self.index.refusals(object).is_empty());
        // Refused before and after: for another reason, perhaps.
        self.changed.findings |= refused || was_refused;
    }

    /// What is wrong with the objects, a bounded number of it.
    pub fn findings(&self) -> Vec<Finding> {
        let undecodable = self.undecodable.iter().map(|(object, why)| Finding {
            position: None,
            object: Some(object.clone()),
            field: None,
            rule: Rule::InvalidType,
            message: format!("the object cannot be understood, so it is not in force: {why}"),
            severity: Severity::Error,
        });
        let refused = self.index.refused();
        // The index has what cannot be decoded too.
        let refused = refused.filter(|(object, _)| !self.undecodable.contains_key(*object));
        let refused = refused.flat_map(|(object, refusals)| {
            refusals.iter().map(|refusal| Finding {
                position: None,
                object: Some(object.clone()),
                field: Some(refusal.field.clone()).filter(|field| !field.is_empty()),
                rule: Rule::InvalidValue,
                message: refusal.to_string(),
                severity: Severity::Error,
            })
        });
        let mut findings: Vec<Finding> =
            undecodable.chain(refused).take(MAX_FINDINGS.saturating_add(1)).collect();
        if findings.len() > MAX_FINDINGS {
            findings.truncate(MAX_FINDINGS);
            findings.push(about("more findings are not shown".into()));
        }
        findings
    }
}

/// Printable ASCII of bounded length, whatever an object made serde say.
fn sentence(why: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    why.chars().take(SENTENCE).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::journal;
    use super::super::wire::Named;
    use super::*;
    use crate::clock;
    use crate::source::remember::Instant;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn world() -> World {
        World::new(ObjectKey { namespace: label("gate"), name: label("prod") }, label("eu"))
    }

    fn raw(kind: Kind, name: &str, version: u64, spec: &Value, status: &Value) -> Raw {
        let value = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": kind.as_str(),
            "metadata": {"namespace": "gate", "name": name, "uid": name, "generation": 1,
                "resourceVersion": version.to_string(), "creationTimestamp": "2026-11-01T00:00:00Z"},
            "spec": spec, "status": status,
        });
        Raw::new(kind, value).unwrap()
    }

    fn user(name: &str, version: u64, holds: &Value) -> Raw {
        let status = json!({"holds": holds});
        raw(Kind::LoginUser, name, version, &json!({"publicKeys": [KEY]}), &status)
    }

    fn too_large(name: &str, version: u64) -> Raw {
        let (namespace, name) = ("gate".to_owned(), name.to_owned());
        let named = Named { namespace, name, version: version.to_string(), deleting: false };
        Raw::too_large(Kind::LoginUser, &named).unwrap()
    }

    fn in_force(world: &World, name: &str) -> bool {
        let key = ObjectKey { namespace: label("gate"), name: label(name) };
        world.index().snapshot().is_some_and(|snapshot| snapshot.user_at(&key).is_some())
    }

    #[test]
    fn one_that_is_too_large_keeps_what_it_held_also_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.journal");
        let keeper = Keeper::start(path.clone(), None).unwrap();
        let mut world = world();
        keeper.begin(world.head());
        let fingerprint = tidegate_crds::compile::public_key(KEY).unwrap().blob.fingerprint();
        let holds = json!({"generation": 1, "keys": [fingerprint]});
        let mesh = json!({"domain": "support.example.com"});
        world.put(raw(Kind::Mesh, "prod", 1, &mesh, &json!({})), Some(&keeper));
        world.put(user("alice", 2, &holds), Some(&keeper));
        world.put(user("rival", 3, &Value::Null), Some(&keeper));
        assert!(in_force(&world, "alice") && !in_force(&world, "rival"));
        for version in [4, 5] {
            world.put(too_large("alice", version), Some(&keeper));
            assert!(!in_force(&world, "alice") && !in_force(&world, "rival"));
        }
        assert!(world.findings()[0].message.contains("larger than 4 MiB"));
        keeper.commit(journal::Commit { as_of: Instant::of(clock::now(), None) });
        drop(keeper);
        let mut again = self::world();
        let found = journal::find(&path).unwrap().unwrap();
        journal::replay(&path, found.length, |entry| {
            if let journal::Entry::Put(object, value) = entry {
                again.put(Raw::new(object.kind, value).unwrap(), None);
            }
        })
        .unwrap();
        assert!(again.index().mesh().is_some());
        assert!(!in_force(&again, "alice") && !in_force(&again, "rival"));
        again.put(too_large("alice", 6), None);
        assert!(!in_force(&again, "rival"));
        again.put(user("alice", 7, &holds), None);
        assert!(in_force(&again, "alice") && !in_force(&again, "rival"));
    }
}
