//! The client's side of SSH, for tests and benches alone: no program of Tidegate depends on it.
//!
//! Sans-I/O as `tidegate_ssh` is, over the same data types, packets and ciphers. Key exchanges,
//! signatures, logins and channels are written here a second time, from the RFCs, so that the two
//! sides check each other.
//!
//! - [`Client`]: the transport; bytes in, messages out, and what a client must not do.
//! - [`Session`]: a login, requests and channels on top, which holds the server to its promises.
//! - [`sim`]: a server and a client over millions of random steps.
//! - [`fuzz`]: what fuzzing and the replay of its corpora call.
//! - `driver` (feature): clients on sockets; `hand`, one that is led by hand.

mod client;
mod fault;
mod frame;
mod key;
mod offer;
mod random;
mod session;
mod share;

#[cfg(feature = "driver")]
pub mod driver;
pub mod fuzz;
#[cfg(feature = "driver")]
pub mod hand;
pub mod sim;

pub use client::Client;
pub use fault::Fault;
pub use key::Key;
pub use offer::Offer;
pub use random::Seeded;
pub use session::{Event, Session};
pub use tidegate_ssh::message::number;
pub use tidegate_ssh::random::System;
pub use tidegate_ssh::wire::{Reader, Writer};
