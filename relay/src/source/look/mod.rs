//! What the manifests of a directory say, over time: takes listings and contents in, and tells which
//! documents are in force. Touches the disk, blocks, and is told the time.
//!
//! Files are written while they are read, so nothing is believed at first sight that would revoke:
//! - A document or file that vanished is held until a second look finds its file as the first did.
//! - A file whose content changed while things still move is taken when two looks saw the same bytes,
//!   or, so that nobody puts off a revocation by writing on, after half a second.
//! - A file that is empty or cannot be parsed keeps what it had.

mod content;
mod named;
#[cfg(test)]
mod tests;
mod vanished;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imbl::OrdMap;
use tidegate_commands::manifests::finding;
use tidegate_commands::manifests::scan::{self, ListError, Stamp, Trouble};
use tidegate_crds::assemble::Sight;
use tidegate_crds::manifest::{self, Document, Finding, ObjectRef, Position, Read, Severity};

use super::Kept;
use crate::clock::Now;
use content::{Bad, Found, Hash, Known};
use named::Named;
use vanished::Missing;

/// The most findings that are kept of one directory.
pub const MAX_FINDINGS: usize = 10_000;

/// Makes documents of a file's name and bytes: [`manifest::read_bytes`].
type Reader = fn(&str, &[u8]) -> Read;

/// The files of one directory, and what of them is in force.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    reader: Reader,
    device: Option<u64>,
    known: BTreeMap<Arc<str>, Known>,
    /// Where the contents in force name each object.
    named: Named,
    /// The file that each object in force is from.
    in_force: OrdMap<ObjectRef, Arc<str>>,
    /// Of those, the ones that no content in force names: their previous version stays.
    held: BTreeSet<ObjectRef>,
    /// Of those, the ones that the last look did not find at all.
    missing: BTreeMap<ObjectRef, Missing>,
    /// Objects that were found otherwise since [`Files::edits`] was last asked.
    touched: BTreeSet<ObjectRef>,
    /// Nobody has seen what is in force yet, or objects were kept for the sake of their files.
    anew: bool,
    /// Files that are empty or cannot be parsed.
    bad: BTreeMap<Arc<str>, Bad>,
    troubles: Vec<Trouble>,
    ignored: Vec<Trouble>,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    /// Every directory could be listed.
    pub complete: bool,
    /// What is in force, or what is wrong, is not as before.
    pub changed: bool,
    /// Something is in doubt until the next look, [`super::pace::SECOND_LOOK`] from now.
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
    #[error("{path} {why}; a relay starts only from manifests that it can read entirely")]
    Incomplete { path: String, why: String },
}

/// What is in force, for `assemble`.
#[derive(Debug, Default)]
pub struct InForce<'a> {
    pub documents: Vec<&'a Document>,
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
        in_force: OrdMap<ObjectRef, Arc<str>>,
        unreadable: BTreeMap<Arc<str>, Now>,
    ) -> Self {
        let bad =
            |(file, since)| (file, Bad { hash: Hash::default(), since, findings: Vec::new() });
        Self {
            root: root.into(),
            reader: manifest::read_bytes,
            device: None,
            known: BTreeMap::new(),
            named: Named::default(),
            held: in_force.keys().cloned().collect(),
            in_force,
            missing: BTreeMap::new(),
            touched: BTreeSet::new(),
            anew: true,
            bad: unreadable.into_iter().map(bad).collect(),
            troubles: Vec::new(),
            ignored: Vec::new(),
        }
    }

    pub fn in_force_files(&self) -> &OrdMap<ObjectRef, Arc<str>> {
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
        if changed || !self.held.is_empty() {
            changed |= self.vanished(&listing, now);
            again |= !self.missing.is_empty();
        }
        let complete = listing.troubles.is_empty();
        self.troubles = listing.troubles;
        self.ignored = listing.ignored;
        Ok(Look { complete, changed, again, directories: listing.directories })
    }

    /// Why the last look was not complete.
    pub fn incomplete(&self) -> LookError {
        let trouble = self.troubles.first();
        let name = trouble.map_or("", |trouble| &*trouble.name);
        LookError::Incomplete {
            path: self.root.join(name).display().to_string(),
            why: trouble.map_or_else(String::new, |trouble| trouble.why.clone()),
        }
    }

    /// The contents in force. That of a file which cannot be read any more is its last good one.
    fn contents(&self) -> impl Iterator<Item = (&Arc<str>, &Read)> {
        self.known.iter().filter_map(|(name, known)| Some((name, &*known.taken.as_ref()?.1)))
    }

    /// What is in force at present.
    pub fn in_force(&self) -> InForce<'_> {
        let mut inputs = InForce::default();
        for (_, read) in self.contents() {
            inputs.documents.extend(&read.documents);
            inputs.refused.extend(read.refused.iter().cloned());
        }
        for object in &self.held {
            let Some(file) = self.in_force.get(object) else { continue };
            if self.keeps(file) {
                inputs.kept_files.insert(Arc::clone(file));
            } else {
                let position = Position { file: Arc::clone(file), line: 1, column: 1 };
                inputs.refused.push((object.clone(), position));
            }
        }
        inputs
    }

    /// Whether what is held of a file is held because that cannot be read.
    fn keeps(&self, file: &str) -> bool {
        self.device.is_none() || self.bad.contains_key(file) || covered(&self.troubles, file)
    }

    /// The objects that are otherwise than when this was last asked; `None`: it takes a look at all
    /// that is in force. To be asked once for each time that a policy is made.
    pub fn edits(&mut self) -> Option<Vec<(ObjectRef, Sight<'_>)>> {
        let touched = std::mem::take(&mut self.touched);
        let held = self.held.iter().filter_map(|object| self.in_force.get(object));
        let keeps = held.into_iter().any(|file| self.keeps(file));
        if std::mem::replace(&mut self.anew, keeps) || keeps {
            return None;
        }
        let sight = |object: ObjectRef| {
            let sight = match self.named.of(&object) {
                [] if self.held.contains(&object) => Sight::Stays,
                [] => Sight::Gone,
                [place] => match place.document {
                    Some(index) => {
                        let (_, read) = self.known.get(&place.file)?.taken.as_ref()?;
                        Sight::Document(read.documents.get(index)?)
                    }
                    None => Sight::Stays,
                },
                _ => return None,
            };
            Some((object, sight))
        };
        touched.into_iter().map(sight).collect()
    }

    /// The objects whose file cannot be read any more.
    pub fn kept(&self) -> BTreeMap<ObjectRef, Kept> {
        let kept = |(object, file): (&ObjectRef, &Arc<str>)| {
            let bad = self.bad.get(file)?;
            Some((object.clone(), Kept { file: Arc::clone(file), since: bad.since }))
        };
        if self.bad.is_empty() {
            BTreeMap::new()
        } else {
            self.in_force.iter().filter_map(kept).collect()
        }
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
        let troubles =
            self.troubles.iter().map(|t| finding(&t.name, Severity::Error, t.why.clone()));
        let ignored = self.ignored.iter().map(|t| finding(&t.name, Severity::Note, t.why.clone()));
        findings.extend(troubles.chain(ignored));
        findings
    }
}

fn covered(troubles: &[Trouble], file: &str) -> bool {
    troubles.iter().any(|trouble| trouble.covers(file))
}
