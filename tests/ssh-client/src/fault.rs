//! Why a client gives up.

use tidegate_ssh::Fatal;
use tidegate_ssh::random::NoRandom;
use tidegate_ssh::wire::Malformed;

/// The server did what it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl Fault {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Not the server's, but the client's own.
    pub(crate) fn ours() -> Self {
        Self::new("the client could not make keys")
    }
}

impl From<Fatal> for Fault {
    fn from(fatal: Fatal) -> Self {
        Self(fatal.text)
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self(malformed.to_string())
    }
}

impl From<NoRandom> for Fault {
    fn from(_: NoRandom) -> Self {
        Self::ours()
    }
}
