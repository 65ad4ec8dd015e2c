//! The SSH that a relay speaks, and nothing more: server role, public keys only, AEAD ciphers only.
//!
//! Sans-I/O: bytes in, events out, commands in, bytes out. No tokio, no files, no policy, and no clock
//! but the time that each call is given.
