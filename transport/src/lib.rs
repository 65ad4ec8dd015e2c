//! What lies under SSH on a connection: who is behind a proxy, what the peer speaks, TLS and WebSocket.
//!
//! Sans-I/O: bytes in, bytes out. No sockets, no clock, no tasks, no files, no policy. TLS is rustls',
//! primitives are aws-lc's, the HTTP head is parsed by httparse behind checks of our own; the rest is
//! here. Invariant 8: everything that is kept for a peer is bounded, and each bound is a constant with
//! its reason.
//!
//! | module | what | specification |
//! |---|---|---|
//! | [`arrival`] | the states from the first byte to SSH | |
//! | [`sniff`] | what the first bytes are | |
//! | [`proxy`] | PROXY headers, versions 1 and 2 | haproxy's proxy-protocol.txt 2.1, 2.2 |
//! | [`http`] | one request, one answer | RFC 9110, RFC 9112, RFC 6455 §4.2 |
//! | [`websocket`] | frames as a stream of bytes | RFC 6455 §5, §7 |
//! | [`tls`] | TLS 1.2 and 1.3 | RFC 5246, RFC 8446 |
//! | [`layer`], [`stack`] | what TLS and WebSocket have in common; one in the other | |
//!
//! # As a driver uses it
//!
//! ```
//! use tidegate_transport::arrival::{Arrival, Offer, Step};
//! use tidegate_transport::layer::HEADROOM;
//!
//! let mut arrival = Arrival::new(Offer { tls: None, proxy: false });
//! // After each read, and after `Closed` once more: write what `stack().output()` has.
//! let step = arrival.receive(b"SSH-2.0-OpenSSH_9.2\r\n");
//! assert_eq!(step, Step::Ssh);
//! // After three seconds without an answer: if arrival.may_greet() { arrival.greet(); send our banner }
//! let (mut stack, first) = arrival.finish();
//! assert_eq!(first, b"SSH-2.0-OpenSSH_9.2\r\n");
//!
//! // From then on: reads go behind HEADROOM bytes of a buffer, and SSH reads from its front;
//! let mut buffer = vec![0; HEADROOM + 256 * 1024];
//! let read = 4;
//! buffer[HEADROOM..HEADROOM + read].copy_from_slice(b"more");
//! let got = stack.receive(&mut buffer, HEADROOM..HEADROOM + read)?;
//! assert_eq!(&buffer[..got.plain], b"more");
//! // what SSH sends goes in as far as there is room (0: full), and out to the socket.
//! let taken = stack.send(b"SSH-2.0-Tidegate\r\n")?;
//! let written = stack.output().as_slice().len();
//! stack.output().consume(written);
//! # assert_eq!(taken, written);
//! # Ok::<(), tidegate_transport::Fault>(())
//! ```

pub mod arrival;
#[cfg(feature = "testing")]
pub mod fuzz;
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
