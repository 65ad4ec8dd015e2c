//! The SSH that a relay speaks, and nothing more: server role, public keys only, AEAD ciphers only.
//!
//! Sans-I/O: bytes in, events out, commands in, bytes out. No tokio, no files, no policy, and no clock
//! but the time that each call is given. Primitives and constant-time comparison are aws-lc's, key
//! formats ssh-key's; no cipher, hash or curve is written here.
//!
#![doc = include_str!("../STATES.md")]

pub mod algorithm;
mod auth;
pub mod budget;
mod channel;
pub mod cipher;
mod commands;
pub mod config;
mod core;
pub mod event;
mod ext_info;
mod global;
pub mod hostkey;
mod kex;
mod kexinit;
pub mod message;
mod outbound;
pub mod output;
pub mod packet;
#[cfg(test)]
mod plain;
mod pump;
pub mod random;
mod replies;
mod request;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod version;
pub mod wire;

pub use algorithm::{Cipher, HostKeyAlgorithm, Kex, Negotiated};
pub use auth::Door;
pub use budget::Budget;
pub use channel::Id;
pub use cipher::{Opener, Sealer};
pub use commands::{NoChannel, TooMany};
pub use config::{Config, ExchangeLimits, Limits, OpenLimits, RekeyLimits, Windows};
pub use core::Core;
pub use event::{Event, RequestKind, Shortage};
pub use global::Token;
pub use hostkey::HostKey;
pub use message::{DisconnectCode, Fatal, OpenFailure};
pub use output::Output;
pub use packet::{Inbound, Next};
pub use pump::Relayed;
pub use random::Random;
pub use transport::{Handled, Transport};

#[cfg(test)]
mod tests;
