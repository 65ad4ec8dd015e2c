//! Assembles what a directory says, and what is remembered of it, into policy.
//!
//! Pure: no clock, no files, no random numbers of its own. Where the API server has uids, generations
//! and creation times, and refuses an edit at once, a directory has nothing but its text; so all of
//! that comes from a [`Memory`], which the directory source keeps on disk. The order of files never
//! decides anything, and assembling the same again changes nothing.

mod claims;
mod memory;
mod references;
mod transition;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tidegate_policy::model::{self, Label, LabelSelector};
use tidegate_policy::snapshot::Snapshot;

use crate::compile::{CompiledMesh, Identity};
pub use crate::compile::{RelayLimits, RelaySettings};
use crate::manifest::{Document, Finding, Kind, Object, ObjectRef, Position, Rule, Severity};
use claims::{Contender, Outcome};
pub use memory::{Memory, Remembered};
use references::Placed;
use version::{Compiled, finding};

/// What a complete look at a directory found.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub documents: &'a [Document],
    /// Objects that could be named but are not valid: their previous version stays in force.
    pub refused: &'a [(ObjectRef, Position)],
    /// Files that are empty or cannot be read: what is remembered of them stays.
    pub kept_files: &'a BTreeSet<Arc<str>>,
}

/// What the directory means.
#[derive(Debug)]
pub struct Assembled {
    /// `None`: no Mesh is in force, so nothing is admitted.
    pub snapshot: Option<Snapshot>,
    /// The Relays of the Mesh, by name.
    pub relays: Vec<RelaySettings>,
    /// What is wrong with the set, beside what reading each file found. In order of position.
    pub findings: Vec<Finding>,
    /// Whether objects are in force only because their file is empty or cannot be read.
    pub kept: bool,
}

/// Assembles `inputs` on the ground of `memory`, and gives what to remember from now on. `now` stamps
/// first acceptances; `new_uid` gives a fresh uid whenever it is called.
pub fn assemble(
    inputs: &Inputs<'_>,
    memory: &Memory,
    now: Timestamp,
    new_uid: &mut dyn FnMut() -> String,
) -> (Assembled, Memory) {
    let (in_force, memory) = settle(inputs, memory, now, new_uid);
    let snapshot = in_force.mesh.map(|mesh| {
        let mut snapshot = Snapshot::new(mesh.mesh);
        in_force.users.into_iter().for_each(|user| snapshot.put_user(user));
        in_force.terminals.into_iter().for_each(|terminal| snapshot.put_terminal(terminal));
        in_force.windows.into_iter().for_each(|window| snapshot.put_window(window));
        snapshot
    });
    let InForce { relays, findings, kept, .. } = in_force;
    (Assembled { snapshot, relays, findings, kept }, memory)
}

/// The objects in force, as policy: what [`Assembled::snapshot`] is made of.
#[derive(Debug, Default)]
struct InForce {
    mesh: Option<CompiledMesh>,
    relays: Vec<RelaySettings>,
    users: Vec<model::LoginUser>,
    terminals: Vec<model::Terminal>,
    windows: Vec<model::Window>,
    findings: Vec<Finding>,
    kept: bool,
}

fn settle(
    inputs: &Inputs<'_>,
    memory: &Memory,
    now: Timestamp,
    new_uid: &mut dyn FnMut() -> String,
) -> (InForce, Memory) {
    // First acceptances are stamped in order, whatever the clock does.
    let stamp = memory.iter().map(|o| o.created).max().map_or(now, |last| last.max(now));
    let mut stage = Stage {
        memory,
        stamp,
        new_uid,
        next: Memory::default(),
        findings: Vec::new(),
        kept: false,
    };
    let sources = stage.sources(inputs);
    let of_kind = |own: fn(Kind) -> bool| {
        sources.iter().filter(move |(object, _)| own(object.kind)).map(|(o, s)| (*o, *s))
    };
    let namespaces = stage.namespaces(of_kind(|kind| kind == Kind::Namespace));

    // The Mesh says which namespaces count, so it comes first.
    let items = of_kind(|kind| kind == Kind::Mesh).map(|(o, s)| stage.item(o, s, None)).collect();
    let mesh = stage.settle(items).into_iter().find_map(|placed| match placed.compiled {
        Compiled::Mesh(mesh) => Some(*mesh),
        _ => None,
    });
    let home = mesh.as_ref().map(|mesh| mesh.mesh.meta.key.namespace.clone());
    if mesh.is_none() {
        stage.findings.push(Finding {
            position: None,
            object: None,
            field: None,
            rule: Rule::Required,
            message: "no Mesh is in force, so nobody is admitted; add one".into(),
            severity: Severity::Error,
        });
    }

    let mut items = Vec::new();
    for (object, source) in of_kind(|kind| !matches!(kind, Kind::Mesh | Kind::Namespace)) {
        let item = stage.item(object, source, home.as_ref());
        match mesh.as_ref().map(|mesh| stranger(mesh, &namespaces, &item)) {
            Some(None) => items.push(item),
            Some(Some(why)) => stage.leave_out(&item, Some(&why)),
            None => stage.leave_out(&item, None),
        }
    }
    let mut in_force = InForce { mesh, ..InForce::default() };
    let mut windows = Vec::new();
    for placed in stage.settle(items) {
        match placed.compiled {
            Compiled::Mesh(_) => {}
            Compiled::Relay(relay) => in_force.relays.push(*relay),
            Compiled::LoginUser(user) => in_force.users.push(*user),
            Compiled::Terminal(terminal) => in_force.terminals.push(*terminal),
            Compiled::SupportWindow(window) => {
                windows.push((placed.object, placed.document));
                in_force.windows.push(*window);
            }
        }
    }
    in_force.relays.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(home) = &home {
        let placed =
            windows.iter().zip(&in_force.windows).map(|((reference, document), window)| Placed {
                reference,
                window,
                document: *document,
            });
        let (users, terminals) = (&in_force.users, &in_force.terminals);
        stage.findings.extend(references::unresolved(placed, users, terminals, home));
    }
    let Stage { next, mut findings, kept, .. } = stage;
    findings.sort_by(|a, b| {
        let order = |f: &Finding| (f.position.clone(), f.object.clone(), f.field.clone());
        order(a).cmp(&order(b))
    });
    in_force.findings = findings;
    in_force.kept = kept;
    (in_force, next)
}

/// Where the version of an object comes from that is to be in force.
#[derive(Clone, Copy)]
enum Source<'a> {
    Document(&'a Document),
    /// What is remembered stays; `kept`: since its file is empty or cannot be read.
    Remembered {
        kept: bool,
    },
}

/// An object on its way: the version in force, and a new one if there is one.
struct Item<'a> {
    object: ObjectRef,
    remembered: Option<&'a Remembered>,
    /// Its valid document, if it has one in this look.
    document: Option<&'a Document>,
    kept: bool,
    old: Option<Compiled>,
    new: Option<Compiled>,
    /// Of the new version.
    generation: i64,
}

/// An object in force.
struct InPlace<'a> {
    object: ObjectRef,
    compiled: Compiled,
    /// Its document, if that is what is in force.
    document: Option<&'a Document>,
}

struct Stage<'a> {
    memory: &'a Memory,
    stamp: Timestamp,
    new_uid: &'a mut dyn FnMut() -> String,
    next: Memory,
    findings: Vec<Finding>,
    kept: bool,
}

impl<'a> Stage<'a> {
    /// One source for each object. The same object twice: both places are named, neither applies.
    fn sources(&mut self, inputs: &Inputs<'a>) -> BTreeMap<&'a ObjectRef, Source<'a>> {
        let mut found: BTreeMap<&ObjectRef, (Vec<&Position>, Vec<&Document>)> = BTreeMap::new();
        for document in inputs.documents {
            let (positions, documents) = found.entry(&document.reference).or_default();
            positions.push(&document.position);
            documents.push(document);
        }
        for (object, position) in inputs.refused {
            found.entry(object).or_default().0.push(position);
        }
        for remembered in self.memory.iter() {
            let file = &remembered.position.file;
            if inputs.kept_files.contains(file) {
                let (positions, _) = found.entry(&remembered.object).or_default();
                if positions.iter().all(|position| position.file != *file) {
                    positions.push(&remembered.position);
                }
            }
        }
        let mut sources = BTreeMap::new();
        for (object, (mut positions, documents)) in found {
            positions.sort();
            if positions.len() > 1 {
                self.twice(object, &positions, &documents);
            }
            let source = if let ([_], [document]) = (positions.as_slice(), documents.as_slice()) {
                Source::Document(document)
            } else {
                let file = self.memory.get(object).map(|o| &o.position.file);
                let kept = file.is_some_and(|file| inputs.kept_files.contains(file));
                Source::Remembered { kept }
            };
            sources.insert(object, source);
        }
        sources
    }

    fn twice(&mut self, object: &ObjectRef, positions: &[&Position], documents: &[&Document]) {
        for position in positions {
            let others: Vec<_> =
                positions.iter().filter(|p| *p != position).map(ToString::to_string).collect();
            let sentence = format!(
                "is also in {}; neither change applies until one of them is gone",
                others.join(" and in ")
            );
            let document = documents.iter().find(|d| d.position == **position).copied();
            let (rule, error) = (Rule::Duplicate, Severity::Error);
            let mut finding = finding(object, document, "", rule, error, &sentence);
            finding.position = Some((*position).clone());
            self.findings.push(finding);
        }
    }

    /// The labels of all namespaces that are known; they are remembered as other objects are.
    fn namespaces(
        &mut self,
        sources: impl Iterator<Item = (&'a ObjectRef, Source<'a>)>,
    ) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut namespaces = BTreeMap::new();
        for (object, source) in sources {
            let remembered = self.memory.get(object);
            let (value, position) = match (source, remembered) {
                (Source::Document(document), _) => (&document.value, &document.position),
                (Source::Remembered { kept }, Some(remembered)) => {
                    self.kept |= kept;
                    (&remembered.value, &remembered.position)
                }
                (Source::Remembered { .. }, None) => continue,
            };
            let Ok(Object::Namespace { name, labels }) = Object::decode(Kind::Namespace, value)
            else {
                continue;
            };
            namespaces.insert(name, labels);
            let uid = remembered.map_or_else(|| (self.new_uid)(), |o| o.uid.clone());
            self.remember(Remembered {
                object: object.clone(),
                uid,
                generation: 1,
                created: remembered.map_or(self.stamp, |o| o.created),
                in_force: true,
                position: position.clone(),
                value: value.clone(),
            });
        }
        namespaces
    }

    fn remember(&mut self, remembered: Remembered) {
        self.next.objects.insert(remembered.object.clone(), remembered);
    }

    /// Checks the document, if there is one, against what is remembered, and compiles both.
    fn item(&mut self, object: &ObjectRef, source: Source<'a>, home: Option<&Label>) -> Item<'a> {
        let remembered = self.memory.get(object);
        let mut item = Item {
            object: object.clone(),
            remembered,
            document: None,
            kept: matches!(source, Source::Remembered { kept: true }),
            old: None,
            new: None,
            generation: 1,
        };
        if let Source::Document(document) = source {
            if remembered.is_some_and(|o| o.value == document.value) {
                item.document = Some(document);
            } else if self.permits(object, remembered, document) {
                item.generation = remembered.map_or(1, |o| {
                    o.generation + i64::from(o.value.get("spec") != document.value.get("spec"))
                });
                let identity = Identity {
                    uid: remembered.map(|o| o.uid.as_str()).unwrap_or_default().into(),
                    generation: item.generation,
                    created: remembered.map_or(self.stamp, |o| o.created),
                };
                item.new = self.compile(object, Some(document), &document.value, &identity, home);
                item.document = item.new.is_some().then_some(document);
            }
        }
        if let Some(remembered) = remembered {
            let identity = Identity {
                uid: remembered.uid.as_str().into(),
                generation: remembered.generation,
                created: remembered.created,
            };
            if remembered.in_force || item.new.is_none() {
                let document = item.document.filter(|_| item.new.is_none());
                let previous = self.compile(object, document, &remembered.value, &identity, home);
                if remembered.in_force {
                    item.old = previous;
                } else {
                    item.generation = remembered.generation;
                    item.new = previous;
                }
            }
        }
        item
    }

    /// Whether the rules about old and new values allow the edit.
    fn permits(
        &mut self,
        object: &ObjectRef,
        remembered: Option<&Remembered>,
        document: &Document,
    ) -> bool {
        let Some(remembered) = remembered else { return true };
        let broken = transition::broken(object.kind, &remembered.value, &document.value);
        for broken in &broken {
            let sentence = format!(
                "Invalid value: {}; the previous version stays in force",
                broken.sentence.trim_end_matches('.')
            );
            let (field, rule) = (broken.field.as_str(), Rule::Cel);
            let error = Severity::Error;
            self.findings.push(finding(object, Some(document), field, rule, error, &sentence));
        }
        broken.is_empty()
    }

    fn compile(
        &mut self,
        object: &ObjectRef,
        document: Option<&Document>,
        value: &Value,
        identity: &Identity,
        home: Option<&Label>,
    ) -> Option<Compiled> {
        Compiled::new(object, value, identity, home)
            .map_err(|refusals| {
                let found = refusals.iter().map(|r| version::refused(object, document, value, r));
                self.findings.extend(found);
            })
            .ok()
    }

    /// Remembers an object that is not part of the Mesh; `why`, unless there is none.
    fn leave_out(&mut self, item: &Item<'a>, why: Option<&str>) {
        if let Some(why) = why {
            let (rule, error) = (Rule::Reference, Severity::Error);
            self.findings.push(finding(&item.object, item.document, "", rule, error, why));
        }
        // An object that was never accepted is new when it is.
        let Some(remembered) = item.remembered else { return };
        let mut remembered = Remembered { in_force: false, ..remembered.clone() };
        if let Some(document) = item.document {
            remembered.value = document.value.clone();
            remembered.position = document.position.clone();
            if item.new.is_some() {
                remembered.generation = item.generation;
            }
        }
        self.remember(remembered);
    }

    /// Settles who keeps what, remembers the outcome, and gives what is in force.
    fn settle(&mut self, mut items: Vec<Item<'a>>) -> Vec<InPlace<'a>> {
        // Seniority: by first acceptance, then by name.
        items.sort_by(|a, b| {
            let order =
                |item: &Item<'_>| (item.remembered.is_none(), item.remembered.map(|o| o.created));
            let name = |item: &Item<'a>| {
                let object = item.object.clone();
                (object.namespace, object.name, object.kind)
            };
            order(a).cmp(&order(b)).then_with(|| name(a).cmp(&name(b)))
        });
        let claims: Vec<_> = items
            .iter()
            .map(|item| {
                (item.old.as_ref().map(Compiled::claims), item.new.as_ref().map(Compiled::claims))
            })
            .collect();
        let contenders: Vec<_> = claims
            .iter()
            .map(|(old, new)| Contender {
                old: old.as_ref().map(|(claims, _)| claims.as_slice()),
                new: new.as_ref().map(|(claims, _)| claims.as_slice()),
            })
            .collect();
        let outcomes = claims::settle(&contenders);
        for ((item, outcome), (_, new)) in items.iter().zip(&outcomes).zip(&claims) {
            let (Outcome::Refused { claim, holder }, Some((claims, fields))) = (outcome, new)
            else {
                continue;
            };
            let (Some(claim), Some(field)) = (claims.get(*claim), fields.get(*claim)) else {
                continue;
            };
            let holder = items.get(*holder).map(Item::place).unwrap_or_default();
            let sentence = format!(
                "Duplicate value: {} belongs to {holder}, which was accepted first and keeps it",
                version::claimed(claim)
            );
            let (rule, error) = (Rule::Conflict, Severity::Error);
            self.findings.push(finding(&item.object, item.document, field, rule, error, &sentence));
        }
        let outcomes: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome == Outcome::Accepted).collect();
        items.into_iter().zip(outcomes).filter_map(|(item, new)| self.place(item, new)).collect()
    }

    /// Remembers an object, and gives it if a version of it is in force. `accepted`: the new one is.
    fn place(&mut self, item: Item<'a>, accepted: bool) -> Option<InPlace<'a>> {
        let fresh = item.new.is_some();
        let compiled = if accepted { item.new } else { item.old };
        // A document that is not in force is neither remembered nor pointed at.
        let document = item.document.filter(|_| accepted || !fresh);
        let mut remembered = match (item.remembered, document) {
            (Some(remembered), _) => remembered.clone(),
            (None, Some(document)) if accepted => Remembered {
                object: item.object.clone(),
                uid: (self.new_uid)(),
                generation: 1,
                created: self.stamp,
                in_force: true,
                position: document.position.clone(),
                value: document.value.clone(),
            },
            (None, _) => return None,
        };
        if let Some(document) = document {
            remembered.position = document.position.clone();
            remembered.value = document.value.clone();
        }
        if accepted {
            remembered.generation = item.generation;
        }
        remembered.in_force = compiled.is_some();
        let uid = remembered.uid.clone();
        self.remember(remembered);
        let mut compiled = compiled?;
        compiled.set_uid(&uid);
        self.kept |= item.kept;
        if let Some(document) = document {
            let notes = version::operator_only(item.object.kind, &item.object, document);
            self.findings.extend(notes);
        }
        Some(InPlace { object: item.object, compiled, document })
    }
}

impl Item<'_> {
    /// The object and where it stands, for people.
    fn place(&self) -> String {
        let document = self.document.map(|document| &document.position);
        match document.or(self.remembered.map(|o| &o.position)) {
            Some(position) => format!("{} ({position})", self.object),
            None => self.object.to_string(),
        }
    }
}

/// Why an object is no part of the Mesh; `None`: it is.
fn stranger(
    mesh: &CompiledMesh,
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    item: &Item<'_>,
) -> Option<String> {
    let home = &mesh.mesh.meta.key;
    let namespace = item.object.namespace.as_str();
    let at_home = namespace == home.namespace.as_str();
    if item.object.kind == Kind::Relay {
        let Some(Compiled::Relay(relay)) = item.new.as_ref().or(item.old.as_ref()) else {
            return None;
        };
        return (!at_home || relay.mesh != home.name).then(|| {
            format!(
                "belongs to the Mesh {namespace}/{}, but the one in force is {home}",
                relay.mesh
            )
        });
    }
    let serves = |selector: &LabelSelector| {
        let mut labels = namespaces.get(namespace).cloned().unwrap_or_default();
        // As the API server has it on every namespace.
        labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
        selector.matches(&labels)
    };
    (!at_home && !mesh.tenants.as_ref().is_some_and(serves))
        .then(|| format!("has no effect: the Mesh {home} does not serve the namespace {namespace}"))
}
