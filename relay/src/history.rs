//! The last refusals and endings of each login, across restarts, for `why`.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_policy::model::Login;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::record::{EndedBy, SessionId};
use crate::state::{self, StateDir, StateError, sha256_hex};

/// How many entries are kept for each login.
pub const KEPT: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    Refused,
    Ended,
}

/// A refusal or an ending.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When it happened last.
    pub time: Timestamp,
    pub kind: Kind,
    /// As the user typed it; empty for what concerns no terminal (X11, agent).
    pub terminal: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// A stable CamelCase word: the code of a refusal, `endedBy` of an ending.
    pub code: String,
    pub sentence: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// How often within a minute.
    pub count: u32,
}

impl Entry {
    pub fn refused(
        time: Timestamp,
        terminal: &str,
        service: &str,
        code: &str,
        sentence: &str,
    ) -> Self {
        Self {
            time,
            kind: Kind::Refused,
            terminal: terminal.to_owned(),
            service: service.to_owned(),
            code: code.to_owned(),
            sentence: sentence.to_owned(),
            session: None,
            count: 1,
        }
    }

    pub fn ended(
        time: Timestamp,
        terminal: &str,
        service: &str,
        by: EndedBy,
        sentence: &str,
        session: SessionId,
    ) -> Self {
        Self {
            kind: Kind::Ended,
            session: Some(session.to_string()),
            ..Self::refused(time, terminal, service, by.as_str(), sentence)
        }
    }
}

/// Two alike within this many seconds of the first are one.
const ALIKE: i64 = 60;
/// The longest sentence or name that is kept, in bytes.
const LONGEST_TEXT: usize = 300;
/// A file of this many bytes is rewritten with what counts.
const COMPACT_AT: u64 = 128 << 10;
/// The most bytes of a file that are read; more can only be someone else's.
const MOST: u64 = 4 << 20;
/// Entries that may wait for the disk.
const QUEUE: usize = 1024;

impl Entry {
    fn shorten(&mut self) {
        for text in [&mut self.terminal, &mut self.service, &mut self.code, &mut self.sentence] {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.session == other.session
            && self.terminal == other.terminal
            && self.service == other.service
            && self.code == other.code
            && self.sentence == other.sentence
    }
}

/// The histories of all logins: a file of lines for each, `STATE/history/<hash of the login>.jsonl`,
/// appended to without a sync and rewritten when it has grown. Clones share them.
#[derive(Clone, Debug)]
pub struct Histories {
    queue: Sender<Work>,
    room: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
    _state: StateDir,
}

enum Work {
    Note(Login, Box<Entry>, OwnedSemaphorePermit),
    Read(Login, oneshot::Sender<Vec<Entry>>),
    Retain(Vec<Login>),
}

impl Histories {
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        let directory = state.subdirectory("history")?;
        let dropped = Arc::new(AtomicU64::new(0));
        let (queue, work) = mpsc::channel();
        let worker = Worker { directory: directory.clone(), dropped: Arc::clone(&dropped) };
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || work.iter().for_each(|work| worker.work(work)))
            .map_err(|source| StateError::Io { what: "open", path: directory, source })?;
        let room = Arc::new(Semaphore::new(QUEUE));
        Ok(Self { queue, room, dropped, _state: state.clone() })
    }

    /// Remembers `entry` for an existing user, and for no other: that bounds the files. Never waits
    /// and never fails: what cannot be kept is counted.
    pub fn note(&self, login: &Login, mut entry: Entry) {
        entry.shorten();
        let room = Arc::clone(&self.room).try_acquire_owned();
        let sent = room.is_ok_and(|room| {
            self.queue.send(Work::Note(login.clone(), Box::new(entry), room)).is_ok()
        });
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The last [`KEPT`] entries, oldest first; includes everything noted before.
    pub async fn of(&self, login: &Login) -> Vec<Entry> {
        let (reply, answer) = oneshot::channel();
        // Without a thread there is no answer either.
        let _ = self.queue.send(Work::Read(login.clone(), reply));
        answer.await.unwrap_or_default()
    }

    /// Entries that could not be kept since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Forgets all users but these, which are those that exist.
    pub fn retain(&self, users: Vec<Login>) {
        let _ = self.queue.send(Work::Retain(users));
    }
}

struct Worker {
    directory: PathBuf,
    dropped: Arc<AtomicU64>,
}

impl Worker {
    fn work(&self, work: Work) {
        match work {
            Work::Note(login, entry, _room) => {
                if let Err(error) = self.note(&login, &entry) {
                    tracing::debug!(%error, "cannot keep an entry of a history");
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Work::Read(login, reply) => {
                let entries = read(&self.directory.join(name(&login))).unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot read a history");
                    Vec::new()
                });
                // Whoever asked may have gone.
                let _ = reply.send(entries);
            }
            Work::Retain(users) => {
                if let Err(error) = self.retain(&users) {
                    tracing::warn!(%error, "cannot tidy the histories");
                }
            }
        }
    }

    fn note(&self, login: &Login, entry: &Entry) -> io::Result<()> {
        let path = self.directory.join(name(login));
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let length = file.metadata()?.len();
        let mut line = Vec::new();
        // After a torn line a new one begins.
        let mut last = [0];
        if length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != *b"\n" {
            line.push(b'\n');
        }
        serde_json::to_writer(&mut line, entry)?;
        line.push(b'\n');
        file.write_all(&line)?;
        if length + line.len() as u64 > COMPACT_AT {
            let mut text = Vec::new();
            for entry in read(&path)? {
                serde_json::to_writer(&mut text, &entry)?;
                text.push(b'\n');
            }
            state::write_atomic(&path, &text, 0o600)?;
        }
        Ok(())
    }

    fn retain(&self, users: &[Login]) -> io::Result<()> {
        let kept: HashSet<String> = users.iter().map(name).collect();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let ours = entry.file_name().to_str().is_some_and(|name| {
                name.strip_suffix(".jsonl").is_some_and(|hash| hash.len() == 64)
                    && !kept.contains(name)
            });
            if ours {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn name(login: &Login) -> String {
    format!("{}.jsonl", sha256_hex(login.to_string().as_bytes()))
}

/// The last entries, those alike within a minute as one. Lines that are none are passed over.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = state::read(path, MOST)?.unwrap_or_default();
    let mut entries: Vec<(Timestamp, Entry)> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else { continue };
        let near = |first: &Timestamp| {
            let seconds = entry.time.duration_since(*first).as_secs();
            (0..ALIKE).contains(&seconds)
        };
        let alike = entries.iter_mut().rev().find(|(first, e)| e.is_like(&entry) && near(first));
        match alike {
            Some((_, earlier)) => {
                earlier.count = earlier.count.saturating_add(entry.count);
                earlier.time = entry.time;
            }
            None => entries.push((entry.time, entry)),
        }
    }
    let mut entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
    entries.drain(..entries.len().saturating_sub(KEPT));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn refused(second: i64, terminal: &str) -> Entry {
        Entry::refused(at(second), terminal, "ssh", "NotOpen", "no open support window")
    }

    fn login(text: &str) -> Login {
        Login::parse(text).unwrap()
    }

    #[tokio::test]
    async fn alike_within_a_minute_are_one_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        let histories = Histories::open(&state).unwrap();
        let alice = login("alice");
        for (second, terminal) in [(0, "a"), (10, "b"), (59, "a"), (60, "a"), (61, "b")] {
            histories.note(&alice, refused(second, terminal));
        }
        let id = SessionId::generate(at(0));
        histories.note(&alice, Entry::ended(at(62), "a", "ssh", EndedBy::Deadline, "closed", id));
        histories.note(&login("bob.acme"), refused(1, "z"));
        let seen = |entries: Vec<Entry>| -> Vec<_> {
            entries.into_iter().map(|e| (e.terminal, e.time, e.count, e.kind)).collect()
        };
        let expected = vec![
            ("a".to_owned(), at(59), 2, Kind::Refused),
            ("b".to_owned(), at(61), 2, Kind::Refused),
            ("a".to_owned(), at(60), 1, Kind::Refused),
            ("a".to_owned(), at(62), 1, Kind::Ended),
        ];
        assert_eq!(seen(histories.of(&alice).await), expected);
        drop(histories);
        let histories = Histories::open(&state).unwrap();
        assert_eq!(seen(histories.of(&alice).await), expected);
        assert_eq!(histories.of(&login("carol")).await, []);
        histories.retain(vec![alice.clone()]);
        assert_eq!(histories.of(&login("bob.acme")).await, []);
        assert_eq!(histories.of(&alice).await.len(), 4);
        assert_eq!(histories.dropped(), 0);
    }

    #[tokio::test]
    async fn a_hundred_are_kept_in_a_bounded_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        let histories = Histories::open(&state).unwrap();
        let alice = login("alice");
        let long = "x".repeat(70_000);
        for second in 0..2500 {
            histories.note(&alice, refused(second * 61, &long));
            if second % 500 == 0 {
                // Lets the writer catch up with its bounded queue.
                histories.of(&alice).await;
            }
        }
        let entries = histories.of(&alice).await;
        assert_eq!(entries.len(), KEPT);
        assert_eq!(entries.last().unwrap().time, at(2499 * 61));
        assert_eq!(entries.last().unwrap().terminal.len(), LONGEST_TEXT);
        let path = state.root().join("history").join(name(&alice));
        assert!(fs::metadata(&path).unwrap().len() <= COMPACT_AT + 1024);
        // A torn line costs itself and no other.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"time\":").unwrap();
        histories.note(&alice, refused(2500 * 61, "a"));
        assert_eq!(histories.of(&alice).await.last().unwrap().terminal, "a");
        assert_eq!(histories.dropped(), 0);
    }
}
