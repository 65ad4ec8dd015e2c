//! All records: in memory for reading, on disk by a thread that tries until it succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Begun, Ended, EndedBy, Record, SessionId, files};
use crate::sentences;
use crate::state::{self, StateDir, StateError};

/// The most records kept; beyond it the oldest ended ones go before their time.
const MOST: usize = 10_000;
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The most bytes of the note of life.
const MOST_ALIVE: u64 = 16 << 20;

/// The records of one state directory. Clones share them.
#[derive(Clone, Debug)]
pub struct Records {
    shared: Arc<Mutex<Shared>>,
    queue: Sender<Work>,
    relay: Arc<str>,
    _state: StateDir,
}

#[derive(Debug, Default)]
struct Shared {
    records: BTreeMap<SessionId, Record>,
    trouble: Option<String>,
}

enum Work {
    /// Its file is to be as memory has it.
    Save(SessionId),
    Alive(Alive),
    Flush(oneshot::Sender<()>),
}

/// `STATE/sessions/alive`: when this process was last seen, and what its sessions had carried.
#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    time: Timestamp,
    bytes: BTreeMap<String, (u64, u64)>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records {
    /// Reads what is there. Records that a former process left open are ended as `Fault`, at the last
    /// instant it was known to live; they come back, oldest first, so that the trail can tell too.
    pub fn open(
        state: &StateDir,
        relay: &str,
        now: Timestamp,
    ) -> Result<(Self, Vec<Record>), StateError> {
        let directory = state.subdirectory("sessions")?;
        let opened = |source| StateError::Io { what: "open", path: directory.clone(), source };
        let mut records = load(&directory).map_err(opened)?;
        let left_open = recover(&mut records, alive(&directory).as_ref(), now);
        let shared = Arc::new(Mutex::new(Shared { records, trouble: None }));
        let (queue, work) = mpsc::channel();
        let worker = Worker {
            directory: directory.clone(),
            shared: Arc::clone(&shared),
            unsaved: BTreeSet::new(),
        };
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || worker.run(&work))
            .map_err(opened)?;
        let records = Self { shared, queue, relay: relay.into(), _state: state.clone() };
        for record in &left_open {
            records.save(record.begun.id);
        }
        Ok((records, left_open))
    }

    /// Notes that a session began. Never waits: the file is written soon, and retried until it is.
    pub fn begin(&self, begun: Begun) {
        let id = begun.id;
        let record = Record { begun, relay: self.relay.to_string(), ended: None };
        let gone = {
            let mut shared = lock(&self.shared);
            shared.records.insert(id, record);
            shed(&mut shared.records)
        };
        self.save(id);
        for id in gone {
            self.save(id);
        }
    }

    /// Notes that a session ended; the first end stands.
    pub fn end(&self, id: SessionId, ended: Ended) {
        if let Some(record) = lock(&self.shared).records.get_mut(&id) {
            record.ended.get_or_insert(ended);
        }
        self.save(id);
    }

    /// Notes that this process lives at `now` and what live sessions have carried; about every 10 s.
    /// After a crash the open records end at the last such instant.
    pub fn alive(&self, now: Timestamp, bytes: &[(SessionId, u64, u64)]) {
        let bytes = bytes.iter().map(|(id, i, o)| (id.to_string(), (*i, *o))).collect();
        self.ask(Work::Alive(Alive { time: now, bytes }));
    }

    /// Removes what ended more than `retention` before `now`.
    pub fn retain(&self, retention: SignedDuration, now: Timestamp) {
        let old = |record: &Record| {
            record.ended.as_ref().is_some_and(|ended| files::is_old(ended.at, retention, now))
        };
        let gone: Vec<_> = {
            let mut shared = lock(&self.shared);
            let gone: Vec<_> =
                shared.records.values().filter(|r| old(r)).map(|r| r.begun.id).collect();
            for id in &gone {
                shared.records.remove(id);
            }
            gone
        };
        for id in gone {
            self.save(id);
        }
    }

    pub fn get(&self, id: SessionId) -> Option<Record> {
        lock(&self.shared).records.get(&id).cloned()
    }

    /// The newest first, at most `most`.
    pub fn list(&self, most: usize) -> Vec<Record> {
        lock(&self.shared).records.values().rev().take(most).cloned().collect()
    }

    /// Why a record could not be written, while it cannot.
    pub fn healthy(&self) -> Result<(), String> {
        lock(&self.shared).trouble.clone().map_or(Ok(()), Err)
    }

    /// Resolves when everything noted before is on disk, or cannot be written now.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.ask(Work::Flush(done));
        // An error: the thread has gone, and nothing more is written.
        let _ = flushed.await;
    }

    fn save(&self, id: SessionId) {
        self.ask(Work::Save(id));
    }

    fn ask(&self, work: Work) {
        if self.queue.send(work).is_err() {
            lock(&self.shared).trouble =
                Some("the thread that writes records has ended".to_owned());
        }
    }
}

fn load(directory: &Path) -> io::Result<BTreeMap<SessionId, Record>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        if let Some(id) = entry?.file_name().to_str().and_then(files::session) {
            ids.insert(id);
        }
    }
    let mut records = BTreeMap::new();
    for id in ids {
        let path = directory.join(files::name(id));
        let text = state::read(&path, files::MOST).unwrap_or_else(|error| {
            tracing::warn!(%id, %error, "cannot read a session's record");
            None
        });
        // An unreadable one stays as it is, for people to look at.
        if let Some(record) = text.as_deref().and_then(|text| files::parse(id, text)) {
            records.insert(id, record);
        } else {
            tracing::warn!(%id, "this is no record of a session; ignored");
        }
    }
    Ok(records)
}

fn alive(directory: &Path) -> Option<Alive> {
    let text = state::read(&directory.join("alive"), MOST_ALIVE).ok()??;
    serde_json::from_slice(&text).ok()
}

/// Ends what a former process left open.
fn recover(
    records: &mut BTreeMap<SessionId, Record>,
    alive: Option<&Alive>,
    now: Timestamp,
) -> Vec<Record> {
    let mut left_open = Vec::new();
    for (id, record) in records.iter_mut().filter(|(_, record)| record.ended.is_none()) {
        let begun = &record.begun;
        // It lived when it began, and not after now, nor, cut as it would have been, its deadline.
        let seen = alive.map_or(begun.opened_at, |alive| alive.time);
        let latest = begun.deadline.min(now).max(begun.opened_at);
        let bytes = alive.and_then(|alive| alive.bytes.get(&id.to_string()));
        let (bytes_in, bytes_out) = bytes.copied().unwrap_or_default();
        record.ended = Some(Ended {
            at: seen.clamp(begun.opened_at, latest),
            by: EndedBy::Fault,
            reason: sentences::relay_crashed(),
            overrun_ms: 0,
            bytes_in,
            bytes_out,
        });
        left_open.push(record.clone());
    }
    left_open
}

/// Takes the oldest ended records out while there are too many.
fn shed(records: &mut BTreeMap<SessionId, Record>) -> Vec<SessionId> {
    let surplus = records.len().saturating_sub(MOST);
    let ended = records.values().filter(|record| record.ended.is_some());
    let gone: Vec<_> = ended.take(surplus).map(|record| record.begun.id).collect();
    for id in &gone {
        records.remove(id);
    }
    gone
}

struct Worker {
    directory: PathBuf,
    shared: Arc<Mutex<Shared>>,
    /// What is still to be written or removed.
    unsaved: BTreeSet<SessionId>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Work>) {
        loop {
            let patience = if self.unsaved.is_empty() { Duration::from_hours(1) } else { AGAIN };
            match queue.recv_timeout(patience) {
                Ok(Work::Save(id)) => drop(self.unsaved.insert(id)),
                Ok(Work::Alive(alive)) => {
                    let noted = serde_json::to_vec(&alive).map_err(io::Error::other);
                    let path = self.directory.join("alive");
                    let noted = noted.and_then(|text| state::write_atomic(&path, &text, 0o600));
                    if let Err(error) = noted {
                        tracing::debug!(%error, "cannot note that the relay lives");
                    }
                    continue;
                }
                Ok(Work::Flush(done)) => {
                    self.save();
                    let _ = done.send(());
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.save();
        }
        self.save();
    }

    fn save(&mut self) {
        let mut trouble = None;
        while let Some(id) = self.unsaved.first().copied() {
            let record = lock(&self.shared).records.get(&id).cloned();
            let path = self.directory.join(files::name(id));
            let saved = match record {
                Some(record) => {
                    files::text(&record).and_then(|text| state::write_atomic(&path, &text, 0o600))
                }
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
            };
            if let Err(error) = saved {
                trouble = Some(format!("session records cannot be written: {error}"));
                break;
            }
            self.unsaved.remove(&id);
        }
        let mut shared = lock(&self.shared);
        if let Some(why) = &trouble
            && shared.trouble.is_none()
        {
            tracing::error!(why, "the records of sessions wait");
        }
        shared.trouble = trouble;
    }
}
