//! What was in force and is not there any more: when that is believed, and so revokes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_commands::manifests::scan::{Listing, Stamp};
use tidegate_crds::manifest::{ObjectRef, Read};

use super::{Files, covered};
use crate::clock::{Boot, Now};
use crate::source::pace::SECOND_LOOK;

/// What is missing in that many looks is gone, even if its file never comes to rest.
pub(super) const MISSING_LOOKS: u32 = 5;

/// An object in force that the last look did not find, and how its file looked then.
#[derive(Debug)]
pub(super) struct Missing {
    looks: u32,
    at: Boot,
    file: Option<Stamp>,
    directory: Option<Stamp>,
}

impl Files {
    /// Drops what is known of files that are not there any more; their objects are held apart.
    pub(super) fn forget_files(&mut self, listing: &Listing) -> bool {
        let there =
            |name: &str| listing.files.contains_key(name) || covered(&listing.troubles, name);
        let before = self.known.len() + self.bad.len();
        self.known.retain(|name, _| there(name));
        self.bad.retain(|name, _| there(name));
        before != self.known.len() + self.bad.len()
    }

    /// Finds which objects in force are not there any more; whether one went for good.
    pub(super) fn vanished(&mut self, listing: &Listing, now: Now) -> bool {
        let mut in_force = objects(self.contents());
        let in_doubt =
            self.known.iter().filter_map(|(n, known)| Some((n, &*known.seen.as_ref()?.read)));
        let seen = objects(in_doubt.clone());
        let unclear: BTreeSet<&Arc<str>> =
            in_doubt.filter(|(_, read)| read.unreadable).map(|(name, _)| name).collect();
        let mut held = BTreeSet::new();
        let mut missing = BTreeMap::new();
        let mut gone = false;
        for (object, file) in std::mem::take(&mut self.in_force) {
            if in_force.contains_key(&object) {
                continue;
            }
            let there = seen.contains_key(&object)
                || unclear.contains(&file)
                || self.bad.contains_key(&file)
                || covered(&listing.troubles, &file);
            if !there {
                let now = Missing {
                    looks: 1,
                    at: now.boot,
                    file: listing.files.get(&file).map(|entry| entry.stamp),
                    directory: listing.directories.get(&parent(&self.root, &file)).copied(),
                };
                let now = match self.missing.remove(&object) {
                    None => now,
                    Some(before) if now.at.since(before.at) < SECOND_LOOK => before,
                    Some(before) if before.confirmed_by(&now) => {
                        gone = true;
                        continue;
                    }
                    Some(before) => Missing { looks: before.looks + 1, ..now },
                };
                missing.insert(object.clone(), now);
            }
            held.insert(object.clone());
            in_force.insert(object, file);
        }
        self.in_force = in_force;
        self.held = held;
        self.missing = missing;
        gone
    }
}

impl Missing {
    /// Whether a second look, long enough after this one, makes it certain: the file, or where it
    /// was, is as it was then; or it was missing often enough.
    fn confirmed_by(&self, seen: &Self) -> bool {
        let rests = match (self.file, seen.file) {
            (None, None) => same(self.directory, seen.directory),
            (before, now) => same(before, now),
        };
        rests || self.looks + 1 >= MISSING_LOOKS
    }
}

/// Whether two stamps are of the same version.
fn same(before: Option<Stamp>, now: Option<Stamp>) -> bool {
    let version = |stamp: Stamp| (stamp.device, stamp.inode, stamp.size, stamp.modified);
    before.map(version) == now.map(version)
}

/// The objects that contents name, and the first file that does.
fn objects<'a>(
    contents: impl Iterator<Item = (&'a Arc<str>, &'a Read)>,
) -> BTreeMap<ObjectRef, Arc<str>> {
    let mut objects = BTreeMap::new();
    for (name, read) in contents {
        let documents = read.documents.iter().map(|document| &document.reference);
        for object in documents.chain(read.refused.iter().map(|(object, _)| object)) {
            objects.entry(object.clone()).or_insert_with(|| Arc::clone(name));
        }
    }
    objects
}

fn parent(root: &Path, file: &str) -> PathBuf {
    match file.rsplit_once('/') {
        Some((directory, _)) => root.join(directory),
        None => root.into(),
    }
}
