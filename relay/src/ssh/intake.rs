//! What a connection's task does with what its peer sends: reads it, hands messages to the core, passes
//! data on, and waits for the other leg where that costs nobody anything.

use std::io::ErrorKind;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_ssh::Next;

use super::buffers::{self, Buffer};
use super::leg::time;
use super::partial::Partial;
use super::task::{Stop, Task};
use super::tell;
use crate::clock::{self, Boot};

/// Bytes that are read of a peer that was told to go: with some of them unread its kernel may drop what
/// it was told.
const LAST: usize = 1 << 20;
/// How long what a peer has sent may wait for another leg, and a connection rest with a buffer.
const PATIENCE: Duration = Duration::from_millis(20);

impl Task {
    /// When what the buffer holds has to leave it at the latest.
    pub(super) fn patience(&self) -> Option<Boot> {
        let buffer = self.buffer.as_ref()?;
        let since = if buffer.batch.is_empty() { None } else { self.behind };
        Some(since.unwrap_or(self.heard).plus(PATIENCE))
    }

    /// Gives the buffer back: what it holds for another leg goes on into a queue there.
    pub(super) fn put_down(&mut self) {
        if let Some(mut buffer) = self.buffer.take() {
            self.deliver(&mut buffer, false);
            self.partial = Partial::new(buffer.left().to_vec(), buffer.need);
        }
    }

    /// Passes on what was decrypted, or leaves what the other leg does not take now in the buffer, and
    /// nothing more is read. TCP tells the peer to wait then, and the data will be sealed where it
    /// lies, while a queue at the other leg would cost copies.
    ///
    /// That is done only where no other channel can suffer, since this connection has but one, and
    /// what the peer has sent waits unread for 20 ms at most: an EOF, a window, an open, new keys, a
    /// sign of life. The time counts from when something was first left waiting to when the socket
    /// was next read to its end; once it is over, data goes into the queue and everything
    /// is read until then. The cut needs nothing that could wait: what is held here is asked
    /// about again before it is sealed.
    fn deliver(&mut self, buffer: &mut Buffer, may_wait: bool) {
        let (bytes, _, batch) = buffer.parts();
        if batch.is_empty() {
            return;
        }
        self.shared.let_go();
        let patient = may_wait
            && self.parting.is_none()
            && !buffers::are_scarce()
            && self.behind.is_none_or(|since| clock::boot() < since.plus(PATIENCE))
            && self.shared.lock().core.channels() == 1;
        batch.deliver(bytes, patient.then_some(&self.shared));
        if !batch.is_empty() {
            self.behind.get_or_insert_with(clock::boot);
        }
    }

    /// Reads once and handles it. Pending: nothing more is there, or what is there has to wait.
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if self.dropped > LAST {
            // It has had its word, and the clock ends it.
            return Poll::Pending;
        }
        let mut buffer =
            self.buffer.take().unwrap_or_else(|| Box::new(Buffer::behind(self.partial.len())));
        let read = self.read_into(cx, &mut buffer);
        if self.partial.len() == 0 && !buffer.is_empty() {
            self.buffer = Some(buffer);
            if buffers::are_scarce() {
                self.put_down();
            }
        }
        read
    }

    fn read_into(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<Result<(), Stop>> {
        self.deliver(buffer, true);
        if !buffer.batch.is_empty() {
            return Poll::Pending;
        }
        let room = buffer.room();
        let came = match self.shared.socket.poll_read(cx, room) {
            Poll::Pending => {
                self.behind = None;
                return Poll::Pending;
            }
            Poll::Ready(Ok(came)) if came.bytes > 0 => came,
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                let why = super::printable(&error.to_string(), 200);
                return Poll::Ready(Err(Stop::Layers(why)));
            }
            Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(Stop::Closed)),
        };
        let count = came.bytes;
        self.heard = clock::boot();
        self.asked = 0;
        self.shared.heard.notify_waiters();
        if self.parting.is_some() {
            buffer.clear();
            self.partial = Partial::default();
            self.dropped = self.dropped.saturating_add(count);
            return Poll::Ready(Ok(()));
        }
        if !came.more {
            self.behind = None;
        }
        if self.partial.len() > 0 {
            if self.partial.grow(buffer.came(count)) {
                return Poll::Ready(Ok(()));
            }
            self.partial.put(buffer.front());
            self.partial = Partial::default();
        }
        buffer.fill(count);
        if buffer.left().len() < buffer.need {
            return Poll::Ready(Ok(()));
        }
        let taken = self.take(buffer).map(|need| buffer.need = need);
        // A window may have been opened.
        self.shared.lock().release_written();
        self.deliver(buffer, taken.is_ok());
        if taken.is_err() {
            buffer.clear();
        }
        Poll::Ready(taken)
    }

    /// Handles every packet that is complete, but for the last data, which is left in the batch; how
    /// many bytes the first that is not complete needs at least.
    fn take(&mut self, buffer: &mut Buffer) -> Result<usize, Stop> {
        let (bytes, at, batch) = buffer.parts();
        loop {
            match self.inbound.next(bytes, *at)? {
                Next::Incomplete { need } => return Ok(need),
                Next::Version { line, next } => {
                    let line = bytes.get(line).unwrap_or_default();
                    self.shared.lock().core.version(line);
                    *at = next;
                }
                Next::Exhausted => self.shared.lock().core.rekey(time()),
                Next::Message { frame, message, next, sequence } => {
                    *at = next;
                    let place = message.start.saturating_sub(frame.start);
                    let message = bytes.get(message).unwrap_or_default();
                    let event = {
                        let mut leg = self.shared.lock();
                        let event = leg.core.handle(message, sequence, &mut self.door, time())?;
                        match event {
                            Some(event) => tell::data(&mut leg, event, message, frame, place),
                            None => continue,
                        }
                    };
                    let event = match event {
                        tell::Told::Done => continue,
                        tell::Told::Pass(item) => {
                            if !batch.fits(&item.way) {
                                batch.deliver(bytes, None);
                            }
                            batch.push(item);
                            continue;
                        }
                        tell::Told::Other(event) => event,
                    };
                    batch.deliver(bytes, None);
                    self.event(event)?;
                }
            }
        }
    }

    fn event(&mut self, event: tidegate_ssh::Event) -> Result<(), Stop> {
        match event {
            tidegate_ssh::Event::Keys { opener, reset_sequence, .. } => {
                self.inbound.install(opener, reset_sequence);
                Ok(())
            }
            event => {
                self.proven |= matches!(event, tidegate_ssh::Event::Authenticated { .. });
                tell::tell(&self.shared, event)
            }
        }
    }
}
