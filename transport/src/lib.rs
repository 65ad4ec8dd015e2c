//! What lies under SSH on a connection of the relay.
pub mod http;
pub mod proxy;
pub mod sniff;

use std::borrow::Cow;

/// Why a connection is over, in one sentence for the log; ASCII, without bytes of the peer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(Cow<'static, str>);

impl Fault {
    pub(crate) fn new(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(sentence.into())
    }
}
