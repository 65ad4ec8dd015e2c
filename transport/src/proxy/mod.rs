//! The receiver's side of the PROXY protocol, versions 1 and 2 (haproxy's `doc/proxy-protocol.txt`,
//! sections 2.1 and 2.2). Whether a peer may, or must, send a header is not decided here but by
//! where it comes from (section 5 of that text): [`crate::arrival`] reads one where it must come and
//! refuses one anywhere else.
//!
//! | state | bytes | then |
//! |---|---|---|
//! | signature | `PROXY ` or the 12 bytes of version 2; refused at the first byte that cannot be of it | line, or binary |
//! | line (2.1) | to CR LF, 107 bytes at most | `Header`, `HealthCheck` (UNKNOWN), refused |
//! | binary (2.2) | 16 bytes and as many as they say, [`v2::MOST`] at most | `Header`, `HealthCheck` (LOCAL, UNSPEC, no TCP), refused |
//!
//! No header is looked at before all of it is there, but for what makes it refused. A health check is
//! known when its header is complete, so that nothing of it is left unread when the relay closes.

mod crc;
mod v1;
mod v2;

use std::net::SocketAddr;

use crate::Fault;

/// How a line of version 1 begins.
pub const LINE: &[u8] = b"PROXY ";
/// How a header of version 2 begins.
pub const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The most bytes of a header of either version.
pub const MOST: usize = v2::MOST;

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// No whole header yet.
    NeedMore,
    /// The first `consumed` bytes say who connected, and to which address. IPv4 addresses in IPv6
    /// are given as IPv4.
    Header { source: SocketAddr, destination: SocketAddr, consumed: usize },
    /// The proxy itself, or somebody of whom it can say nothing: nobody to serve.
    HealthCheck { consumed: usize },
    /// No header, or none as it has to be.
    Refused(Fault),
}

fn refused(sentence: &'static str) -> Read {
    Read::Refused(Fault::new(sentence))
}

fn header(source: SocketAddr, destination: SocketAddr, consumed: usize) -> Read {
    let plain = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    Read::Header { source: plain(source), destination: plain(destination), consumed }
}

/// Reads the header that `bytes`, all that came so far, begin with. The same bytes give the same
/// answer however they were split; more bytes never change an answer other than `NeedMore`.
pub fn read(bytes: &[u8]) -> Read {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted);
    if begins(LINE) {
        if bytes.len() < LINE.len() { Read::NeedMore } else { v1::read(bytes) }
    } else if begins(BINARY) {
        if bytes.len() < BINARY.len() { Read::NeedMore } else { v2::read(bytes) }
    } else {
        refused(
            "the connection does not begin with a PROXY protocol header, which is required from its \
             source range; let the proxy send one, or take its address out of the declared ranges",
        )
    }
}

#[cfg(test)]
mod tests;
