//! Writes the journal, on a thread of its own: a disk that is slow must not hold up the event that
//! revokes something (invariant 3). What has piled up is written together and synced once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use serde_json::Value;
use tidegate_crds::manifest::ObjectRef;

use super::journal::{self, Commit, Head, Journal};
use crate::state::{StateDir, StateError, sync_dir, temporary};

/// The journal in the state directory.
const NAME: &str = "policy.journal";
/// Entries that may wait for a disk that does not answer; beyond, the journal is given up and later
/// written anew.
const WAITING: usize = 200_000;
/// It is compacted when it has grown by as much as it was after the last time, and by this.
const GROWTH: u64 = 8 << 20;

/// What is to be written.
enum Work {
    /// A journal of its own takes the old one's place at its first commit.
    Begin(Head),
    Put(ObjectRef, Value),
    Remove(ObjectRef),
    Commit(Commit),
}

/// The thread's other end. Dropping it waits until what was asked for is written.
#[derive(Debug)]
pub struct Keeper {
    queue: Option<Sender<Work>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    failed: AtomicBool,
    /// Something was dropped: what follows on it means nothing before the next journal begins.
    gap: AtomicBool,
}

/// Where the journal is.
pub fn path(state: &StateDir) -> Result<PathBuf, StateError> {
    state.path(NAME)
}

impl Keeper {
    /// `length`: the journal at `path` goes on after so many bytes; without, there is none to go on
    /// with, and nothing is written before [`Keeper::begin`].
    pub fn start(path: PathBuf, length: Option<u64>) -> io::Result<Self> {
        let (queue, work) = channel();
        let shared = Arc::new(Shared::default());
        let tell = Arc::clone(&shared);
        let thread = Builder::new().name("policy journal".to_owned()).spawn(move || {
            let mut writer = Writer { path, target: Target::None, compacted: 0 };
            if let Some(length) = length {
                writer.go_on(length, &tell);
            }
            writer.run(&work, &tell);
        })?;
        Ok(Self { queue: Some(queue), shared, thread: Some(thread) })
    }

    /// A new journal, which counts from its first commit on. Everything is to be put into it.
    pub fn begin(&self, head: Head) {
        self.ask(Work::Begin(head));
    }

    pub fn put(&self, object: ObjectRef, value: Value) {
        self.ask(Work::Put(object, value));
    }

    pub fn remove(&self, object: ObjectRef) {
        self.ask(Work::Remove(object));
    }

    /// Makes what was put and removed before count.
    pub fn commit(&self, commit: Commit) {
        self.ask(Work::Commit(commit));
    }

    /// Whether something could not be written since this was last asked; a new journal is needed.
    pub fn failed(&self) -> bool {
        self.shared.failed.swap(false, Ordering::AcqRel)
    }

    /// Never waits.
    fn ask(&self, work: Work) {
        if matches!(work, Work::Begin(_)) {
            self.shared.gap.store(false, Ordering::Release);
        } else if self.shared.gap.load(Ordering::Acquire)
            || self.shared.waiting.load(Ordering::Acquire) >= WAITING
        {
            self.drop_it();
            return;
        }
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.queue.as_ref().is_none_or(|queue| queue.send(work).is_err()) {
            self.drop_it();
        }
    }

    fn drop_it(&self) {
        self.shared.gap.store(true, Ordering::Release);
        self.shared.failed.store(true, Ordering::Release);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is written to now.
enum Target {
    /// None, or one that failed: what comes is dropped until the next begins.
    None,
    /// The one in place.
    Old(Journal),
    /// One that is not yet in its place.
    New(Journal),
}

struct Writer {
    path: PathBuf,
    target: Target,
    /// Size after the last compaction.
    compacted: u64,
}

impl Writer {
    fn go_on(&mut self, length: u64, shared: &Shared) {
        match Journal::open(&self.path, length) {
            Ok(journal) => {
                self.target = Target::Old(journal);
                self.compact();
            }
            Err(error) => self.give_up(&error, shared),
        }
    }

    fn run(&mut self, work: &Receiver<Work>, shared: &Shared) {
        while let Ok(first) = work.recv() {
            let mut next = Some(first);
            let (mut committed, mut whole) = (false, false);
            while let Some(work_now) = next.take() {
                shared.waiting.fetch_sub(1, Ordering::AcqRel);
                whole = matches!(work_now, Work::Commit(_));
                committed |= whole;
                if let Err(error) = self.write(work_now) {
                    self.give_up(&error, shared);
                }
                next = work.try_recv().ok();
            }
            if committed && let Err(error) = self.settle() {
                self.give_up(&error, shared);
            }
            // What is not committed yet would be lost, and the commit to come would count without it.
            if whole {
                self.compact();
            }
        }
    }

    fn write(&mut self, work: Work) -> io::Result<()> {
        let journal = match (&mut self.target, &work) {
            (_, Work::Begin(head)) => {
                // The old one is what a restart finds until the new one is whole.
                self.target = Target::None;
                self.target = Target::New(Journal::create(&temporary(&self.path)?, head)?);
                return Ok(());
            }
            (Target::None, _) => return Ok(()),
            (Target::Old(journal) | Target::New(journal), _) => journal,
        };
        match work {
            Work::Put(object, value) => journal.put(&object, &value),
            Work::Remove(object) => journal.remove(&object),
            Work::Commit(commit) => journal.commit(&commit),
            Work::Begin(_) => Ok(()),
        }
    }

    /// Makes what was committed durable.
    fn settle(&mut self) -> io::Result<()> {
        self.target = match std::mem::replace(&mut self.target, Target::None) {
            Target::None => Target::None,
            Target::Old(mut journal) => {
                journal.sync()?;
                Target::Old(journal)
            }
            Target::New(mut journal) => {
                journal.sync()?;
                std::fs::rename(temporary(&self.path)?, &self.path)?;
                sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
                self.compacted = journal.size();
                Target::Old(journal)
            }
        };
        Ok(())
    }

    fn compact(&mut self) {
        let Target::Old(journal) = &self.target else { return };
        let most = self.compacted.saturating_mul(2).max(self.compacted.saturating_add(GROWTH));
        if journal.size() < most {
            return;
        }
        match journal::compact(&self.path) {
            Ok(journal) => {
                self.compacted = journal.size();
                self.target = Target::Old(journal);
            }
            Err(error) => {
                // The long one serves as well; the next try comes when it has grown again.
                self.compacted = journal.size();
                tracing::warn!(%error, "the policy's journal cannot be made shorter");
            }
        }
    }

    fn give_up(&mut self, error: &io::Error, shared: &Shared) {
        let path = self.path.display();
        tracing::error!(%path, %error, "the policy in force cannot be kept for a restart");
        self.target = Target::None;
        shared.failed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::source::remember::Instant;
    use serde_json::json;
    use tidegate_crds::manifest::Kind;

    fn object(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::Terminal, namespace: "acme".into(), name: name.into() }
    }

    fn commit() -> Commit {
        Commit { as_of: Instant::of(clock::now(), None) }
    }

    #[test]
    fn a_new_one_takes_its_place_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.journal");
        let head = Head::new("gate", "eu", "prod");
        let keeper = Keeper::start(path.clone(), None).unwrap();
        keeper.put(object("before"), json!(0));
        keeper.begin(head.clone());
        keeper.put(object("a"), json!(1));
        drop(keeper);
        assert!(!path.exists(), "not committed");
        let keeper = Keeper::start(path.clone(), None).unwrap();
        keeper.begin(head.clone());
        keeper.put(object("a"), json!(1));
        keeper.commit(commit());
        keeper.put(object("b"), json!(2));
        drop(keeper);
        let found = journal::find(&path).unwrap().unwrap();
        assert_eq!(found.head, head);
        let keeper = Keeper::start(path.clone(), Some(found.length)).unwrap();
        keeper.put(object("c"), json!(3));
        keeper.commit(commit());
        assert!(!keeper.failed());
        drop(keeper);
        let mut names = Vec::new();
        let found = journal::find(&path).unwrap().unwrap();
        journal::replay(&path, found.length, |entry| {
            if let journal::Entry::Put(object, _) = entry {
                names.push(object.name);
            }
        })
        .unwrap();
        assert_eq!(names, ["a", "c"], "b was not committed");
    }

    #[test]
    fn a_disk_that_fails_is_told_and_a_new_one_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.journal");
        std::fs::create_dir(&path).unwrap();
        let keeper = Keeper::start(path.clone(), Some(7)).unwrap();
        keeper.put(object("a"), json!(1));
        let shared = Arc::clone(&keeper.shared);
        drop(keeper);
        assert!(shared.failed.load(Ordering::Acquire));
        std::fs::remove_dir(&path).unwrap();
        let keeper = Keeper::start(path.clone(), None).unwrap();
        keeper.begin(Head::new("gate", "eu", "prod"));
        keeper.commit(commit());
        drop(keeper);
        assert!(journal::find(&path).unwrap().is_some());
    }
}
