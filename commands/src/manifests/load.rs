//! Reads a directory of manifests once, with nothing remembered: what `check` and the other offline
//! commands work on. Blocks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_crds::assemble::{Inputs, Memory, assemble};
use tidegate_crds::compile::RelaySettings;
use tidegate_crds::manifest::{self, Document, Finding, ObjectRef, Position, Severity};
use tidegate_policy::snapshot::Snapshot;
use tidegate_process::clock::Now;

use super::scan::{self, ListError, ReadError};
use super::unreadable;

/// What a directory says.
#[derive(Debug)]
pub struct Loaded {
    /// `None`: there is no Mesh that can be used.
    pub snapshot: Option<Snapshot>,
    pub relays: Vec<RelaySettings>,
    /// In the order of files and lines.
    pub findings: Vec<Finding>,
    /// How many files and objects were read.
    pub files: usize,
    pub objects: usize,
}

impl Loaded {
    /// How many findings make something not apply.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }
}

/// Reads every manifest below `directory`; positions carry the path as given, so that an editor finds it.
pub fn load(directory: &Path, now: Now) -> Result<Loaded, ListError> {
    Ok(Look::at(directory, |_| true)?.mean(None, now).0)
}

/// As [`load`], without the support windows of files that hold nothing else. A large directory is
/// mostly those, and reading one costs much more than seeing that it is one.
pub fn load_without_windows(directory: &Path, now: Now) -> Result<Loaded, ListError> {
    Ok(Look::at(directory, |bytes| !only_windows(bytes))?.mean(None, now).0)
}

/// What `old` says, and what a relay that follows it would make of an edit to `new`: there are
/// previous versions, which stay in force where the new one is refused, and first acceptances.
pub fn load_edit(old: &Path, new: &Path, now: Now) -> Result<(Loaded, Loaded), ListError> {
    let (before, after) = (Look::at(old, |_| true)?, Look::at(new, |_| true)?);
    let (before, memory) = before.mean(None, now);
    let (after, _) = after.mean(Some((old, &memory)), now);
    Ok((before, after))
}

/// One look at a directory.
struct Look {
    documents: Vec<Document>,
    refused: Vec<(ObjectRef, Position)>,
    findings: Vec<Finding>,
    /// Relative names of files that are empty or cannot be read.
    unreadable: Vec<Arc<str>>,
    files: usize,
}

impl Look {
    /// Reads the files whose bytes `wanted` is true of.
    fn at(directory: &Path, wanted: impl Fn(&[u8]) -> bool) -> Result<Self, ListError> {
        let listing = scan::list(directory)?;
        let mut look = Self {
            documents: Vec::new(),
            refused: Vec::new(),
            findings: Vec::new(),
            unreadable: Vec::new(),
            files: listing.files.len(),
        };
        for trouble in listing.troubles.iter().chain(&listing.ignored) {
            let shown = shown(directory, &trouble.name);
            look.findings.append(&mut unreadable(&shown, &trouble.why).findings);
        }
        for (name, entry) in &listing.files {
            let shown = shown(directory, name);
            let mut read = match scan::read(&entry.path) {
                Ok(bytes) if wanted(&bytes) => manifest::read_bytes(&shown, &bytes),
                Ok(_) | Err(ReadError::Gone) => continue,
                Err(ReadError::Bad(why)) => unreadable(&shown, &why),
            };
            look.documents.append(&mut read.documents);
            look.refused.append(&mut read.refused);
            look.findings.append(&mut read.findings);
            if read.unreadable {
                look.unreadable.push(Arc::clone(name));
            }
        }
        Ok(look)
    }

    /// What it means, on the ground of what is remembered of a former directory, if of any.
    fn mean(mut self, former: Option<(&Path, &Memory)>, now: Now) -> (Loaded, Memory) {
        let nothing = Memory::default();
        let memory = former.map_or(&nothing, |(_, memory)| memory);
        // What is remembered was read from the former directory.
        let kept = |(directory, _): (&Path, _)| -> BTreeSet<Arc<str>> {
            self.unreadable.iter().map(|name| shown(directory, name).into()).collect()
        };
        let kept_files = former.map(kept).unwrap_or_default();
        let documents: Vec<_> = self.documents.iter().collect();
        let inputs =
            Inputs { documents: &documents, refused: &self.refused, kept_files: &kept_files };
        let mut serial = memory.iter().count();
        let mut new_uid = || {
            serial += 1;
            format!("unsaved-{serial}")
        };
        let (mut assembled, memory) = assemble(&inputs, memory, now.wall, &mut new_uid);
        self.findings.append(&mut assembled.findings);
        sort(&mut self.findings);
        let loaded = Loaded {
            snapshot: assembled.snapshot,
            relays: assembled.relays,
            findings: self.findings,
            files: self.files,
            objects: self.documents.len() + self.refused.len(),
        };
        (loaded, memory)
    }
}

/// Whether the bytes can hold no object but a SupportWindow: no other kind's name occurs in them, and
/// no backslash, by which it could be written in another way.
fn only_windows(bytes: &[u8]) -> bool {
    const OTHERS: [&str; 6] = ["Mesh", "Relay", "LoginUser", "Terminal", "Namespace", "List"];
    let text = String::from_utf8_lossy(bytes);
    text.contains("SupportWindow")
        && !text.contains('\\')
        && !OTHERS.iter().any(|kind| text.contains(kind))
}

fn shown(directory: &Path, name: &str) -> String {
    let path: PathBuf = directory.join(name);
    path.display().to_string()
}

/// Puts findings into the order of files and lines, and drops those that say the same twice.
pub fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| a.position.cmp(&b.position).then_with(|| a.message.cmp(&b.message)));
    findings.dedup();
}
