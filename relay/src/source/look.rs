//! What the manifests of a directory say, over time: takes listings and contents in, and tells which
//! documents are in force. Touches the disk, blocks, and is told the time.
//!
//! Files are written while they are read, so nothing is believed at first sight that would revoke:
//! - A document or file that vanished is held until a second look finds its file as the first did.
//! - A file whose content changed while things still move is taken when two looks saw the same bytes.
//! - A file that is empty or cannot be parsed keeps what it had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_crds::manifest::{
    self, Document, Finding, ObjectRef, Position, Read, Rule, Severity,
};

use super::pace::SECOND_LOOK;
use super::scan::{self, ListError, Listing, ReadError, Stamp, Trouble};
use super::Kept;
use crate::clock::{Boot, Now};

/// A stamp cannot tell two writes within one tick of the file system's clock: a file is read again
/// for as long after its last change.
const SAME_TICK: Duration = Duration::from_secs(3);
/// What is missing in that many looks is gone, even if its file never comes to rest.
const MISSING_LOOKS: u32 = 5;
/// The most findings that are kept of one directory.
pub const MAX_FINDINGS: usize = 10_000;

type Hash = [u8; 32];

/// The files of one directory, and what of them is in force.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    device: Option<u64>,
    known: BTreeMap<Arc<str>, Known>,
    /// The file that each object in force is from.
    in_force: BTreeMap<ObjectRef, Arc<str>>,
    missing: BTreeMap<ObjectRef, Missing>,
    /// Files that are empty or cannot be parsed.
    bad: BTreeMap<Arc<str>, Bad>,
    troubles: Vec<Trouble>,
    ignored: Vec<Trouble>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// When it was first seen with this stamp.
    since: Boot,
    /// The content in force.
    taken: Option<(Hash, Arc<Read>)>,
    /// The content that the last look found and did not take yet.
    seen: Option<Hash>,
}

#[derive(Clone, Debug)]
struct Bad {
    hash: Hash,
    since: Now,
    findings: Vec<Finding>,
}

/// An object in force that the last look did not find, and how its file looked then.
#[derive(Debug)]
struct Missing {
    looks: u32,
    at: Boot,
    file: Option<Stamp>,
    directory: Option<Stamp>,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    /// Every directory could be listed.
    pub complete: bool,
    /// What is in force, or what is wrong, is not as before.
    pub changed: bool,
    /// Something is in doubt until the next look, [`SECOND_LOOK`] from now.
    pub again: bool,
    /// The directories to watch.
    pub directories: BTreeMap<PathBuf, Stamp>,
}

/// Why a directory could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    List(#[from] ListError),
    #[error("{} is empty and on another device than before, as if it were unmounted", .0.display())]
    Unmounted(PathBuf),
}

/// What is in force, for `assemble`.
#[derive(Debug, Default)]
pub struct InForce {
    pub documents: Vec<Document>,
    /// Objects whose previous version stays.
    pub refused: Vec<(ObjectRef, Position)>,
    /// Files whose objects stay.
    pub kept_files: BTreeSet<Arc<str>>,
}

impl Files {
    /// With what was in force before a restart: objects and their files, and since when some of
    /// those could not be read.
    pub fn new(
        root: &Path,
        in_force: BTreeMap<ObjectRef, Arc<str>>,
        unreadable: BTreeMap<Arc<str>, Now>,
    ) -> Self {
        let bad = |(file, since)| (file, Bad { hash: Hash::default(), since, findings: Vec::new() });
        Self {
            root: root.into(),
            device: None,
            known: BTreeMap::new(),
            in_force,
            missing: BTreeMap::new(),
            bad: unreadable.into_iter().map(bad).collect(),
            troubles: Vec::new(),
            ignored: Vec::new(),
        }
    }

    pub fn in_force_files(&self) -> &BTreeMap<ObjectRef, Arc<str>> {
        &self.in_force
    }

    /// Since when each file that cannot be read has been so.
    pub fn unreadable(&self) -> BTreeMap<Arc<str>, Now> {
        self.bad.iter().map(|(file, bad)| (Arc::clone(file), bad.since)).collect()
    }

    /// Looks at the directory at `now`. `settled`: nothing there has changed for a while.
    pub fn look(&mut self, now: Now, settled: bool) -> Result<Look, LookError> {
        let mut listing = scan::list(&self.root)?;
        if listing.files.is_empty()
            && !self.in_force.is_empty()
            && self.device.is_some_and(|device| device != listing.root.device)
        {
            return Err(LookError::Unmounted(self.root.clone()));
        }
        self.device = Some(listing.root.device);
        let mut changed = false;
        let mut again = false;
        let names: Vec<Arc<str>> = listing.files.keys().cloned().collect();
        for name in names {
            match self.file(&name, &listing, now, settled) {
                Found::Same => {}
                Found::Changed => changed = true,
                Found::InDoubt => again = true,
                Found::Gone => {
                    listing.files.remove(&name);
                }
            }
        }
        changed |= self.forget_files(&listing);
        changed |= self.troubles != listing.troubles || self.ignored != listing.ignored;
        if changed || !self.missing.is_empty() {
            changed |= self.vanished(&listing, now);
            again |= !self.missing.is_empty();
        }
        let complete = listing.troubles.is_empty();
        self.troubles = listing.troubles;
        self.ignored = listing.ignored;
        Ok(Look { complete, changed, again, directories: listing.directories })
    }

    /// Looks at one listed file, and reads it unless it is as before.
    fn file(&mut self, name: &Arc<str>, listing: &Listing, now: Now, settled: bool) -> Found {
        let Some(entry) = listing.files.get(name) else { return Found::Gone };
        let known = self.known.get(name);
        let since = match known {
            Some(known) if known.stamp == entry.stamp => known.since,
            _ => now.boot,
        };
        let resting = now.boot.since(since) >= SAME_TICK;
        if resting && known.is_some_and(|known| known.stamp == entry.stamp && known.seen.is_none())
        {
            return Found::Same;
        }
        let (hash, content) = match scan::read(&entry.path) {
            Ok(bytes) => (Sha256::digest(&bytes).into(), Ok(bytes)),
            Err(ReadError::Gone) => return Found::Gone,
            Err(ReadError::Bad(why)) => (Sha256::digest(why.as_bytes()).into(), Err(why)),
        };
        let known = self.known.entry(Arc::clone(name)).or_insert_with(|| Known {
            stamp: entry.stamp,
            since,
            taken: None,
            seen: None,
        });
        known.stamp = entry.stamp;
        known.since = since;
        let seen = known.seen.take();
        let bad = self.bad.get(name);
        let taken = known.taken.as_ref().map(|(hash, _)| *hash);
        if bad.map(|bad| bad.hash).or(taken) == Some(hash) {
            return Found::Same;
        }
        if taken == Some(hash) {
            // It was unreadable for a moment and is what it was.
            self.bad.remove(name);
            return Found::Changed;
        }
        if !settled && seen != Some(hash) {
            known.seen = Some(hash);
            return Found::InDoubt;
        }
        let read = match content.map(String::from_utf8) {
            Ok(Ok(text)) => manifest::read(name, &text),
            Ok(Err(_)) => unreadable(name, "is not UTF-8 text"),
            Err(why) => unreadable(name, &why),
        };
        if read.unreadable {
            let since = bad.map_or(now, |bad| bad.since);
            self.bad.insert(Arc::clone(name), Bad { hash, since, findings: read.findings });
        } else {
            self.bad.remove(name);
            known.taken = Some((hash, Arc::new(read)));
        }
        Found::Changed
    }

    /// Drops what is known of files that are not there any more; their objects are held apart.
    fn forget_files(&mut self, listing: &Listing) -> bool {
        let there = |name: &str| listing.files.contains_key(name) || covered(&listing.troubles, name);
        let before = self.known.len() + self.bad.len();
        self.known.retain(|name, _| there(name));
        self.bad.retain(|name, _| there(name));
        before != self.known.len() + self.bad.len()
    }

    /// Finds which objects in force are not there any more; whether one went for good.
    fn vanished(&mut self, listing: &Listing, now: Now) -> bool {
        let mut in_force = self.written();
        let mut missing = BTreeMap::new();
        let mut gone = false;
        for (object, file) in std::mem::take(&mut self.in_force) {
            if in_force.contains_key(&object) {
                continue;
            }
            if self.bad.contains_key(&file) || covered(&listing.troubles, &file) {
                in_force.insert(object, file);
                continue;
            }
            let seen = Missing {
                looks: 1,
                at: now.boot,
                file: listing.files.get(&file).map(|entry| entry.stamp),
                directory: listing.directories.get(&parent(&self.root, &file)).copied(),
            };
            let seen = match self.missing.remove(&object) {
                None => seen,
                Some(before) if now.boot.since(before.at) < SECOND_LOOK => before,
                Some(before) if before.confirmed_by(&seen) => {
                    gone = true;
                    continue;
                }
                Some(before) => Missing { looks: before.looks + 1, ..seen },
            };
            missing.insert(object.clone(), seen);
            in_force.insert(object, file);
        }
        self.in_force = in_force;
        self.missing = missing;
        gone
    }

    /// The objects that contents name, and the first file that does.
    fn written(&self) -> BTreeMap<ObjectRef, Arc<str>> {
        let mut written = BTreeMap::new();
        for (name, read) in self.contents() {
            let documents = read.documents.iter().map(|document| &document.reference);
            for object in documents.chain(read.refused.iter().map(|(object, _)| object)) {
                written.entry(object.clone()).or_insert_with(|| Arc::clone(name));
            }
        }
        written
    }

    /// The contents in force. That of a file which cannot be read any more is its last good one.
    fn contents(&self) -> impl Iterator<Item = (&Arc<str>, &Read)> {
        self.known.iter().filter_map(|(name, known)| Some((name, &*known.taken.as_ref()?.1)))
    }

    /// What is in force at present.
    pub fn in_force(&self) -> InForce {
        let mut inputs = InForce::default();
        for (_, read) in self.contents() {
            inputs.documents.extend(read.documents.iter().cloned());
            inputs.refused.extend(read.refused.iter().cloned());
        }
        for (object, file) in &self.in_force {
            if self.missing.contains_key(object) {
                let position = Position { file: Arc::clone(file), line: 1, column: 1 };
                inputs.refused.push((object.clone(), position));
            } else if self.known.get(file).is_none_or(|known| known.taken.is_none()) {
                inputs.kept_files.insert(Arc::clone(file));
            }
        }
        inputs
    }

    /// The objects whose file cannot be read any more.
    pub fn kept(&self) -> BTreeMap<ObjectRef, Kept> {
        let kept = |(object, file): (&ObjectRef, &Arc<str>)| {
            let bad = self.bad.get(file)?;
            Some((object.clone(), Kept { file: Arc::clone(file), since: bad.since }))
        };
        if self.bad.is_empty() { BTreeMap::new() } else { self.in_force.iter().filter_map(kept).collect() }
    }

    /// What is wrong with the files, each by itself.
    pub fn findings(&self) -> Vec<Finding> {
        let readable = self.contents().filter(|(name, _)| !self.bad.contains_key(*name));
        let mut findings: Vec<Finding> =
            readable.flat_map(|(_, read)| read.findings.iter().cloned()).collect();
        for (file, bad) in &self.bad {
            findings.extend(bad.findings.iter().cloned());
            let objects = self.in_force.values().filter(|from| *from == file).count();
            if objects > 0 {
                let message = format!(
                    "its {objects} former objects stay in force, and admit nobody new once it has \
                     been unreadable for the mesh's maxPolicyAge"
                );
                findings.push(finding(file, Severity::Note, message));
            }
        }
        let troubles = self.troubles.iter().map(|t| finding(&t.name, Severity::Error, t.why.clone()));
        let ignored = self.ignored.iter().map(|t| finding(&t.name, Severity::Note, t.why.clone()));
        findings.extend(troubles.chain(ignored));
        findings
    }
}

enum Found {
    Same,
    Changed,
    /// Changed, and not to be believed before it was seen twice.
    InDoubt,
    Gone,
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

fn covered(troubles: &[Trouble], file: &str) -> bool {
    troubles.iter().any(|trouble| trouble.covers(file))
}

fn parent(root: &Path, file: &str) -> PathBuf {
    match file.rsplit_once('/') {
        Some((directory, _)) => root.join(directory),
        None => root.into(),
    }
}

/// What a file says that could not be read at all; `why` goes after its name.
pub fn unreadable(file: &str, why: &str) -> Read {
    let findings = vec![finding(file, Severity::Error, why.into())];
    Read { unreadable: true, findings, ..Read::default() }
}

fn finding(file: &str, severity: Severity, message: String) -> Finding {
    let position = Some(Position { file: file.into(), line: 1, column: 1 });
    Finding { position, object: None, field: None, rule: Rule::Unreadable, message, severity }
}
