//! Reads a directory of manifests once, with nothing remembered: what `check` and the other offline
//! commands work on. Blocks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidegate_crds::assemble::{Inputs, Memory, assemble};
use tidegate_crds::compile::RelaySettings;
use tidegate_crds::manifest::{self, Finding, Severity};
use tidegate_policy::snapshot::Snapshot;

use super::look::unreadable;
use super::scan::{self, ListError, ReadError};
use crate::clock::Now;

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
    let listing = scan::list(directory)?;
    let mut documents = Vec::new();
    let mut refused = Vec::new();
    let mut findings = Vec::new();
    for trouble in listing.troubles.iter().chain(&listing.ignored) {
        let shown = shown(directory, &trouble.name);
        findings.append(&mut unreadable(&shown, &trouble.why).findings);
    }
    for (name, entry) in &listing.files {
        let shown = shown(directory, name);
        let mut read = match scan::read(&entry.path) {
            Ok(bytes) => manifest::read_bytes(&shown, &bytes),
            Err(ReadError::Bad(why)) => unreadable(&shown, &why),
            Err(ReadError::Gone) => continue,
        };
        documents.append(&mut read.documents);
        refused.append(&mut read.refused);
        findings.append(&mut read.findings);
    }
    let objects = documents.len() + refused.len();
    let kept_files = BTreeSet::new();
    let inputs = Inputs { documents: &documents, refused: &refused, kept_files: &kept_files };
    let mut serial = 0_u64;
    let mut new_uid = || {
        serial += 1;
        format!("unsaved-{serial}")
    };
    let (mut assembled, _) = assemble(&inputs, &Memory::default(), now.wall, &mut new_uid);
    findings.append(&mut assembled.findings);
    sort(&mut findings);
    Ok(Loaded {
        snapshot: assembled.snapshot,
        relays: assembled.relays,
        findings,
        files: listing.files.len(),
        objects,
    })
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
