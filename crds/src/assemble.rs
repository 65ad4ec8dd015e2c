//! Assembles what a directory says, and what is remembered of it, into policy.
//!
//! Pure: no clock, no files, no random numbers of its own. Where the API server has uids, generations
//! and creation times, and refuses an edit at once, a directory has nothing but its text; so all of
//! that comes from a [`Memory`], which the directory source keeps on disk. The order of files never
//! decides anything, and assembling the same again changes nothing.

mod memory;
mod revise;
mod stage;
mod transition;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tidegate_policy::model::{LabelSelector, Window};
use tidegate_policy::snapshot::Snapshot;

use crate::compile::CompiledMesh;
pub use crate::compile::{RelayLimits, RelaySettings};
use crate::manifest::{Document, Finding, Kind, ObjectRef, Position, Rule, Severity};
use crate::references::{Missing, References};
pub use memory::{Memory, Remembered};
pub use revise::{Sight, revise};
use stage::{Item, Stage};
use version::Compiled;
pub(crate) use version::wrong_besides;

/// What a complete look at a directory found.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub documents: &'a [&'a Document],
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
    /// What windows stand on; `None`: no Mesh is in force.
    ground: Option<Arc<Ground>>,
    /// Not before any first acceptance.
    stamp: Timestamp,
}

/// What of an assembly decides about each window, whatever the others are.
#[derive(Debug)]
struct Ground {
    mesh: CompiledMesh,
    /// Labels of each namespace that is known.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

/// Assembles `inputs` on the ground of `memory`, and gives what to remember from now on. `now` stamps
/// first acceptances; `new_uid` gives a fresh uid whenever it is called.
pub fn assemble(
    inputs: &Inputs<'_>,
    memory: &Memory,
    now: Timestamp,
    new_uid: &mut dyn FnMut() -> String,
) -> (Assembled, Memory) {
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
    let ground = mesh.map(|mesh| Arc::new(Ground { mesh, namespaces }));
    let home = ground.as_ref().map(|ground| ground.mesh.mesh.meta.key.namespace.clone());
    if ground.is_none() {
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
        match ground.as_ref().map(|ground| ground.stranger(&item)) {
            Some(None) => items.push(item),
            Some(Some(why)) => stage.leave_out(&item, Some(&why)),
            None => stage.leave_out(&item, None),
        }
    }
    let mut snapshot = ground.as_ref().map(|ground| Snapshot::new(ground.mesh.mesh.clone()));
    let (mut relays, mut windows) = (Vec::new(), Vec::new());
    for placed in stage.settle(items) {
        match (placed.compiled, &mut snapshot) {
            (Compiled::Relay(relay), _) => relays.push(*relay),
            (Compiled::LoginUser(user), Some(snapshot)) => snapshot.put_user(*user),
            (Compiled::Terminal(terminal), Some(snapshot)) => snapshot.put_terminal(*terminal),
            (Compiled::SupportWindow(window), Some(snapshot)) => {
                let window = Arc::from(window);
                windows.push((placed.object, placed.document, Arc::clone(&window)));
                snapshot.put_window(window);
            }
            (Compiled::Mesh(_), _) | (_, None) => {}
        }
    }
    relays.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(snapshot) = &snapshot {
        stage.findings.extend(unresolved(snapshot, &windows));
    }
    let Stage { next, mut findings, kept, .. } = stage;
    sort(&mut findings);
    (Assembled { snapshot, relays, findings, kept, ground, stamp }, next)
}

fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        let order = |f: &Finding| (f.position.clone(), f.object.clone(), f.field.clone());
        order(a).cmp(&order(b))
    });
}

/// A window in force, with its document, if that is what is in force.
type PlacedWindow<'a> = (ObjectRef, Option<&'a Document>, Arc<Window>);

/// What windows name and nobody has, as notes.
fn unresolved(snapshot: &Snapshot, windows: &[PlacedWindow<'_>]) -> Vec<Finding> {
    let mut references = References::new(snapshot);
    let mut notes = Vec::new();
    for (object, document, window) in windows {
        notes.extend(references.missing(window).into_iter().map(|missing| {
            let Missing { field, name, what } = missing;
            let sentence = format!("Not found: \"{name}\": {what}");
            let (rule, note) = (Rule::Reference, Severity::Note);
            version::finding(object, *document, field, rule, note, &sentence)
        }));
    }
    notes
}

impl Ground {
    /// Why an object is no part of the Mesh; `None`: it is.
    fn stranger(&self, item: &Item<'_>) -> Option<String> {
        let Self { mesh, namespaces, .. } = self;
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
        (!at_home && !mesh.tenants.as_ref().is_some_and(serves)).then(|| {
            format!("has no effect: the Mesh {home} does not serve the namespace {namespace}")
        })
    }
}
