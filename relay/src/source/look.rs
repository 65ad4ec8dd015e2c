//! What the manifests of a directory say, over time: takes listings and contents in, and tells which
//! documents are in force. Touches the disk, blocks, and is told the time.
//!
//! Files are written while they are read, so nothing is believed at first sight that would revoke:
//! - A document or file that vanished is held until a second look finds its file as the first did.
//! - A file whose content changed while things still move is taken when two looks saw the same bytes,
//!   or, so that nobody puts off a revocation by writing on, after half a second.
//! - A file that is empty or cannot be parsed keeps what it had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_commands::manifests::scan::{self, ListError, Listing, ReadError, Stamp, Trouble};
use tidegate_commands::manifests::{finding, unreadable};
use tidegate_crds::manifest::{self, Document, Finding, ObjectRef, Position, Read, Severity};

use super::Kept;
use super::pace::SECOND_LOOK;
use crate::clock::{Boot, Now};

/// A stamp cannot tell two writes within one tick of the file system's clock: a file is read again
/// for as long after its last change.
const SAME_TICK: Duration = Duration::from_secs(3);
/// Content that never rests is taken after this long, if it can be read.
const LONGEST_DOUBT: Duration = Duration::from_millis(500);
/// What is missing in that many looks is gone, even if its file never comes to rest.
const MISSING_LOOKS: u32 = 5;
/// The most findings that are kept of one directory.
pub const MAX_FINDINGS: usize = 10_000;

type Hash = [u8; 32];
/// Makes documents of a file's name and bytes: [`manifest::read_bytes`].
type Reader = fn(&str, &[u8]) -> Read;

/// The files of one directory, and what of them is in force.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    reader: Reader,
    device: Option<u64>,
    known: BTreeMap<Arc<str>, Known>,
    /// The file that each object in force is from.
    in_force: BTreeMap<ObjectRef, Arc<str>>,
    /// Of those, the ones that no content in force names: their previous version stays.
    held: BTreeSet<ObjectRef>,
    /// Of those, the ones that the last look did not find at all.
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
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    hash: Hash,
    /// When it was seen first, and when any content was that is not taken yet.
    at: Boot,
    since: Boot,
    read: Arc<Read>,
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
        in_force: BTreeMap<ObjectRef, Arc<str>>,
        unreadable: BTreeMap<Arc<str>, Now>,
    ) -> Self {
        let bad =
            |(file, since)| (file, Bad { hash: Hash::default(), since, findings: Vec::new() });
        Self {
            root: root.into(),
            reader: manifest::read_bytes,
            device: None,
            known: BTreeMap::new(),
            held: in_force.keys().cloned().collect(),
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
        let doubtful = seen.as_ref().map_or(now.boot, |seen| seen.since);
        let seen = seen.filter(|seen| seen.hash == hash);
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
        let at = seen.as_ref().map_or(now.boot, |seen| seen.at);
        let read = match (seen, content) {
            (Some(seen), _) => seen.read,
            (None, Ok(bytes)) => Arc::new((self.reader)(name, &bytes)),
            (None, Err(why)) => Arc::new(unreadable(name, &why)),
        };
        let taken = settled
            || now.boot.since(at) >= SECOND_LOOK
            || now.boot.since(doubtful) >= LONGEST_DOUBT && !read.unreadable;
        if !taken {
            known.seen = Some(Seen { hash, at, since: doubtful, read });
            return Found::InDoubt;
        }
        if read.unreadable {
            let since = bad.map_or(now, |bad| bad.since);
            self.bad.insert(Arc::clone(name), Bad { hash, since, findings: read.findings.clone() });
        } else {
            self.bad.remove(name);
            known.taken = Some((hash, read));
        }
        Found::Changed
    }

    /// Drops what is known of files that are not there any more; their objects are held apart.
    fn forget_files(&mut self, listing: &Listing) -> bool {
        let there =
            |name: &str| listing.files.contains_key(name) || covered(&listing.troubles, name);
        let before = self.known.len() + self.bad.len();
        self.known.retain(|name, _| there(name));
        self.bad.retain(|name, _| there(name));
        before != self.known.len() + self.bad.len()
    }

    /// Finds which objects in force are not there any more; whether one went for good.
    fn vanished(&mut self, listing: &Listing, now: Now) -> bool {
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
        for (object, file) in &self.in_force {
            if !self.held.contains(object) {
                continue;
            }
            let never_listed = self.device.is_none();
            if never_listed || self.bad.contains_key(file) || covered(&self.troubles, file) {
                inputs.kept_files.insert(Arc::clone(file));
            } else {
                let position = Position { file: Arc::clone(file), line: 1, column: 1 };
                inputs.refused.push((object.clone(), position));
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tidegate_crds::manifest::{Kind, Object, Positions};

    use super::*;

    /// A file of these tests holds one object's name and its content per line; `!` is a syntax error.
    fn reader(file: &str, bytes: &[u8]) -> Read {
        let text = std::str::from_utf8(bytes).unwrap();
        if text.trim().is_empty() || text.contains('!') {
            return unreadable(file, "cannot be parsed");
        }
        let document = |(at, line): (usize, &str)| {
            let (name, content) = line.split_once(' ').unwrap_or((line, ""));
            let line = u32::try_from(at + 1).unwrap();
            let position = Position { file: file.into(), line, column: 1 };
            Document {
                object: Object::Namespace { name: name.into(), labels: BTreeMap::new() },
                reference: object(name),
                fields: Positions::new(&position),
                position,
                value: content.into(),
            }
        };
        let documents = text.lines().enumerate().map(document).collect();
        Read { documents, ..Read::default() }
    }

    fn object(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::SupportWindow, namespace: "acme".into(), name: name.into() }
    }

    struct Bench {
        root: tempfile::TempDir,
        files: Files,
        /// Milliseconds since the bench was made.
        time: u64,
    }

    impl Bench {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            let mut bench = Self {
                files: Files::new(root.path(), BTreeMap::new(), BTreeMap::new()),
                root,
                time: 0,
            };
            bench.files.reader = reader;
            for (name, text) in files {
                bench.write(name, text);
            }
            let look = bench.look(0, true);
            assert!(look.complete && !look.again);
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), text).unwrap();
        }

        fn at(&self) -> Now {
            let boot = Boot::from_start(Duration::from_millis(self.time));
            let wall = jiff::Timestamp::from_millisecond(i64::try_from(self.time).unwrap());
            Now { wall: wall.unwrap(), boot }
        }

        /// Looks `later` milliseconds after the last look.
        fn look(&mut self, later: u64, settled: bool) -> Look {
            self.time += later;
            self.files.look(self.at(), settled).unwrap()
        }

        /// What is in force: `name=content`, `name?` where the previous version stays.
        fn in_force(&self) -> String {
            let inputs = self.files.in_force();
            let written = inputs.documents.iter().map(|document| {
                format!("{}={}", document.reference.name, document.value.as_str().unwrap())
            });
            let held = inputs.refused.iter().map(|(object, _)| format!("{}?", object.name));
            let files = inputs.kept_files.iter().map(|file| format!("[{file}]"));
            let mut all: Vec<String> = written.chain(held).chain(files).collect();
            all.sort();
            all.join(" ")
        }
    }

    #[test]
    fn a_quiet_directory_changes_nothing() {
        let mut bench = Bench::new(&[("a.yaml", "w 1"), ("b/c.yaml", "x 1\ny 2")]);
        assert_eq!(bench.in_force(), "w=1 x=1 y=2");
        for _ in 0..3 {
            let look = bench.look(60_000, true);
            assert!(look.complete && !look.changed && !look.again);
        }
    }

    #[test]
    fn a_change_at_rest_applies_at_once_and_a_touch_is_none() {
        let mut bench = Bench::new(&[("a.yaml", "w 1")]);
        bench.write("a.yaml", "w 2");
        assert!(bench.look(100, true).changed);
        assert_eq!(bench.in_force(), "w=2");
        bench.write("a.yaml", "w 2");
        assert!(!bench.look(100, true).changed);
    }

    #[test]
    fn a_second_write_within_one_tick_is_seen() {
        let mut bench = Bench::new(&[("a.yaml", "w 1")]);
        let stamp = fs::metadata(bench.path("a.yaml")).unwrap().modified().unwrap();
        bench.write("a.yaml", "w 2");
        let file = fs::File::options().write(true).open(bench.path("a.yaml")).unwrap();
        file.set_modified(stamp).unwrap();
        assert!(bench.look(100, true).changed);
        assert_eq!(bench.in_force(), "w=2");
    }

    #[test]
    fn what_changes_while_things_move_is_taken_when_seen_twice() {
        let mut bench = Bench::new(&[("a.yaml", "w 1")]);
        bench.write("a.yaml", "w 2");
        let look = bench.look(100, false);
        assert!(!look.changed && look.again);
        bench.write("a.yaml", "w 3");
        assert!(bench.look(100, false).again);
        assert_eq!(bench.in_force(), "w=1");
        let look = bench.look(100, false);
        assert!(look.changed && !look.again);
        assert_eq!(bench.in_force(), "w=3");
    }

    #[test]
    fn a_vanished_file_revokes_when_a_second_look_agrees() {
        let mut bench = Bench::new(&[("a.yaml", "w 1"), ("b.yaml", "x 1")]);
        fs::remove_file(bench.path("a.yaml")).unwrap();
        let look = bench.look(100, true);
        assert!(look.again);
        assert_eq!(bench.in_force(), "w? x=1");
        assert!(bench.look(50, true).again, "too soon to be a second look");
        assert_eq!(bench.in_force(), "w? x=1");
        let look = bench.look(50, true);
        assert!(look.changed && !look.again);
        assert_eq!(bench.in_force(), "x=1");
    }

    #[test]
    fn a_vanished_document_revokes_when_its_file_rests() {
        let mut bench = Bench::new(&[("a.yaml", "w 1\nx 1")]);
        bench.write("a.yaml", "x 1");
        assert!(bench.look(100, true).again);
        assert_eq!(bench.in_force(), "w? x=1");
        // Written again: what was seen is no witness any more.
        fs::remove_file(bench.path("a.yaml")).unwrap();
        bench.write("a.yaml", "x 1\ny 1");
        assert!(bench.look(100, true).again);
        assert_eq!(bench.in_force(), "w? x=1 y=1");
        assert!(!bench.look(100, true).again);
        assert_eq!(bench.in_force(), "x=1 y=1");
    }

    #[test]
    fn what_comes_back_in_time_was_never_gone() {
        let mut bench = Bench::new(&[("a.yaml", "w 1")]);
        for _ in 0..20 {
            fs::remove_file(bench.path("a.yaml")).unwrap();
            assert!(bench.look(100, true).again);
            bench.write("a.yaml", "w 1");
            bench.look(100, true);
            assert_eq!(bench.in_force(), "w=1");
        }
    }

    #[test]
    fn who_goes_on_writing_puts_nothing_off_for_long() {
        let mut bench = Bench::new(&[("a.yaml", "w 0")]);
        for turn in 1..=5 {
            bench.write("a.yaml", &format!("w {turn}"));
            assert!(bench.look(100, false).again);
            assert_eq!(bench.in_force(), "w=0");
        }
        bench.write("a.yaml", "w 6");
        assert!(bench.look(100, false).changed);
        assert_eq!(bench.in_force(), "w=6");
    }

    #[test]
    fn what_never_rests_but_is_there_is_not_missing() {
        let mut bench = Bench::new(&[("a.yaml", "w 0")]);
        for turn in 1..20 {
            // As `git checkout` does it: gone, then there again with another content.
            fs::remove_file(bench.path("a.yaml")).unwrap();
            bench.look(100, false);
            bench.write("a.yaml", &format!("w {turn}"));
            bench.look(100, false);
            assert_eq!(bench.in_force(), "w?");
        }
        let look = bench.look(100, false);
        assert!(look.changed && !look.again);
        assert_eq!(bench.in_force(), "w=19");
    }

    #[test]
    fn looks_that_follow_too_soon_are_one() {
        let mut bench = Bench::new(&[("a.yaml", "w 1")]);
        bench.write("a.yaml", "w 2");
        for _ in 0..5 {
            assert!(bench.look(0, false).again);
            assert_eq!(bench.in_force(), "w=1");
        }
        assert!(bench.look(100, false).changed);
        assert_eq!(bench.in_force(), "w=2");
    }

    #[test]
    fn what_is_missing_often_enough_is_gone_though_its_directory_never_rests() {
        let mut bench = Bench::new(&[("d/a.yaml", "w 1"), ("d/b.yaml", "x 1")]);
        fs::remove_file(bench.path("d/a.yaml")).unwrap();
        let mut looks = 1;
        while bench.look(100, false).again {
            looks += 1;
            fs::rename(bench.path("d/b.yaml"), bench.path("d/b")).unwrap();
            fs::rename(bench.path("d/b"), bench.path("d/b.yaml")).unwrap();
            let directory = fs::File::open(bench.path("d")).unwrap();
            let then = std::time::UNIX_EPOCH + Duration::from_secs(looks);
            directory.set_modified(then).unwrap();
        }
        assert_eq!(looks, u64::from(MISSING_LOOKS));
        assert_eq!(bench.in_force(), "x=1");
    }

    #[test]
    fn a_document_that_moves_to_another_file_is_never_missing() {
        let mut bench = Bench::new(&[("a.yaml", "w 1\nx 1")]);
        bench.write("a.yaml", "x 1");
        bench.write("b.yaml", "w 1");
        let look = bench.look(100, true);
        assert!(look.changed && !look.again);
        assert_eq!(bench.in_force(), "w=1 x=1");
    }

    #[test]
    fn an_unreadable_file_keeps_its_objects_and_says_since_when() {
        let mut bench = Bench::new(&[("a.yaml", "w 1"), ("b.yaml", "x 1")]);
        bench.write("a.yaml", "!");
        assert!(bench.look(100, true).changed);
        assert_eq!(bench.in_force(), "w=1 x=1");
        let since = bench.at();
        bench.write("a.yaml", "");
        bench.look(5_000, true);
        let kept = bench.files.kept();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[&object("w")].since, since, "it only got worse");
        assert_eq!(bench.files.findings().len(), 2);
        bench.write("a.yaml", "w 1");
        assert!(bench.look(100, true).changed);
        assert!(bench.files.kept().is_empty() && bench.files.findings().is_empty());
        // Deleted while unreadable: gone.
        bench.write("a.yaml", "!");
        bench.look(100, true);
        fs::remove_file(bench.path("a.yaml")).unwrap();
        bench.look(100, true);
        bench.look(100, true);
        assert_eq!(bench.in_force(), "x=1");
    }

    #[test]
    fn after_a_restart_an_unreadable_file_is_kept_from_memory_and_no_younger() {
        let bench = Bench::new(&[("a.yaml", "!"), ("b.yaml", "x 1")]);
        let in_force = [("w", "a.yaml"), ("x", "b.yaml"), ("y", "c.yaml")];
        let in_force = in_force.map(|(name, file)| (object(name), Arc::from(file)));
        let since = bench.at();
        let mut again = Bench { time: 60_000, ..bench };
        again.files = Files::new(
            again.root.path(),
            in_force.into_iter().collect(),
            [(Arc::from("a.yaml"), since)].into_iter().collect(),
        );
        again.files.reader = reader;
        assert!(again.look(0, true).again, "y went while nobody looked");
        assert_eq!(again.in_force(), "[a.yaml] x=1 y?");
        assert_eq!(again.files.kept()[&object("w")].since, since);
        again.look(100, true);
        assert_eq!(again.in_force(), "[a.yaml] x=1");
    }

    #[test]
    fn what_cannot_be_listed_keeps_everything_and_is_not_complete() {
        let mut bench = Bench::new(&[("a.yaml", "w 1"), ("d/b.yaml", "x 1")]);
        let deep = "e/".repeat(scan::MAX_DEPTH + 1);
        bench.write(&format!("{deep}f.yaml"), "y 1");
        let look = bench.look(100, true);
        assert!(!look.complete && look.changed);
        assert_eq!(bench.files.findings().len(), 1);
        fs::remove_dir_all(bench.path("e")).unwrap();
        assert!(bench.look(100, true).complete);
        fs::remove_dir_all(bench.root.path()).unwrap();
        bench.files.look(bench.at(), true).unwrap_err();
        assert_eq!(bench.in_force(), "w=1 x=1");
        fs::create_dir_all(bench.root.path()).unwrap();
    }

    #[test]
    fn an_emptied_directory_is_believed_the_second_time() {
        let mut bench = Bench::new(&[("a.yaml", "w 1"), ("d/b.yaml", "x 1")]);
        fs::remove_file(bench.path("a.yaml")).unwrap();
        fs::remove_dir_all(bench.path("d")).unwrap();
        bench.look(100, true);
        assert_eq!(bench.in_force(), "w? x?");
        bench.look(100, true);
        assert_eq!(bench.in_force(), "");
    }
}
