//! What lies under SSH on a connection of the relay.
pub mod arrival;
pub mod http;
pub mod layer;
pub mod output;
pub mod proxy;
pub mod sniff;
pub mod stack;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
pub mod tls;
pub mod websocket;

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

#[cfg(test)]
mod tests;
