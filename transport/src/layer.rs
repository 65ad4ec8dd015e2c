//! What a layer between the socket and SSH does, whichever it is.

use std::ops::Range;

use crate::Fault;

/// Bytes in front of the raw ones that a layer may need: of the beginning of a TLS record that came
/// with an earlier read there may be so much plaintext more than there are raw bytes now. A record is
/// 5 bytes of head, 16,384 of data and 256 of padding and tag at most (RFC 8446 section 5.2).
pub const HEADROOM: usize = 5 + (1 << 14) + 256;

/// What became of raw bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// So many bytes of plaintext are at the front of the buffer.
    pub plain: usize,
    /// The peer has said that nothing more comes. Nothing that follows is read.
    pub ended: bool,
}

/// One layer of a connection. Nothing here waits, and what a layer keeps is bounded.
pub trait Layer {
    /// Takes all of `buffer[raw]` and puts the plaintext to the front of `buffer`, which has
    /// [`HEADROOM`] bytes in front of `raw`, of no meaning (a WebSocket needs none). What the layer
    /// has to answer, also before a fault, is put behind `out`.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        raw: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<Received, Fault>;

    /// Puts `plain`, all of it, behind `out` as it goes on the wire. The caller bounds it.
    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault>;

    /// Puts this layer's goodbye behind `out`; the second time nothing.
    fn close(&mut self, out: &mut Vec<u8>);
}
