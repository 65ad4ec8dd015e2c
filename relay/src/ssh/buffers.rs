//! What a task needs while it handles what it has read: one for each thread, so that a connection that
//! waits holds none.

use std::cell::Cell;

use super::splice::Batch;

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;

pub(super) struct Scratch {
    pub buffer: Vec<u8>,
    pub batch: Batch,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Lends this thread's. Where it is lent already, or was lost with a panic, another one is made.
pub(super) fn with<T>(act: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH
        .take()
        .unwrap_or_else(|| Box::new(Scratch { buffer: vec![0; BUFFER], batch: Batch::default() }));
    let done = act(&mut scratch);
    SCRATCH.set(Some(scratch));
    done
}
