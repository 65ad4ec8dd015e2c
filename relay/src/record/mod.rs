//! SupportSession records: one file `STATE/sessions/ss-<uuidv7>.json` for each session, in the shape
//! of the resource.
//!
//! The record follows the audit line, which is what admits (invariant 7): it is written by a thread
//! of its own, off the data path, and retried until it exists. What is listed comes from memory.
//!
//! In a cluster the files are also what is still to be told to the API server ([`Outbox`]): none goes
//! before its SupportSession object says how the session ended.

pub(crate) mod files;
mod outbox;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use tidegate_policy::model::{Label, Login, ObjectKey};
use uuid::Uuid;

pub use outbox::Outbox;
pub use store::Records;
pub use tidegate_crds::support_session::EndedBy;

/// The name of a SupportSession: `ss-` and a UUID of version 7, so that names sort by their time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

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
    pub fn generate(now: Timestamp) -> Self {
        let nanoseconds = now.as_nanosecond().max(0);
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
        let rest = u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, rest)))
    }

    pub fn uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for SessionId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
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

/// A session's record: how it began, and how it ended if it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub begun: Begun,
    /// The relay that wrote it.
    pub relay: String,
    pub ended: Option<Ended>,
    pub published: Published,
}

/// What the API server is known to have of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Published {
    #[default]
    Nothing,
    /// The object exists, by this uid.
    Begun(String),
    /// It says how the session ended, or is gone: nothing is left to be done.
    Ended,
}
