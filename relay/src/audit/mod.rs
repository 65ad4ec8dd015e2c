//! The trail: JSON lines in `STATE/audit`, each bound to the one before by its hash (invariant 7).

mod event;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::state::{StateDir, StateError};
pub use event::{Event, Reason, Verdict, What, WindowRef};

/// How the trail is written.
pub struct Settings {
    /// A file that has reached this many bytes is closed and the next one begun.
    pub rotate_at: u64,
    /// Where each durable line is copied to, such as stdout. A slow or broken reader delays and fails
    /// nothing: lines beyond a bounded queue are left out and counted.
    pub copy_to: Option<Box<dyn io::Write + Send>>,
}

impl Default for Settings {
    /// 64 MiB, copied nowhere.
    fn default() -> Self {
        Self { rotate_at: 64 << 20, copy_to: None }
    }
}

/// Why a line is not in the trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log cannot be written: {0}")]
    NotWritten(String),
    #[error("the audit log is closed")]
    Closed,
}

/// The trail of one state directory. Clones share it.
#[derive(Clone, Debug)]
pub struct Audit {}

impl Audit {
    /// Opens the trail, repairs a line torn by a crash, and says loudly where the chain is broken.
    /// `now` is the time of a Repair line.
    pub fn open(
        _state: &StateDir,
        _settings: Settings,
        _now: Timestamp,
    ) -> Result<Self, StateError> {
        unimplemented!()
    }

    /// Appends a line; returns its `seq` once it is durable. An error means that it is not in the
    /// trail. Dropping the future does not take the line back.
    pub async fn record(&self, _event: Event) -> Result<u64, AuditError> {
        unimplemented!()
    }

    /// Appends a line that must not be missing, such as a session's end: tried again each second until
    /// it is durable. An error only when the trail is closed.
    pub async fn insist(&self, _event: Event) -> Result<u64, AuditError> {
        unimplemented!()
    }

    /// Whether lines can be written; `Err` is a sentence.
    pub fn healthy(&self) -> Result<(), String> {
        unimplemented!()
    }

    /// Lines that [`Settings::copy_to`] did not take since the start.
    pub fn copies_dropped(&self) -> u64 {
        unimplemented!()
    }

    /// Writes what was recorded before, pins the head, and ends the writer. Later records fail.
    pub async fn close(&self) {
        unimplemented!()
    }
}

/// What a whole trail says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    pub files: usize,
    pub lines: u64,
    /// `seq` and time of the first and the last line.
    pub first: Option<(u64, Timestamp)>,
    pub last: Option<(u64, Timestamp)>,
    /// Repair lines.
    pub repairs: u64,
    /// Bytes of a last line that is being written, or was torn by a crash and awaits the next start.
    pub unfinished: u64,
}

/// Where the chain breaks first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {why}", file.display())]
pub struct Broken {
    pub file: PathBuf,
    /// 1-based.
    pub line: u64,
    pub why: String,
}

/// Walks the whole chain in `STATE/audit`, in bounded memory. Needs no lock: a running relay goes on.
pub fn verify(_audit: &Path) -> Result<Summary, Broken> {
    unimplemented!()
}
