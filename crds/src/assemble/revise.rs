//! Assembles anew what edits of windows alone change: a window claims nothing, so each stands by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tidegate_policy::model::{Label, ObjectKey};

use super::stage::{Source, Stage};
use super::{Assembled, Compiled, Memory, sort, unresolved};
use crate::manifest::{Document, Kind, ObjectRef};

/// How a look finds one object.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// In this document, and nowhere else.
    Document(&'a Document),
    /// As it is remembered: what was found of it is not valid, or not believed yet.
    Stays,
    Gone,
}

/// What [`super::assemble`] makes of the inputs of `before` after these edits, each of another object, and
/// what to remember: at the cost of the edits, not of all there is. `memory` is what `before` left.
/// `None`: it takes a look at everything, since an edit is of more than a window, no Mesh is in force, or
/// objects are kept for the sake of their files.
pub fn revise(
    before: &Assembled,
    memory: &Memory,
    edits: &[(ObjectRef, Sight<'_>)],
    now: Timestamp,
    new_uid: &mut dyn FnMut() -> String,
) -> Option<(Assembled, Memory)> {
    let (Some(ground), Some(snapshot)) = (&before.ground, &before.snapshot) else { return None };
    if before.kept || edits.iter().any(|(object, _)| object.kind != Kind::SupportWindow) {
        return None;
    }
    let edited: BTreeSet<&ObjectRef> = edits.iter().map(|(object, _)| object).collect();
    let others = before
        .findings
        .iter()
        .filter(|finding| finding.object.as_ref().is_none_or(|object| !edited.contains(object)));
    let mut stage = Stage {
        memory,
        stamp: before.stamp.max(now),
        new_uid,
        next: memory.clone(),
        findings: others.cloned().collect(),
        kept: false,
    };
    let mut items = Vec::new();
    for (object, sight) in edits {
        stage.forget(object);
        let source = match sight {
            Sight::Document(document) => Source::Document(document),
            Sight::Stays => Source::Remembered { kept: false },
            Sight::Gone => continue,
        };
        let item = stage.item(object, source, Some(&ground.mesh.mesh.meta.key.namespace));
        match ground.stranger(&item) {
            None => items.push(item),
            Some(why) => stage.leave_out(&item, Some(&why)),
        }
    }
    let mut snapshot = snapshot.clone();
    let mut gone: BTreeSet<ObjectKey> =
        edits.iter().filter_map(|(object, _)| key(object)).collect();
    let mut windows = Vec::new();
    for placed in stage.settle(items) {
        let Compiled::SupportWindow(window) = placed.compiled else { continue };
        gone.remove(&window.meta.key);
        // One that only moved within its file is as it was.
        let window = match snapshot.window(&window.meta.key) {
            Some(same) if **same == *window => Arc::clone(same),
            _ => {
                let window = Arc::from(window);
                snapshot.put_window(Arc::clone(&window));
                window
            }
        };
        windows.push((placed.object, placed.document, window));
    }
    for key in gone {
        snapshot.remove_window(&key);
    }
    stage.findings.extend(unresolved(&snapshot, &windows));
    let Stage { next, mut findings, stamp, .. } = stage;
    sort(&mut findings);
    let assembled = Assembled {
        snapshot: Some(snapshot),
        relays: before.relays.clone(),
        findings,
        kept: false,
        ground: Some(Arc::clone(ground)),
        stamp,
    };
    Some((assembled, next))
}

/// `None` for a name that is no label: such an object never was in force.
fn key(object: &ObjectRef) -> Option<ObjectKey> {
    let namespace = Label::parse(&object.namespace).ok()?;
    Some(ObjectKey { namespace, name: Label::parse(&object.name).ok()? })
}
