//! WebSocket framing (RFC 6455) as a stream of bytes: the boundaries of frames and messages mean
//! nothing, binary data alone is taken, and a frame's length needs no bound since no frame is kept.
//!
//! | state of the receiver | bytes | then |
//! |---|---|---|
//! | head | 2 to 14 (section 5.2) | data, control, or a fault |
//! | data | as many as the head said, unmasked in place (section 5.3) | head |
//! | control | 125 at most (section 5.5), kept | pong, close handshake (section 7.1.2), or nothing; head |
//! | closed | everything is thrown away | |
//!
//! | close code | what for (section 7.4.1) |
//! |---|---|
//! | 1000 | the relay's own goodbye, or the peer's code |
//! | 1002 | anything against section 5: no mask, RSV bits, reserved opcodes, fragments out of order, long or split control frames, lengths not as short as can be |
//! | 1003 | text |
//! | 1007 | a reason that is not UTF-8 |
//! | 1008 | more frames without data than the data that moved pays for; what is inside is not SSH |
//!
//! The latest ping of a read is answered, others are not (section 5.5.3).

pub mod client;
mod frame;
mod mask;
mod receiver;
mod server;

pub use frame::head;
pub use server::Server;

#[cfg(test)]
mod tests;
