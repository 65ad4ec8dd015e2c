//! SupportSession records: one file `STATE/sessions/ss-<uuidv7>.json` for each session, in the shape
//! of the resource.
//!
//! The record follows the audit line, which is what admits (invariant 7): it is written by a thread
//! of its own, off the data path, and retried until it exists. What is listed comes from memory.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_policy::model::{Label, Login, ObjectKey};
use uuid::Uuid;

use crate::state::{StateDir, StateError};

/// The name of a SupportSession: `ss-` and a UUID of version 7, so that names sort by their time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

/// Who or what ended a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum EndedBy {
    Staff,
    Terminal,
    Customer,
    Deadline,
    Revoked,
    Cut,
    Idle,
    Drain,
    Fault,
}

/// What is written down when a session begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    pub id: SessionId,
    pub window: ObjectKey,
    pub window_uid: String,
    pub opens_at: Timestamp,
    pub user: Login,
    pub terminal: Label,
    pub service: Label,
    pub case: Option<String>,
    pub opened_at: Timestamp,
    pub deadline: Timestamp,
}

/// What is added when it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    pub at: Timestamp,
    pub by: EndedBy,
    /// One sentence.
    pub reason: String,
    pub overrun_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl SessionId {
    /// A new one for a session that begins at `now`.
    pub fn generate(_now: Timestamp) -> Self {
        unimplemented!()
    }

    pub fn uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ss-{}", self.0.as_hyphenated())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a [`SessionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session is named ss- and a UUID, as 'sessions' lists them")]
pub struct BadSessionId;

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let uuid = text.strip_prefix("ss-").filter(|uuid| uuid.len() == 36).ok_or(BadSessionId)?;
        let uuid = Uuid::try_parse(uuid).map_err(|_| BadSessionId)?;
        if uuid.hyphenated().to_string() == text.get(3..).unwrap_or_default() {
            Ok(Self(uuid))
        } else {
            Err(BadSessionId)
        }
    }
}

impl EndedBy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staff => "Staff",
            Self::Terminal => "Terminal",
            Self::Customer => "Customer",
            Self::Deadline => "Deadline",
            Self::Revoked => "Revoked",
            Self::Cut => "Cut",
            Self::Idle => "Idle",
            Self::Drain => "Drain",
            Self::Fault => "Fault",
        }
    }
}

/// A session's record: how it began, and how it ended if it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub begun: Begun,
    /// The relay that wrote it.
    pub relay: String,
    pub ended: Option<Ended>,
}

/// The records of one state directory. Clones share them.
#[derive(Clone, Debug)]
pub struct Records {}

impl Records {
    /// Reads what is there. Records that a former process left open are ended as `Fault`, at the last
    /// instant it was known to live; they come back, oldest first, so that the trail can tell too.
    pub fn open(
        _state: &StateDir,
        _relay: &str,
        _now: Timestamp,
    ) -> Result<(Self, Vec<Record>), StateError> {
        unimplemented!()
    }

    /// Notes that a session began. Never waits: the file is written soon, and retried until it is.
    pub fn begin(&self, _begun: Begun) {
        unimplemented!()
    }

    /// Notes that a session ended; the first end stands.
    pub fn end(&self, _id: SessionId, _ended: Ended) {
        unimplemented!()
    }

    /// Notes that this process lives at `now` and what live sessions have carried; about every 10 s.
    /// After a crash the open records end at the last such instant.
    pub fn alive(&self, _now: Timestamp, _bytes: &[(SessionId, u64, u64)]) {
        unimplemented!()
    }

    /// Removes what ended more than `retention` before `now`.
    pub fn retain(&self, _retention: jiff::SignedDuration, _now: Timestamp) {
        unimplemented!()
    }

    pub fn get(&self, _id: SessionId) -> Option<Record> {
        unimplemented!()
    }

    /// The newest first, at most `most`.
    pub fn list(&self, _most: usize) -> Vec<Record> {
        unimplemented!()
    }

    /// Why a record could not be written, while it cannot.
    pub fn healthy(&self) -> Result<(), String> {
        unimplemented!()
    }

    /// Resolves when everything noted before is on disk, or cannot be written now.
    pub async fn flush(&self) {
        unimplemented!()
    }
}
