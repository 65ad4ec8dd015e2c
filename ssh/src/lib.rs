//! The SSH that a relay speaks, and nothing more: server role, public keys only, AEAD ciphers only.
//!
//! Sans-I/O: bytes in, events out, commands in, bytes out. No tokio, no files, no policy, and no clock
//! but the time that each call is given. Primitives and constant-time comparison are aws-lc's, key
//! formats ssh-key's; no cipher, hash or curve is written here.
//!
//! # Where each message is
//!
//! | number | message | RFC | in | out |
//! |---|---|---|---|---|
//! | | version line | 4253 §4.2 | [`version`] | [`Transport::new`] |
//! | | binary packet | 4253 §6 | [`packet`] | `outbound` |
//! | 1 | DISCONNECT | 4253 §11.1 | [`Handled::Disconnected`] | [`Transport::disconnect`] |
//! | 2 | IGNORE | 4253 §11.2 | [`Transport::handle`]: nothing | |
//! | 3 | UNIMPLEMENTED | 4253 §11.4 | [`Transport::handle`]: nothing | [`Transport::unimplemented`] |
//! | 4 | DEBUG | 4253 §11.3 | [`Transport::handle`]: nothing | |
//! | 7 | EXT_INFO | 8308 §2.3 | [`Transport::handle`]: nothing | `ext_info`, by `Transport::reply` |
//! | 20 | KEXINIT | 4253 §7.1 | `kexinit::Offer`, `Transport::offered` | `kexinit::build`, `Transport::begin` |
//! | 21 | NEWKEYS | 4253 §7.3 | `Transport::confirmed`, [`Inbound::install`] | `Transport::reply` |
//! | 30, 31 | share and reply | 5656 §4, 8731, mlkem | `Transport::share`, `kex::reply` | `Transport::reply` |
//! | 192, 193 | PING, PONG | OpenSSH PROTOCOL §1.8 | `Transport::pong` | `Transport::pong` |
//!
//! What may come when: while keys are exchanged, [`packet`] lets only 1 to 4 and 20 to 49 through (RFC
//! 4253 §7.1), and `Transport::check_strict` only 1 and 20 to 49 where the first exchange is strict. The
//! states of an exchange are in [`transport`].
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
pub use config::{Config, ExchangeLimits, Limits, RekeyLimits, Windows};
pub use core::Core;
pub use event::{Event, RequestKind};
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
