//! The SSH front with the clients that people use: OpenSSH, dropbear's dbclient, PuTTY's plink.
//!
//! Each test has a gate, a directory and a port of its own, on loopback. A client that is not
//! installed fails its tests.
#![expect(clippy::disallowed_methods, reason = "tests are peers, and measure")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod client;
mod ending;
mod gate;
mod login;
mod raw;
mod streams;
mod waits;
