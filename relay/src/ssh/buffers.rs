//! Buffers for what is read. A connection that waits for its peer holds none, but for a moment in which
//! more is expected to come at once; how many do so at a time is bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::splice::Batch;

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;
/// Room for the next read, below which what is left is moved to the front.
const ROOM: usize = 128 * 1024;
/// Buffers that may be lent at a time before connections have to give theirs back when they rest:
/// 8 MiB.
const MANY: usize = 32;
/// Buffers that are kept for the next.
const SPARE: usize = 4;

static SPARES: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static LENT: AtomicUsize = AtomicUsize::new(0);

fn spares() -> MutexGuard<'static, Vec<Vec<u8>>> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether so many are lent that whoever rests has to do without.
pub(super) fn are_scarce() -> bool {
    LENT.load(Ordering::Relaxed) > MANY
}

/// A buffer that is lent until it is dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where what is left begins: the beginning of a packet whose rest has not come.
    at: usize,
    filled: usize,
    /// With fewer bytes there is nothing to be done, as `Next::Incomplete` said.
    pub need: usize,
    /// Packets in front of that, decrypted, that have not gone on to the other leg yet.
    pub batch: Batch,
}

impl Buffer {
    /// With room in front of the first read for what was kept of earlier ones.
    pub fn behind(kept: usize) -> Self {
        LENT.fetch_add(1, Ordering::Relaxed);
        let spare = spares().pop();
        let bytes = spare.unwrap_or_else(|| vec![0; BUFFER]);
        Self { bytes, at: 0, filled: kept, need: 0, batch: Batch::default() }
    }

    /// The room for what was kept.
    pub fn front(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.filled).unwrap_or_default()
    }

    /// So many bytes that were read into the room and are not filled in yet.
    pub fn came(&self, count: usize) -> &[u8] {
        let end = self.filled.saturating_add(count);
        self.bytes.get(self.filled..end).unwrap_or_default()
    }

    /// The beginning of a packet.
    pub fn left(&self) -> &[u8] {
        self.bytes.get(self.at..self.filled).unwrap_or_default()
    }

    /// Whether nothing is in it that is still to be handled.
    pub fn is_empty(&self) -> bool {
        self.at == self.filled && self.batch.is_empty()
    }

    /// Where the next bytes go, behind what is left. To be called with an empty batch.
    pub fn room(&mut self) -> &mut [u8] {
        if self.at == self.filled {
            self.at = 0;
            self.filled = 0;
        } else if self.at > 0 && self.bytes.len().saturating_sub(self.filled) < ROOM {
            self.bytes.copy_within(self.at..self.filled, 0);
            self.filled = self.filled.saturating_sub(self.at);
            self.at = 0;
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many bytes were read into the room.
    pub fn fill(&mut self, count: usize) {
        self.filled = self.filled.saturating_add(count).min(self.bytes.len());
    }

    /// What is there to be handled, where it begins, and the batch for it.
    pub fn parts(&mut self) -> (&mut [u8], &mut usize, &mut Batch) {
        let bytes = self.bytes.get_mut(..self.filled).unwrap_or_default();
        (bytes, &mut self.at, &mut self.batch)
    }

    /// Drops all that is in it.
    pub fn clear(&mut self) {
        self.at = self.filled;
        self.need = 0;
        self.batch = Batch::default();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        LENT.fetch_sub(1, Ordering::Relaxed);
        let mut spares = spares();
        if spares.len() < SPARE {
            spares.push(std::mem::take(&mut self.bytes));
        }
    }
}
