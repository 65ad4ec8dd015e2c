//! Manifests from bytes that somebody makes up: libFuzzer in `crds/fuzz`, or the replay of its corpus
//! below. Nothing may panic or take long, and what is asserted here must hold whatever the input.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use tidegate_policy::decide::{Decision, Request, Staff, decide, may_attach};
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_policy::snapshot::Snapshot;

use crate::assemble::{Assembled, Inputs, Memory, Sight, assemble, revise};
use crate::index::Index;
use crate::manifest::{
    Document, Finding, Kind, MESSAGE_BYTES, Object, ObjectRef, Read, read_bytes,
};

fn promise(kept: bool, what: &str) {
    assert!(kept, "{what}");
}

/// A file of manifests: read, assembled as a directory, and put into an index as from an API server.
pub fn manifests(input: &[u8]) {
    let read = read_bytes("input.yaml", input);
    told(&read.findings);
    promise(!read.unreadable || !read.findings.is_empty(), "what cannot be read is told");
    directory(&read);
    index(&read);
}

fn told(findings: &[Finding]) {
    for finding in findings {
        let short = finding.message.len() <= MESSAGE_BYTES && finding.message.is_ascii();
        promise(short, "a message is short and ASCII");
        promise(!finding.to_string().contains('\n'), "a finding is one line");
    }
}

fn directory(read: &Read) {
    let documents: Vec<&Document> = read.documents.iter().collect();
    let kept_files = BTreeSet::new();
    let inputs = Inputs { documents: &documents, refused: &read.refused, kept_files: &kept_files };
    let now = Timestamp::UNIX_EPOCH;
    let mut count = 0;
    let mut uid = || {
        count += 1;
        count.to_string()
    };
    let (first, memory) = assemble(&inputs, &Memory::default(), now, &mut uid);
    told(&first.findings);
    let (again, remembered) = assemble(&inputs, &memory, now, &mut uid);
    promise(remembered == memory, "the same again is remembered alike");
    promise(same(&first, &again), "the same again means the same");
    let stored =
        serde_json::to_vec(&memory).map(|stored| serde_json::from_slice::<Memory>(&stored));
    promise(stored.is_ok_and(|read| read.is_ok_and(|read| read == memory)), "memory is kept");
    for document in &read.documents {
        told(&document.refusals());
    }
    // Each window by itself taken away and brought back.
    let windows = documents.iter().filter(|it| it.reference.kind == Kind::SupportWindow);
    let once: Vec<(&ObjectRef, &Document)> = windows
        .map(|it| (&it.reference, *it))
        .filter(|(object, _)| {
            documents.iter().filter(|it| it.reference == **object).count() == 1
                && read.refused.iter().all(|(other, _)| other != *object)
        })
        .collect();
    for (object, document) in once.into_iter().take(4) {
        let gone = [(object.clone(), Sight::Gone)];
        let Some((without, left)) = revise(&first, &memory, &gone, now, &mut uid) else { continue };
        let back = [(object.clone(), Sight::Document(document))];
        let back = revise(&without, &left, &back, now, &mut uid);
        let whole = assemble(&inputs, &left, now, &mut uid).0;
        promise(
            back.is_some_and(|(back, _)| alike(&back, &whole)),
            "an edit means what a look does",
        );
    }
    if let Some(snapshot) = &first.snapshot {
        asked(snapshot);
    }
}

fn same(one: &Assembled, other: &Assembled) -> bool {
    one.snapshot == other.snapshot && one.findings == other.findings && one.relays == other.relays
}

/// But for uids, which are new each time.
fn alike(one: &Assembled, other: &Assembled) -> bool {
    let windows = |it: &Assembled| -> Vec<ObjectKey> {
        it.snapshot.iter().flat_map(Snapshot::windows).map(|it| it.meta.key.clone()).collect()
    };
    windows(one) == windows(other) && one.findings == other.findings && one.relays == other.relays
}

fn index(read: &Read) {
    let home = read.documents.iter().find(|it| it.reference.kind == Kind::Mesh);
    let (Ok(namespace), Ok(name)) = (
        Label::parse(home.map_or("default", |it| &it.reference.namespace)),
        Label::parse(home.map_or("prod", |it| &it.reference.name)),
    ) else {
        return;
    };
    let mut index = Index::new(ObjectKey { namespace, name });
    let mut objects = BTreeSet::new();
    for document in &read.documents {
        let decoded = Object::decode(document.reference.kind, &document.value);
        promise(decoded.is_ok(), "a valid document is decoded");
        let _ = index.put(&document.object);
        objects.insert(document.reference.clone());
    }
    for object in &objects {
        let _ = (index.verdict(object), index.acceptance(object));
    }
    if let Some(snapshot) = index.snapshot() {
        asked(&snapshot);
    }
    for object in &objects {
        let _ = index.remove(object);
    }
    promise(index.snapshot().is_none(), "nothing is left of what was removed");
}

/// Decides as a relay does, at instants all over the calendar.
fn asked(snapshot: &Snapshot) {
    let instants = [i64::MIN, -1, 0, 1_795_000_000, 4_102_444_800, i64::MAX].map(|second| {
        let second = second.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
    });
    for now in instants {
        for window in snapshot.windows().take(4) {
            let schedule = &window.schedule;
            let open = schedule.open_at(now);
            promise(open.is_none_or(|open| open.contains(now)), "what is open is open now");
            promise(schedule.openings_from(now).take(3).all(|it| it.opens >= now), "to come");
            let ended = schedule.last_closed(now);
            promise(ended.is_none_or(|ended| ended.closes <= now), "what has closed is closed");
            let later = now.saturating_add(SignedDuration::from_hours(1));
            promise(schedule.human_from(now, later.unwrap_or(now)).is_ascii(), "ASCII");
        }
        for terminal in snapshot.terminals().take(3) {
            may_attach(snapshot, terminal, now);
            for user in snapshot.users().take(3) {
                let Some(key) = user.public_keys.first().cloned() else { continue };
                let source = IpAddr::from([203, 0, 113, 7]);
                let staff = Staff { login: user.login.clone(), key, source };
                let host = terminal.meta.key.name.as_str();
                let port = terminal.services.first().map_or(22, |service| service.port.into());
                let request = Request { staff: &staff, host, port, agent: true, way: None };
                match decide(snapshot, &request, now) {
                    Decision::Allow(allow) => {
                        let all = allow.candidates.iter().all(|it| it.deadline > now);
                        promise(all && !allow.candidates.is_empty(), "a deadline is to come");
                    }
                    Decision::Deny(deny) => {
                        let sentence = deny.to_string();
                        promise(sentence.is_ascii() && sentence.len() <= 300, "a sentence");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    /// Every input that fuzzing has found worth keeping; each of them cut short, and with single bytes
    /// changed.
    #[test]
    fn the_corpus_is_survived() {
        let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/manifests");
        let mut count = 0;
        for file in std::fs::read_dir(&corpus).unwrap() {
            let input = std::fs::read(file.unwrap().path()).unwrap();
            super::manifests(&input);
            for at in (0..input.len()).step_by(input.len().div_ceil(4).max(1)) {
                let mut changed = input.clone();
                changed[at] ^= 1;
                super::manifests(&changed);
                super::manifests(&input[..at]);
            }
            count += 1;
        }
        assert!(count > 10, "the corpus has {count} inputs");
    }
}
