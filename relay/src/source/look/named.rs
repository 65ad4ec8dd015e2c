//! Which files name which objects, kept while contents come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_crds::manifest::{Document, ObjectRef, Read};

/// Where an object is named.
#[derive(Debug)]
pub(super) struct Place {
    pub file: Arc<str>,
    /// Which of the file's documents it is; `None`: one that is not valid.
    pub document: Option<usize>,
}

/// The places of each object, in the order of files.
#[derive(Debug, Default)]
pub(super) struct Named(BTreeMap<ObjectRef, Vec<Place>>);

impl Named {
    pub fn of(&self, object: &ObjectRef) -> &[Place] {
        self.0.get(object).map_or(&[], Vec::as_slice)
    }

    /// A file's content is another than before, or none; the objects of which that changed anything.
    pub fn change(
        &mut self,
        file: &Arc<str>,
        old: Option<&Read>,
        new: Option<&Read>,
    ) -> BTreeSet<ObjectRef> {
        let mut changed = BTreeSet::new();
        let mut before: BTreeMap<&ObjectRef, &Document> = BTreeMap::new();
        for object in old.into_iter().flat_map(objects).map(|(object, _)| object) {
            changed.insert(object.clone());
            if let Some(places) = self.0.get_mut(object) {
                places.retain(|place| place.file != *file);
            }
        }
        before.extend(old.into_iter().flat_map(|read| &read.documents).map(|d| (&d.reference, d)));
        for (object, document) in new.into_iter().flat_map(objects) {
            let places = self.0.entry(object.clone()).or_default();
            let at = places.partition_point(|place| place.file <= *file);
            places.insert(at, Place { file: Arc::clone(file), document });
            let own = document.and_then(|index| new?.documents.get(index));
            match (before.get(object), own) {
                (Some(before), Some(own)) if before.same(own) => drop(changed.remove(object)),
                _ => drop(changed.insert(object.clone())),
            }
        }
        for object in &changed {
            if self.0.get(object).is_some_and(Vec::is_empty) {
                self.0.remove(object);
            }
        }
        changed
    }
}

/// The objects that a content names, each with its document's index where it is valid.
fn objects(read: &Read) -> impl Iterator<Item = (&ObjectRef, Option<usize>)> {
    let valid = read.documents.iter().enumerate().map(|(at, it)| (&it.reference, Some(at)));
    valid.chain(read.refused.iter().map(|(object, _)| (object, None)))
}
