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
        let gone = self.known.extract_if(.., |name, _| !there(name));
        for (name, known) in gone {
            let old = known.taken.as_ref().map(|(_, read)| &**read);
            self.touched.extend(self.named.change(&name, old, None));
        }
        self.bad.retain(|name, _| there(name));
        before != self.known.len() + self.bad.len()
    }

    /// Finds which objects in force are not there any more; whether one went for good.
    pub(super) fn vanished(&mut self, listing: &Listing, now: Now) -> bool {
        for object in &self.touched {
            if let Some(place) = self.named.of(object).first() {
                self.in_force.insert(object.clone(), Arc::clone(&place.file));
                self.held.remove(object);
            } else if self.in_force.contains_key(object) {
                self.held.insert(object.clone());
            }
        }
        if self.held.is_empty() {
            self.missing.clear();
            return false;
        }
        let in_doubt =
            self.known.iter().filter_map(|(n, known)| Some((n, &*known.seen.as_ref()?.read)));
        let seen = objects(in_doubt.clone());
        let unclear: BTreeSet<&Arc<str>> =
            in_doubt.filter(|(_, read)| read.unreadable).map(|(name, _)| name).collect();
        let mut missing = BTreeMap::new();
        let mut gone = Vec::new();
        for object in &self.held {
            let Some(file) = self.in_force.get(object) else { continue };
            let there = seen.contains(object)
                || unclear.contains(file)
                || self.bad.contains_key(file)
                || covered(&listing.troubles, file);
            if there {
                continue;
            }
            let now = Missing {
                looks: 1,
                at: now.boot,
                file: listing.files.get(file).map(|entry| entry.stamp),
                directory: listing.directories.get(&parent(&self.root, file)).copied(),
            };
            let now = match self.missing.remove(object) {
                None => now,
                Some(before) if now.at.since(before.at) < SECOND_LOOK => before,
                Some(before) if before.confirmed_by(&now) => {
                    gone.push(object.clone());
                    continue;
                }
                Some(before) => Missing { looks: before.looks + 1, ..now },
            };
            missing.insert(object.clone(), now);
        }
        self.missing = missing;
        for object in &gone {
            self.in_force.remove(object);
            self.held.remove(object);
        }
        let any = !gone.is_empty();
        self.touched.extend(gone);
        any
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

/// The objects that contents name.
fn objects<'a>(
    contents: impl Iterator<Item = (&'a Arc<str>, &'a Read)>,
) -> BTreeSet<&'a ObjectRef> {
    let all = contents.flat_map(|(_, read)| {
        let documents = read.documents.iter().map(|document| &document.reference);
        documents.chain(read.refused.iter().map(|(object, _)| object))
    });
    all.collect()
}

fn parent(root: &Path, file: &str) -> PathBuf {
    match file.rsplit_once('/') {
        Some((directory, _)) => root.join(directory),
        None => root.into(),
    }
}
