//! The last refusals and endings of each login, across restarts, for `why`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_policy::model::Login;

use crate::record::{EndedBy, SessionId};
use crate::state::{StateDir, StateError};

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

/// The histories of all logins. Clones share them.
#[derive(Clone, Debug)]
pub struct Histories {}

impl Histories {
    pub fn open(_state: &StateDir) -> Result<Self, StateError> {
        unimplemented!()
    }

    /// Remembers `entry` for an existing user. Never waits and never fails: what cannot be kept is
    /// counted.
    pub fn note(&self, _login: &Login, _entry: Entry) {
        unimplemented!()
    }

    /// The last entries, oldest first; includes everything noted before.
    pub async fn of(&self, _login: &Login) -> Vec<Entry> {
        unimplemented!()
    }

    /// Entries that could not be kept since the start.
    pub fn dropped(&self) -> u64 {
        unimplemented!()
    }

    /// Forgets users that no longer exist.
    pub fn retain(&self, _users: Vec<Login>) {
        unimplemented!()
    }
}
