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
use tokio::sync::{Notify, oneshot};

use super::{Begun, Ended, EndedBy, Published, Record, SessionId, files};
use crate::sentences;
use crate::state::{self, StateDir, StateError};

/// The most records kept; beyond it the oldest ended ones go before their time.
pub(crate) const MOST: usize = if cfg!(test) { 100 } else { 10_000 };
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The most bytes of the note of life.
const MOST_ALIVE: u64 = 16 << 20;

/// The records of one state directory. Clones share them.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) shared: Arc<Mutex<Shared>>,
    queue: Sender<Work>,
    relay: Arc<str>,
    pub(super) directory: Arc<Path>,
    /// Told when something is to be published, and when it has been.
    pub(super) pending: Arc<Notify>,
    pub(super) published: Arc<Notify>,
    _state: StateDir,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub records: BTreeMap<SessionId, Record>,
    /// Files that are not as memory has them, and the one that is being written.
    unsaved: BTreeSet<SessionId>,
    saving: Option<SessionId>,
    trouble: Option<String>,
    /// Whether an API server is to be told; see [`super::Outbox`].
    pub publishing: bool,
    /// What it is to be told of next.
    pub pending: BTreeSet<SessionId>,
    /// Ended records that wait to be published and are on disk alone.
    pub on_disk: BTreeSet<SessionId>,
}

enum Work {
    /// Files are to be as memory has them.
    Save,
    Alive(Alive),
    Flush(oneshot::Sender<()>),
}

/// `STATE/sessions/alive`: when this process was last seen, and what its sessions had carried.
#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    time: Timestamp,
    bytes: BTreeMap<String, (u64, u64)>,
}

pub(super) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
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
        let shared = Arc::new(Mutex::new(Shared { records, ..Shared::default() }));
        let (queue, work) = mpsc::channel();
        let worker = Worker { directory: directory.clone(), shared: Arc::clone(&shared) };
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || worker.run(&work))
            .map_err(opened)?;
        let records = Self {
            shared,
            queue,
            relay: relay.into(),
            directory: directory.into(),
            pending: Arc::default(),
            published: Arc::default(),
            _state: state.clone(),
        };
        for record in &left_open {
            records.save(record.begun.id);
        }
        Ok((records, left_open))
    }

    /// Notes that a session began. Never waits: the file is written soon, and retried until it is.
    pub fn begin(&self, begun: Begun) {
        let relay = self.relay.to_string();
        self.put(Record { begun, relay, ended: None, published: Published::Nothing });
    }

    /// Takes a record over as it is.
    pub(super) fn put(&self, record: Record) {
        let id = record.begun.id;
        let gone = {
            let mut shared = lock(&self.shared);
            shared.records.insert(id, record);
            shared.shed()
        };
        self.save(id);
        self.publish_soon(id);
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
        self.publish_soon(id);
    }

    /// Notes that nothing of a session that ended is open any more: now the API server may be told so.
    pub fn closed(&self, id: SessionId) {
        self.publish_soon(id);
    }

    pub(super) fn publish_soon(&self, id: SessionId) {
        let mut shared = lock(&self.shared);
        if shared.publishing {
            shared.pending.insert(id);
            drop(shared);
            self.pending.notify_one();
        }
    }

    /// Notes that this process lives at `now` and what live sessions have carried; about every 10 s.
    /// After a crash the open records end at the last such instant.
    pub fn alive(&self, now: Timestamp, bytes: &[(SessionId, u64, u64)]) {
        let bytes = bytes.iter().map(|(id, i, o)| (id.to_string(), (*i, *o))).collect();
        self.ask(Work::Alive(Alive { time: now, bytes }));
    }

    /// Removes what ended more than `retention` before `now` and is not to be published any more.
    pub fn retain(&self, retention: SignedDuration, now: Timestamp) {
        let old = |record: &Record| {
            record.ended.as_ref().is_some_and(|ended| files::is_old(ended.at, retention, now))
        };
        let gone: Vec<_> = {
            let mut shared = lock(&self.shared);
            let publishing = shared.publishing;
            let done = |r: &&Record| !publishing || r.published == Published::Ended;
            let gone: Vec<_> = shared
                .records
                .values()
                .filter(|record| old(record))
                .filter(done)
                .map(|record| record.begun.id)
                .collect();
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

    pub(super) fn save(&self, id: SessionId) {
        lock(&self.shared).unsaved.insert(id);
        self.ask(Work::Save);
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

impl Shared {
    /// Takes the oldest ended records out while there are too many: their files go too, but for those
    /// that are still to be published.
    pub fn shed(&mut self) -> Vec<SessionId> {
        let surplus = self.records.len().saturating_sub(MOST);
        let waits = |record: &Record| self.publishing && record.published != Published::Ended;
        let safe = |id: &SessionId| !self.unsaved.contains(id) && self.saving != Some(*id);
        let out: Vec<_> = self
            .records
            .values()
            .filter(|record| record.ended.is_some())
            .map(|record| (record.begun.id, waits(record)))
            .filter(|(id, waits)| !waits || safe(id))
            .take(surplus)
            .collect();
        let mut gone = Vec::new();
        for (id, waits) in out {
            self.records.remove(&id);
            if waits {
                self.on_disk.insert(id);
            } else {
                gone.push(id);
            }
        }
        gone
    }
}

struct Worker {
    directory: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

impl Worker {
    fn run(self, queue: &Receiver<Work>) {
        loop {
            let all = lock(&self.shared).unsaved.is_empty();
            let patience = if all { Duration::from_hours(1) } else { AGAIN };
            match queue.recv_timeout(patience) {
                Ok(Work::Save) | Err(RecvTimeoutError::Timeout) => {}
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
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.save();
        }
        self.save();
    }

    fn save(&self) {
        let mut trouble = None;
        loop {
            let (id, record) = {
                let mut shared = lock(&self.shared);
                shared.saving = None;
                let Some(id) = shared.unsaved.pop_first() else { break };
                shared.saving = Some(id);
                (id, shared.records.get(&id).cloned())
            };
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
                let mut shared = lock(&self.shared);
                shared.saving = None;
                shared.unsaved.insert(id);
                break;
            }
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
