//! HTTP/1.1 as far as a relay speaks it: one request head on a connection, one answer, then either a
//! WebSocket or the end. [`request`] reads the head, [`answer`] turns it into what is sent.
//!
//! | state | bytes | then |
//! |---|---|---|
//! | head | to an empty line, [`MOST`] bytes and [`HEADERS`] headers at most (RFC 9112 section 2) | answer |
//! | answer | `101` (RFC 6455 section 4.2.2): what follows are frames; any other: close | |
//!
//! A head that two programs could read in two ways is refused: bare CR or LF, spaces in front of a
//! colon, folded lines, two of a header that may be there once, Content-Length and Transfer-Encoding
//! (RFC 9112 sections 2.2, 5, 6.3 and 11.2). No answer has a byte of the request's, but for the hash of
//! a well-formed Sec-WebSocket-Key.

mod answer;
mod page;
mod request;

pub use answer::{Answer, PROTOCOL, accept, answer};
#[cfg(test)]
pub use request::read;
pub use request::{HEADERS, Head, MOST, Method, Refusal, Request, Scan};

#[cfg(test)]
mod tests;
