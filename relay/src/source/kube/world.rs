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
                // It is still there: a namespace is not ours because another's Mesh cannot be read.
                self.index.put_unreadable(&raw.reference, sentence, &Remains::of(&raw.value))
            }
        };
        self.note(&change, refused);
        if let Some(keeper) = keeper {
            keeper.put(raw.reference, raw.value);
        }
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
