//! The SSH that a relay speaks, and nothing more: server role, public keys only, AEAD ciphers only.
//!
//! Sans-I/O: bytes in, events out, commands in, bytes out. No tokio, no files, no policy, and no clock
//! but the time that each call is given.

pub mod algorithm;
pub mod cipher;
pub mod config;
mod ext_info;
pub mod hostkey;
mod kex;
mod kexinit;
pub mod message;
mod outbound;
pub mod output;
pub mod packet;
pub mod random;
pub mod transport;
pub mod version;
pub mod wire;

pub use algorithm::{Cipher, HostKeyAlgorithm, Kex, Negotiated};
pub use cipher::{Opener, Sealer};
pub use config::{Config, RekeyLimits};
pub use hostkey::HostKey;
pub use message::{DisconnectCode, Fatal, OpenFailure};
pub use output::Output;
pub use packet::{Inbound, Next};
pub use random::Random;
pub use transport::{Handled, Transport};

#[cfg(test)]
mod tests;
