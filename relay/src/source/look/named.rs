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
        let (before, after) = (objects(old), objects(new));
        for object in before.keys() {
            if let Some(places) = self.0.get_mut(*object) {
                places.retain(|place| place.file != *file);
                if places.is_empty() {
                    self.0.remove(*object);
                }
            }
        }
        for (object, documents) in &after {
            let places = self.0.entry((*object).clone()).or_default();
            let at = places.partition_point(|place| place.file <= *file);
            let own = documents.iter();
            let own = own.map(|at| Place { file: Arc::clone(file), document: *at });
            drop(places.splice(at..at, own));
        }
        // One that a file has twice applies from neither place, and does when either goes.
        let differs = |object: &ObjectRef| {
            let (was, is) = (only(old, before.get(object)), only(new, after.get(object)));
            was.zip(is).is_none_or(|(was, is)| !was.same(is))
        };
        let all = before.keys().chain(after.keys()).copied();
        all.filter(|object| differs(object)).cloned().collect()
    }
}

/// A content's document of an object, if that is all it says of it.
fn only<'a>(read: Option<&'a Read>, at: Option<&Vec<Option<usize>>>) -> Option<&'a Document> {
    match at?.as_slice() {
        [at] => read?.documents.get((*at)?),
        _ => None,
    }
}

/// The objects that a content names, each with its documents' indexes; `None`: one that is not valid.
fn objects(read: Option<&Read>) -> BTreeMap<&ObjectRef, Vec<Option<usize>>> {
    let mut objects: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let Some(read) = read else { return objects };
    for (at, document) in read.documents.iter().enumerate() {
        objects.entry(&document.reference).or_default().push(Some(at));
    }
    for (object, _) in &read.refused {
        objects.entry(object).or_default().push(None);
    }
    objects
}
