//! The disk copy of what the API server gave: a file that is only appended to, so that no copy of all
//! objects need be in memory. Touches the disk, blocks.
//!
//! A line is a checksum, a letter, and what the letter asks for:
//! `H` the head, `P kind namespace name json` an object, `R kind namespace name` its removal, and
//! `C json`, which says that everything before it is policy of that age. What follows the last whole
//! `C` never happened: a crash leaves no half of a change (invariant 3).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{
    self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _,
};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate_crds::manifest::{Kind, ObjectRef};

use crate::source::remember::Instant;
use crate::state::{hex, sync_dir, temporary};

/// The format of the lines.
const FORMAT: u32 = 1;
/// No object of an API server makes a longer line.
const LINE_BYTES: u64 = 16 << 20;
/// Bytes of the checksum, in hexadecimal.
const SUM: usize = 8;

/// Whose policy a journal has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    format: u32,
    /// The Mesh's namespace, and the Relay's.
    pub namespace: String,
    pub relay: String,
    pub mesh: String,
}

impl Head {
    pub fn new(namespace: &str, relay: &str, mesh: &str) -> Self {
        let [namespace, relay, mesh] = [namespace, relay, mesh].map(str::to_owned);
        Self { format: FORMAT, namespace, relay, mesh }
    }
}

/// That everything before it is in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    pub as_of: Instant,
}

/// What a line asks for.
#[derive(Debug)]
pub enum Entry {
    Put(ObjectRef, Value),
    Remove(ObjectRef),
}

/// What an earlier process left.
#[derive(Debug)]
pub struct Found {
    pub head: Head,
    pub commit: Commit,
    /// Bytes up to the end of the last commit.
    pub length: u64,
}

/// Looks for the last commit; `None` where there is none that is whole.
pub fn find(path: &Path) -> io::Result<Option<Found>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = Lines::new(file);
    let Some((Letter::Head, text)) = lines.next()? else { return Ok(None) };
    let Ok(head) = serde_json::from_str::<Head>(text) else { return Ok(None) };
    if head.format != FORMAT {
        return Ok(None);
    }
    let mut last: Option<(Commit, u64)> = None;
    loop {
        let commit = match lines.next()? {
            None => break,
            Some((Letter::Commit, text)) => serde_json::from_str(text).ok(),
            Some(_) => continue,
        };
        let Some(commit) = commit else { break };
        last = Some((commit, lines.read));
    }
    Ok(last.map(|(commit, length)| Found { head, commit, length }))
}

/// Reads the first `length` bytes and gives every entry in order.
pub fn replay(path: &Path, length: u64, mut each: impl FnMut(Entry)) -> io::Result<()> {
    let mut lines = Lines::new(File::open(path)?);
    while lines.read < length
        && let Some((letter, text)) = lines.next()?
    {
        if let Some(entry) = entry(letter, text) {
            each(entry);
        }
    }
    Ok(())
}

fn entry(letter: Letter, text: &str) -> Option<Entry> {
    let mut fields = text.splitn(4, ' ');
    let mut field = || fields.next();
    match letter {
        Letter::Put => {
            let object = reference(field()?, field()?, field()?)?;
            Some(Entry::Put(object, serde_json::from_str(field()?).ok()?))
        }
        Letter::Remove => Some(Entry::Remove(reference(field()?, field()?, field()?)?)),
        Letter::Head | Letter::Commit => None,
    }
}

fn reference(kind: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
    let kind = match Kind::own(kind) {
        Some(kind) => kind,
        None if kind == Kind::Namespace.as_str() => Kind::Namespace,
        None => return None,
    };
    let namespace = if namespace == NONE { "" } else { namespace }.to_owned();
    Some(ObjectRef { kind, namespace, name: name.to_owned() })
}

/// Stands for the namespace of what has none.
const NONE: &str = "-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Head,
    Put,
    Remove,
    Commit,
}

impl Letter {
    const ALL: [(u8, Self); 4] =
        [(b'H', Self::Head), (b'P', Self::Put), (b'R', Self::Remove), (b'C', Self::Commit)];

    fn byte(self) -> u8 {
        Self::ALL.into_iter().find(|(_, letter)| *letter == self).map_or(b'?', |(byte, _)| byte)
    }
}

/// Whole lines with the right checksum; the first other one is the end.
struct Lines<R> {
    file: BufReader<R>,
    line: Vec<u8>,
    /// Bytes of the lines that were given.
    read: u64,
}

impl<R: io::Read> Lines<R> {
    fn new(file: R) -> Self {
        Self { file: BufReader::with_capacity(1 << 16, file), line: Vec::new(), read: 0 }
    }

    fn next(&mut self) -> io::Result<Option<(Letter, &str)>> {
        self.line.clear();
        let length = (&mut self.file).take(LINE_BYTES).read_until(b'\n', &mut self.line)?;
        let Some(parsed) = parse(&self.line) else { return Ok(None) };
        self.read = self.read.saturating_add(u64::try_from(length).unwrap_or(0));
        Ok(Some(parsed))
    }
}

fn parse(line: &[u8]) -> Option<(Letter, &str)> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, rest) = line.split_at_checked(SUM)?;
    let rest = rest.strip_prefix(b" ")?;
    if checksum(rest) != sum {
        return None;
    }
    let (letter, text) = rest.split_first()?;
    let letter = Letter::ALL.into_iter().find(|(byte, _)| byte == letter)?.1;
    Some((letter, std::str::from_utf8(text.strip_prefix(b" ")?).ok()?))
}

fn checksum(bytes: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(bytes);
    hex(digest.get(..SUM / 2).unwrap_or_default()).into_bytes()
}

fn write_line(to: &mut impl io::Write, letter: Letter, text: &str) -> io::Result<u64> {
    let mut line = Vec::with_capacity(text.len().saturating_add(SUM + 4));
    line.extend_from_slice(&[letter.byte(), b' ']);
    line.extend_from_slice(text.as_bytes());
    let sum = checksum(&line);
    to.write_all(&sum)?;
    to.write_all(b" ")?;
    to.write_all(&line)?;
    to.write_all(b"\n")?;
    Ok(u64::try_from(line.len().saturating_add(SUM + 2)).unwrap_or(u64::MAX))
}

fn key(object: &ObjectRef) -> String {
    let namespace = if object.namespace.is_empty() { NONE } else { &object.namespace };
    format!("{} {namespace} {}", object.kind, object.name)
}

/// A journal that is written to.
#[derive(Debug)]
pub struct Journal {
    file: BufWriter<File>,
    size: u64,
}

impl Journal {
    /// An empty one, in the place of any other file.
    pub fn create(path: &Path, head: &Head) -> io::Result<Self> {
        let options =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut file = BufWriter::new(options.open(path)?);
        let size = write_line(&mut file, Letter::Head, &serde_json::to_string(head)?)?;
        Ok(Self { file, size })
    }

    /// One that is there, without what follows its first `length` bytes.
    pub fn open(path: &Path, length: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file: BufWriter::new(file), size: length })
    }

    pub fn put(&mut self, object: &ObjectRef, value: &Value) -> io::Result<()> {
        self.write(Letter::Put, &format!("{} {value}", key(object)))
    }

    pub fn remove(&mut self, object: &ObjectRef) -> io::Result<()> {
        self.write(Letter::Remove, &key(object))
    }

    pub fn commit(&mut self, commit: &Commit) -> io::Result<()> {
        self.write(Letter::Commit, &serde_json::to_string(commit)?)
    }

    fn write(&mut self, letter: Letter, text: &str) -> io::Result<()> {
        let written = write_line(&mut self.file, letter, text)?;
        self.size = self.size.saturating_add(written);
        Ok(())
    }

    /// Durable on return.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()
    }

    /// Bytes written, synced or not.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Puts a journal without what later lines have overtaken in the place of the one at `path`, and
/// without what follows its last commit; an error where it has none. Memory: some 60 bytes an object,
/// while it lasts.
pub fn compact(path: &Path) -> io::Result<Journal> {
    let none = || io::Error::new(io::ErrorKind::InvalidData, "the journal has no whole commit");
    let found = find(path)?.ok_or_else(none)?;
    let last = latest(path, found.length)?;
    let new = temporary(path)?;
    let written = copy(path, &new, last).and_then(|journal| {
        std::fs::rename(&new, path)?;
        sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok(journal)
    });
    if written.is_err() {
        // Best effort: what is left over is overwritten by the next try.
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Where the lines begin that still count within `length` bytes, in order: the head, the last put of each
/// object that was not removed after it, and the last commit. As [`replay`] reads them: a line that it
/// makes nothing of overtakes no other.
fn latest(path: &Path, length: u64) -> io::Result<Vec<u64>> {
    let mut lines = Lines::new(File::open(path)?);
    let mut puts = HashMap::new();
    let mut commit = None;
    loop {
        let at = lines.read;
        if at >= length {
            break;
        }
        let (letter, text) = lines.next()?.ok_or_else(short)?;
        match entry(letter, text) {
            Some(Entry::Put(object, _)) => {
                puts.insert(hash(&object), at);
            }
            Some(Entry::Remove(object)) => {
                puts.remove(&hash(&object));
            }
            None if letter == Letter::Commit => commit = Some(at),
            None => {}
        }
    }
    let mut latest: Vec<u64> = puts.into_values().chain(commit).chain([0]).collect();
    latest.sort_unstable();
    Ok(latest)
}

/// 128 bits of SHA-256: no two names meet by accident.
fn hash(object: &ObjectRef) -> u128 {
    let digest = Sha256::digest(key(object));
    let half = digest.first_chunk::<16>().copied().unwrap_or_default();
    u128::from_be_bytes(half)
}

/// Whole lines that were read a moment ago are not there any more: the file stays, since a copy would be
/// short.
fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the journal is shorter than when it was looked at")
}

/// An error where one of the lines that begin at `latest` is not there to be copied.
fn copy(from: &Path, to: &Path, latest: Vec<u64>) -> io::Result<Journal> {
    let mut lines = Lines::new(File::open(from)?);
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let mut journal = Journal { file: BufWriter::new(options.open(to)?), size: 0 };
    let mut latest = latest.into_iter().peekable();
    while latest.peek().is_some() {
        let at = lines.read;
        let (letter, text) = lines.next()?.ok_or_else(short)?;
        if latest.next_if_eq(&at).is_some() {
            journal.write(letter, text)?;
        }
    }
    journal.sync()?;
    Ok(journal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use serde_json::json;

    fn window(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::SupportWindow, namespace: "acme".into(), name: name.into() }
    }

    fn commit() -> Commit {
        Commit { as_of: Instant::of(clock::now(), Some("boot")) }
    }

    fn entries(path: &Path) -> Option<Vec<String>> {
        let found = find(path).unwrap()?;
        let mut entries = Vec::new();
        replay(path, found.length, |entry| {
            entries.push(match entry {
                Entry::Put(object, value) => format!("{object} {value}"),
                Entry::Remove(object) => format!("- {object}"),
            });
        })
        .unwrap();
        Some(entries)
    }

    #[test]
    fn every_torn_end_gives_the_last_whole_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &Head::new("gate", "eu", "prod")).unwrap();
        journal.put(&window("a"), &json!({"x": "line\nbreak"})).unwrap();
        journal.commit(&commit()).unwrap();
        let first = usize::try_from(journal.size()).unwrap();
        journal.remove(&window("a")).unwrap();
        journal.put(&window("b"), &json!(2)).unwrap();
        let torn = usize::try_from(journal.size()).unwrap();
        journal.commit(&commit()).unwrap();
        journal.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), usize::try_from(journal.size()).unwrap());
        for end in 0..=whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let read = entries(&path);
            if end < first {
                assert_eq!(read, None, "{end}");
            } else if end < whole.len() {
                let one = ["SupportWindow acme/a {\"x\":\"line\\nbreak\"}"];
                assert_eq!(read.unwrap(), one, "{end}");
            } else {
                assert_eq!(read.unwrap().len(), 3);
            }
        }
        // One that went on after a torn end.
        std::fs::write(&path, &whole[..torn]).unwrap();
        let length = find(&path).unwrap().unwrap().length;
        let mut journal = Journal::open(&path, length).unwrap();
        journal.put(&window("c"), &json!(3)).unwrap();
        journal.commit(&commit()).unwrap();
        journal.sync().unwrap();
        let read = entries(&path).unwrap();
        assert_eq!(read[1..], ["SupportWindow acme/c 3"]);
        // Damage in the middle ends it, too.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[first + 12] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(entries(&path).unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_cannot_be_copied_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("journal"), dir.path().join("new"));
        let mut journal = Journal::create(&path, &Head::new("gate", "eu", "prod")).unwrap();
        let head = usize::try_from(journal.size()).unwrap();
        journal.put(&window("a"), &json!(1)).unwrap();
        journal.commit(&commit()).unwrap();
        journal.sync().unwrap();
        let length = journal.size();
        let wanted = latest(&path, length).unwrap();
        assert_eq!(copy(&path, &new, wanted.clone()).unwrap().size(), length);
        // What the disk gave when it was looked at it does not give now.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[head + SUM + 4] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let invalid = Some(io::ErrorKind::InvalidData);
        assert_eq!(copy(&path, &new, wanted).err().map(|error| error.kind()), invalid);
        assert_eq!(latest(&path, length).err().map(|error| error.kind()), invalid);
    }

    #[test]
    fn a_compacted_one_says_the_same_in_fewer_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &Head::new("gate", "eu", "prod")).unwrap();
        for round in 0..10 {
            for name in ["a", "b", "c"] {
                journal.put(&window(name), &json!(round)).unwrap();
            }
            journal.commit(&commit()).unwrap();
        }
        journal.remove(&window("b")).unwrap();
        let namespace =
            ObjectRef { kind: Kind::Namespace, namespace: String::new(), name: "acme".into() };
        journal.put(&namespace, &json!({})).unwrap();
        journal.commit(&commit()).unwrap();
        journal.sync().unwrap();
        let before = journal.size();
        let mut journal = compact(&path).unwrap();
        assert!(journal.size() * 4 < before);
        let expected = ["SupportWindow acme/a 9", "SupportWindow acme/c 9", "Namespace acme {}"];
        assert_eq!(entries(&path).unwrap(), expected);
        journal.put(&window("d"), &json!(1)).unwrap();
        journal.commit(&commit()).unwrap();
        journal.sync().unwrap();
        assert_eq!(entries(&path).unwrap().len(), 4);
        assert_eq!(find(&path).unwrap().unwrap().head, Head::new("gate", "eu", "prod"));
    }

    #[test]
    fn what_says_nothing_overtakes_nothing_when_it_is_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &Head::new("gate", "eu", "prod")).unwrap();
        for name in ["a", "b"] {
            journal.put(&window(name), &json!(1)).unwrap();
        }
        for (letter, text) in [
            (Letter::Put, "SupportWindow acme a {"),
            (Letter::Put, "Unheard acme b {}"),
            (Letter::Remove, "SupportWindow acme"),
        ] {
            journal.write(letter, text).unwrap();
        }
        journal.commit(&commit()).unwrap();
        journal.put(&window("a"), &json!(2)).unwrap();
        journal.remove(&window("b")).unwrap();
        journal.write(Letter::Commit, "{} {").unwrap();
        journal.sync().unwrap();
        let before = entries(&path).unwrap();
        assert_eq!(before, ["SupportWindow acme/a 1", "SupportWindow acme/b 1"]);
        drop(compact(&path).unwrap());
        assert_eq!(entries(&path).unwrap(), before);
        // One without a commit is left as it is.
        let mut journal = Journal::create(&path, &Head::new("gate", "eu", "prod")).unwrap();
        journal.put(&window("a"), &json!(1)).unwrap();
        journal.sync().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(compact(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
