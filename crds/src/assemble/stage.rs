//! Takes objects from what was found to what is in force, and remembers the outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tidegate_policy::model::Label;

use super::version::{self, Compiled, finding};
use super::{Inputs, Memory, Remembered, transition};
use crate::claims::{self, Contender, Outcome};
use crate::compile::Identity;
use crate::manifest::{Document, Finding, Kind, Object, ObjectRef, Position, Rule, Severity};

/// Where the version of an object comes from that is to be in force.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Document(&'a Document),
    /// What is remembered stays; `kept`: since its file is empty or cannot be read.
    Remembered {
        kept: bool,
    },
}

/// An object on its way: the version in force, and a new one if there is one.
pub(super) struct Item<'a> {
    pub object: ObjectRef,
    pub remembered: Option<&'a Arc<Remembered>>,
    /// Its valid document, if it has one in this look.
    pub document: Option<&'a Document>,
    pub kept: bool,
    pub old: Option<Compiled>,
    pub new: Option<Compiled>,
    /// Of the new version.
    pub generation: i64,
}

/// An object in force.
pub(super) struct InPlace<'a> {
    pub object: ObjectRef,
    pub compiled: Compiled,
    /// Its document, if that is what is in force.
    pub document: Option<&'a Document>,
}

pub(super) struct Stage<'a> {
    pub memory: &'a Memory,
    pub stamp: Timestamp,
    pub new_uid: &'a mut dyn FnMut() -> String,
    pub next: Memory,
    pub findings: Vec<Finding>,
    pub kept: bool,
}

impl<'a> Stage<'a> {
    /// One source for each object. The same object twice: both places are named, neither applies.
    pub fn sources(&mut self, inputs: &Inputs<'a>) -> BTreeMap<&'a ObjectRef, Source<'a>> {
        let mut found: BTreeMap<&ObjectRef, (Vec<&Position>, Vec<&Document>)> = BTreeMap::new();
        for document in inputs.documents {
            let document: &'a Document = document;
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
    pub fn namespaces(
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

    pub fn forget(&mut self, object: &ObjectRef) {
        self.next.objects.remove(object);
    }

    fn remember(&mut self, remembered: impl Into<Arc<Remembered>>) {
        let remembered = remembered.into();
        self.next.objects.insert(remembered.object.clone(), remembered);
    }

    /// Checks the document, if there is one, against what is remembered, and compiles both.
    pub fn item(
        &mut self,
        object: &ObjectRef,
        source: Source<'a>,
        home: Option<&Label>,
    ) -> Item<'a> {
        let remembered = self.memory.shared(object);
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
            } else if self.permits(object, remembered.map(|o| &**o), document) {
                item.generation = remembered.map_or(1, |o| {
                    let edited = o.value.get("spec") != document.value.get("spec");
                    o.generation.saturating_add(i64::from(edited))
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
    pub fn leave_out(&mut self, item: &Item<'a>, why: Option<&str>) {
        // Without a version that could have an effect, what is wrong with it has been said.
        let version = item.document.is_some() || item.remembered.is_some();
        if let Some(why) = why.filter(|_| version) {
            let (rule, error) = (Rule::Reference, Severity::Error);
            let mut finding = finding(&item.object, item.document, "", rule, error, why);
            finding.position = finding.position.or_else(|| item.position().cloned());
            self.findings.push(finding);
        }
        // An object that was never accepted is new when it is.
        let Some(remembered) = item.remembered else { return };
        let mut remembered = Remembered { in_force: false, ..Remembered::clone(remembered) };
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
    pub fn settle(&mut self, mut items: Vec<Item<'a>>) -> Vec<InPlace<'a>> {
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
            let holder = items.get(*holder).map(Item::shown).unwrap_or_default();
            let sentence = format!(
                "Duplicate value: {claim} belongs to {holder}, which was accepted first and keeps it"
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
        let in_force = compiled.is_some();
        let remembered = match (item.remembered, document) {
            // Of a document that is not fresh only the place can be another.
            (Some(remembered), document)
                if !accepted
                    && remembered.in_force == in_force
                    && document.is_none_or(|d| d.position == remembered.position) =>
            {
                Arc::clone(remembered)
            }
            (Some(remembered), document) => Arc::new(Remembered {
                object: item.object.clone(),
                uid: remembered.uid.clone(),
                generation: if accepted { item.generation } else { remembered.generation },
                created: remembered.created,
                in_force,
                position: document.map_or(&remembered.position, |d| &d.position).clone(),
                value: document.map_or(&remembered.value, |d| &d.value).clone(),
            }),
            (None, Some(document)) if accepted => Arc::new(Remembered {
                object: item.object.clone(),
                uid: (self.new_uid)(),
                generation: item.generation,
                created: self.stamp,
                in_force,
                position: document.position.clone(),
                value: document.value.clone(),
            }),
            (None, _) => return None,
        };
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
    /// Where it stands, or stood when it was last good.
    fn position(&self) -> Option<&Position> {
        let document = self.document.map(|document| &document.position);
        document.or(self.remembered.map(|o| &o.position))
    }

    /// The object and where it stands, for people.
    fn shown(&self) -> String {
        match self.position() {
            Some(position) => format!("{} ({position})", self.object),
            None => self.object.to_string(),
        }
    }
}
