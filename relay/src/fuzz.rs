//! What a relay reads back from its state directory, from bytes that somebody makes up: libFuzzer in
//! `relay/fuzz`, or the replay of its corpora below. Nothing may panic, and what is asserted here must hold
//! whatever the input.
//!
//! `relay/fuzz` compiles this and the readers without the rest of the relay: see its `src/lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use tidegate_crds::assemble::{Inputs, Sight, assemble, revise};
use tidegate_crds::manifest::{ObjectRef, Read, read_bytes};

use crate::audit::log::Log;
use crate::audit::{Event, What, left_open, verify, verify_from};
use crate::claim;
use crate::history;
use crate::lastseen;
use crate::record::Records;
use crate::source::kube::journal;
use crate::source::remember;
use crate::state::{StateDir, sha256_hex};

fn promise(kept: bool, what: &str) {
    assert!(kept, "{what}");
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The parts between bytes 0xff, which no text has: the files of one input.
fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == 0xff)
}

fn write(directory: &Path, name: &str, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        promise(fs::write(directory.join(name), bytes).is_ok(), "a file is written");
    }
}

/// An audit trail: the head, the current file, then closed files, each with its number before a newline.
/// It is verified, and a relay starts on it: then the trail has no more to be repaired.
pub fn audit(input: &[u8]) {
    let Ok(place) = tempfile::tempdir() else { return };
    let trail = place.path();
    let mut files = parts(input);
    let (head, current) = (files.next(), files.next());
    let mut last = "0".repeat(64);
    for file in files.take(4) {
        let mut lines = file.splitn(2, |byte| *byte == b'\n');
        let number = lines.next().and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
        let number: u64 = number.unwrap_or(1);
        let text = lines.next().map(|text| chained(text, &mut last));
        write(trail, &format!("audit-{number:020}.jsonl"), text.as_deref());
    }
    let current = current.map(|text| chained(text, &mut last));
    write(trail, "audit.jsonl", current.as_deref());
    let head = head.filter(|head| !head.is_empty()).map(|text| chained(text, &mut last));
    write(trail, "head", head.as_deref());
    let _ = verify(trail);
    for first in [0, 1, 2, u64::MAX] {
        let _ = verify_from(trail, first);
    }
    let _ = left_open(trail);
    promise(begin(trail).is_ok(), "a relay starts on whatever is there");
    promise(begin(trail).is_ok_and(|repaired| !repaired), "what was repaired is whole");
}

/// The lines, each with the hash of the one before where it has `"@"`: nobody finds those by chance.
fn chained(text: &[u8], last: &mut String) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let start = all.len();
        match line.windows(3).position(|part| part == br#""@""#) {
            Some(at) => {
                let (before, after) = line.split_at(at + 1);
                all.extend_from_slice(before);
                all.extend_from_slice(last.as_bytes());
                all.extend(after.iter().skip(1));
            }
            None => all.extend_from_slice(line),
        }
        let line = all.get(start..).unwrap_or_default();
        *last = sha256_hex(line.strip_suffix(b"\n").unwrap_or(line));
    }
    all
}

/// A relay starts, and stops; whether it had something to repair.
fn begin(trail: &Path) -> std::io::Result<bool> {
    let mut log = Log::open(trail, 64 << 20, now())?;
    let repaired = log.has_pending();
    log.append(&[&Event::new(What::Start, now())])?;
    log.head().sync();
    Ok(repaired)
}

/// A state directory with one damaged file: the first byte says which.
pub fn state(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    let Ok(place) = tempfile::tempdir() else { return };
    let Ok(state) = StateDir::open(&place.path().join("state")) else { return };
    match which % 6 {
        0 => claims(&state, input),
        1 => records(&state, input),
        2 => histories(&state, input),
        3 => last_seen(&state, input),
        4 => memory(&state, input),
        _ => kept(&state, input),
    }
}

fn claims(state: &StateDir, input: &[u8]) {
    let Ok(directory) = state.subdirectory("claims") else { return };
    let name = "0".repeat(64);
    write(&directory, &name, Some(input));
    write(&directory, &format!("{name}-1"), Some(input));
    let table = claim::table::load(&mut claim::files::Files::new(directory.clone()));
    promise(table.is_ok(), "claims are read");
    let stale = table.map(|table| table.stale(&|_| false, now())).unwrap_or_default();
    promise(stale.len() <= 1, "one claim at most is stale");
    promise(directory.join(name).exists(), "a one-time claim stays");
}

fn records(state: &StateDir, input: &[u8]) {
    let Ok(directory) = state.subdirectory("sessions") else { return };
    let mut files = parts(input);
    write(&directory, "ss-0190163d-8694-739b-aea5-966c26f8ad91.json", files.next());
    write(&directory, "ss-0190163d-8694-739b-aea5-966c26f8ad91", files.next());
    write(&directory, "alive", files.next());
    let opened = Records::open(state, "relay", now());
    promise(opened.is_ok(), "records are read");
    let ended = opened.iter().flat_map(|(_, left)| left).all(|record| record.ended.is_some());
    promise(ended, "what was left open is ended");
}

fn histories(state: &StateDir, input: &[u8]) {
    write(state.root(), "history", Some(input));
    let entries = history::read(&state.root().join("history"));
    promise(entries.is_ok_and(|entries| entries.len() <= history::KEPT), "the last entries");
}

fn last_seen(state: &StateDir, input: &[u8]) {
    write(state.root(), "last-seen.json", Some(input));
    lastseen::save(state, lastseen::load(state));
}

/// The policy of before, and a look at manifests that have edits of some of its objects.
fn memory(state: &StateDir, input: &[u8]) {
    let mut files = parts(input);
    write(state.root(), "policy.json", files.next());
    write(state.root(), "policy-seen.json", files.next());
    let Ok((remembered, seen)) = remember::load(state) else { return };
    let _ = seen.map(|seen| (seen.now(None), seen.now(Some("boot"))));
    let Some(remembered) = remembered else { return };
    let Read { documents, refused, .. } = read_bytes("new.yaml", MANIFESTS.as_bytes());
    let documents: Vec<_> = documents.iter().collect();
    let objects: Vec<ObjectRef> = remembered.memory.iter().map(|it| it.object.clone()).collect();
    let mut uid = || "uid".to_owned();
    let kept_files = remembered.memory.iter().map(|it| it.position.file.clone()).collect();
    let none = BTreeSet::default();
    for (documents, kept_files) in [(&documents[..], &none), (&[], &kept_files)] {
        let inputs = Inputs { documents, refused: &refused, kept_files };
        let (assembled, next) = assemble(&inputs, &remembered.memory, now(), &mut uid);
        for object in &objects {
            let edits = [(object.clone(), Sight::Stays)];
            let _ = revise(&assembled, &next, &edits, now(), &mut uid);
        }
        promise(serde_json::to_vec(&next).is_ok(), "what is remembered is written");
    }
}

const MANIFESTS: &str = include_str!("fuzz.yaml");

/// What a relay of a cluster keeps of its policy.
fn kept(state: &StateDir, input: &[u8]) {
    let path = state.root().join("policy.journal");
    // Each line gets its checksum, but for those that begin with `!`.
    let mut text = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let (line, sum) = match line.strip_prefix(b"!") {
            Some(bare) => (bare, String::new()),
            None => (line, sha256_hex(line.strip_suffix(b"\n").unwrap_or(line))),
        };
        text.extend(sum.bytes().take(8).chain(sum.bytes().take(1).map(|_| b' ')));
        text.extend_from_slice(line);
    }
    write(state.root(), "policy.journal", Some(&text));
    let Ok(Some(found)) = journal::find(&path) else { return };
    promise(found.length <= text.len() as u64, "a commit is within the file");
    let objects = replayed(&path, &found);
    promise(journal::compact(&path).is_ok(), "what has a commit is compacted");
    let Ok(Some(again)) = journal::find(&path) else {
        return promise(false, "a commit outlives it");
    };
    promise(format!("{:?}", again.commit) == format!("{:?}", found.commit), "and is the same");
    promise(again.head == found.head, "as is whose it is");
    promise(replayed(&path, &again) == objects, "and the policy");
}

/// The objects of a journal, each by its name.
fn replayed(path: &Path, found: &journal::Found) -> BTreeMap<String, serde_json::Value> {
    let mut objects = BTreeMap::new();
    let read = journal::replay(path, found.length, |entry| match entry {
        journal::Entry::Put(object, value) => drop(objects.insert(object.to_string(), value)),
        journal::Entry::Remove(object) => drop(objects.remove(&object.to_string())),
    });
    promise(read.is_ok(), "what was found is replayed");
    objects
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    /// Every input that fuzzing has found worth keeping; each of them cut short, and with single bytes
    /// changed.
    #[test]
    fn the_corpora_are_survived() {
        for name in ["audit", "state"] {
            let target = if name == "audit" { super::audit } else { super::state };
            let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut count = 0;
            for file in std::fs::read_dir(&corpus).unwrap() {
                let input = std::fs::read(file.unwrap().path()).unwrap();
                target(&input);
                for at in (0..input.len()).step_by(input.len().div_ceil(8).max(1)) {
                    let mut changed = input.clone();
                    changed[at] ^= 1;
                    target(&changed);
                    target(&input[..at]);
                }
                count += 1;
            }
            assert!(count > 4, "the corpus of {name} has {count} inputs");
        }
    }
}
