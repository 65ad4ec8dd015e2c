//! The trail: JSON lines in `STATE/audit`, each bound to the one before by its hash (invariant 7).
//!
//! One thread writes and syncs, many records at a time; [`Audit::record`] returns when its line is
//! durable, and only then may the first byte flow. What a crash, a full disk or a tamperer leaves is
//! never passed over silently:
//!
//! - A line torn by a crash was never durable, so nobody was admitted by it. It is dropped at the next
//!   start, and a Repair line says how many bytes went and their hash.
//! - A failed write or sync fails its records and is taken off the file again; a Recovered line says
//!   how many were refused, once lines can be written again.
//! - The file has room beyond its last line, so that a disk that fills up is noticed while the lines
//!   of admissions under way still fit.
//! - A chain that does not hold at the start stays as it is, in a closed file; a new file begins with
//!   a Repair line that names the break, and [`verify`] goes on naming it.

mod event;
mod files;
mod head;
mod left_open;
mod line;
pub(crate) mod log;
mod verify;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, oneshot};

use crate::state::{StateDir, StateError};
pub use event::{Event, Reason, Verdict, What, WindowRef};
pub use left_open::left_open;
pub use verify::{Broken, Summary, verify, verify_from};
use writer::{Message, Record, Shared, Writer};

/// Records that may wait for the disk; more wait for room.
const QUEUE: usize = 4096;
/// How long [`Audit::insist`] waits between tries.
const AGAIN: Duration = Duration::from_secs(1);

/// How long [`Audit::record`] waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the trail is written.
pub struct Settings {
    /// A file that has reached this many bytes is closed and the next one begun.
    pub rotate_at: u64,
    /// Where each durable line is copied to, such as stdout. A slow or broken reader delays and fails
    /// nothing: lines beyond a bounded queue are left out and counted.
    pub copy_to: Option<Box<dyn io::Write + Send>>,
    /// Tells the time of the lines that the trail writes by itself.
    pub clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Told of each group of lines that became durable: how many they are, and how long it took.
    pub written: Box<dyn Fn(u64, Duration) + Send>,
}

impl Settings {
    /// 64 MiB a file, copied nowhere.
    pub fn new(clock: impl Fn() -> Timestamp + Send + 'static) -> Self {
        Self {
            rotate_at: 64 << 20,
            copy_to: None,
            clock: Box::new(clock),
            written: Box::new(|_, _| ()),
        }
    }
}

/// Why a line is not in the trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log cannot be written: {0}")]
    NotWritten(String),
    #[error("the audit log cannot be written: the disk has not answered for 10 s")]
    Late,
    #[error("the audit log is closed")]
    Closed,
}

/// The trail of one state directory. Clones share it; when the last one goes, the writer ends.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: Sender<Message>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl Audit {
    /// Opens the trail, repairs a line torn by a crash, and says loudly where the chain is broken.
    /// Succeeds on a full disk too: then [`Audit::healthy`] tells.
    pub fn open(state: &StateDir, settings: Settings) -> Result<Self, StateError> {
        let audit = state.subdirectory("audit")?;
        let opened = |source| StateError::Io { what: "open", path: audit.clone(), source };
        let log = log::Log::open(&audit, settings.rotate_at, (settings.clock)()).map_err(opened)?;
        let shared = Arc::new(Shared::default());
        let writer =
            Writer::new(log, Arc::clone(&shared), settings, state.clone()).map_err(opened)?;
        let queue = writer::start(writer).map_err(opened)?;
        let room = Arc::new(Semaphore::new(QUEUE));
        Ok(Self { queue, room, shared })
    }

    /// Appends a line; returns its `seq` once it is durable. An error means that nobody may act as if
    /// it were in the trail; after [`AuditError::Late`] and after dropping the future it may yet come.
    pub async fn record(&self, event: Event) -> Result<u64, AuditError> {
        tokio::time::timeout(PATIENCE, self.append(event)).await.unwrap_or_else(|_| {
            self.shared.stuck.store(true, Ordering::Relaxed);
            Err(AuditError::Late)
        })
    }

    /// Appends a line that must not be missing, such as a session's end: waits for as long as the disk
    /// takes, and tries again each second after a failure. An error only when the trail is closed.
    pub async fn insist(&self, event: Event) -> Result<u64, AuditError> {
        loop {
            match self.append(event.clone()).await {
                Err(AuditError::NotWritten(_)) => tokio::time::sleep(AGAIN).await,
                done => return done,
            }
        }
    }

    async fn append(&self, mut event: Event) -> Result<u64, AuditError> {
        event.shorten();
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| AuditError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let record = Box::new(Record { event, reply, _room: room });
        self.queue.send(Message::Record(record)).map_err(|_| AuditError::Closed)?;
        answer.await.map_err(|_| AuditError::Closed)?
    }

    /// Whether lines can be written; `Err` is a sentence. A trail in trouble is tried each second.
    pub fn healthy(&self) -> Result<(), String> {
        match self.shared.trouble() {
            None if self.shared.stuck.load(Ordering::Relaxed) => Err(AuditError::Late.to_string()),
            None => Ok(()),
            Some(why) => Err(AuditError::NotWritten(why).to_string()),
        }
    }

    /// The number of the last durable line; 0 before the first of this process.
    pub fn last_seq(&self) -> u64 {
        self.shared.last_seq.load(Ordering::Relaxed)
    }

    /// Lines that [`Settings::copy_to`] did not take since the start.
    pub fn copies_dropped(&self) -> u64 {
        self.shared.copies_dropped.load(Ordering::Relaxed)
    }

    /// Writes what was recorded before, pins the end, and ends the writer. Later records fail.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).is_ok() {
            // An error is the writer's end too.
            let _ = closed.await;
        }
    }
}
