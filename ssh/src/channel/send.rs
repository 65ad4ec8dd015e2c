//! What waits to be sealed on one channel, and how much of it the peer takes (RFC 4254 sections 5.2,
//! 5.3 and 6.10). Its order is fixed: data, exit status, EOF, CLOSE.

use super::chunks::Chunks;
use crate::message::number;
use crate::wire::Writer;

/// The largest piece of data that we put into a packet, whatever the peer takes.
pub(crate) const PIECE: u32 = 32 * 1024;

/// The peer gave a window beyond 2^32 - 1 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// Which of the streams of a channel data belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Data,
    /// Extended data of this type (1: standard error).
    Extended(u32),
}

/// EOF, or CLOSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Last {
    #[default]
    Not,
    Wanted,
    Sent,
}

/// What [`SendQueue::next`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes of data.
    Data(u32),
    Other,
    /// CLOSE: nothing follows.
    Close,
}

#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    window: u32,
    packet: u32,
    chunks: Chunks,
    exit_status: Option<u32>,
    eof: Last,
    close: Last,
}

impl SendQueue {
    /// What the peer takes, as it says when the channel is opened; either may be 0.
    pub fn begin(&mut self, window: u32, packet: u32) {
        self.window = window;
        self.packet = packet;
    }

    /// WINDOW_ADJUST (RFC 4254 section 5.2).
    pub fn adjust(&mut self, bytes: u32) -> Result<(), Overflow> {
        self.window = self.window.checked_add(bytes).ok_or(Overflow)?;
        Ok(())
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether more data may be queued: neither EOF nor CLOSE is wanted or sent.
    pub fn takes_data(&self) -> bool {
        self.eof == Last::Not && self.close == Last::Not
    }

    pub fn push(&mut self, stream: Stream, data: &[u8]) {
        if self.takes_data() {
            self.chunks.push(stream, data);
        }
    }

    /// Whether `bytes` of data can go out now, past the queue, since it is empty; then they count.
    pub fn pass(&mut self, bytes: u32) -> bool {
        let may = self.chunks.is_empty()
            && self.takes_data()
            && self.exit_status.is_none()
            && bytes <= self.window
            && bytes <= self.packet;
        if may {
            self.window = self.window.saturating_sub(bytes);
        }
        may
    }

    /// Whether nothing of what is queued now could go out at once.
    pub fn is_stalled(&self) -> bool {
        self.takes_data() && (!self.chunks.is_empty() || self.window == 0)
    }

    /// Takes a [`SendQueue::pass`] back.
    pub fn unpass(&mut self, bytes: u32) {
        self.window = self.window.saturating_add(bytes);
    }

    pub fn exit_status(&mut self, status: u32) {
        if self.takes_data() {
            self.exit_status = Some(status);
        }
    }

    pub fn eof(&mut self) {
        self.eof = self.eof.max(Last::Wanted);
    }

    /// CLOSE after what waits.
    pub fn finish(&mut self) {
        self.close = self.close.max(Last::Wanted);
    }

    /// CLOSE now: what waits is dropped, and how many bytes that were is returned.
    pub fn close(&mut self) -> usize {
        let dropped = self.clear();
        self.finish();
        dropped
    }

    /// Drops what waits, and says how many bytes that were.
    pub fn clear(&mut self) -> usize {
        let dropped = std::mem::take(&mut self.chunks).len();
        self.exit_status = None;
        if self.eof == Last::Wanted {
            self.eof = Last::Sent;
        }
        dropped
    }

    pub fn close_sent(&self) -> bool {
        self.close == Last::Sent
    }

    /// Bytes of data that the next step may carry.
    fn room(&self) -> u32 {
        self.window.min(self.packet).min(PIECE)
    }

    /// Whether [`SendQueue::next`] has something to write.
    pub fn is_ready(&self) -> bool {
        if self.close == Last::Sent {
            return false;
        }
        if !self.chunks.is_empty() {
            return self.room() > 0;
        }
        self.exit_status.is_some() || self.eof == Last::Wanted || self.close == Last::Wanted
    }

    /// Writes the next message for the channel that the peer calls `remote`, by way of `write`: RFC 4254
    /// sections 5.2 (data), 6.10 (exit status) and 5.3 (EOF, CLOSE).
    pub fn next(
        &mut self,
        remote: u32,
        write: impl FnOnce(&mut dyn FnMut(&mut Writer<'_>)),
    ) -> Option<Step> {
        if !self.is_ready() {
            return None;
        }
        if !self.chunks.is_empty() {
            return self.piece(remote, write).map(Step::Data);
        }
        if let Some(status) = self.exit_status.take() {
            write(&mut |w| {
                w.u8(number::CHANNEL_REQUEST).u32(remote).string("exit-status");
                w.bool(false).u32(status);
            });
            return Some(Step::Other);
        }
        if self.eof == Last::Wanted {
            self.eof = Last::Sent;
            write(&mut |w| {
                w.u8(number::CHANNEL_EOF).u32(remote);
            });
            return Some(Step::Other);
        }
        self.close = Last::Sent;
        write(&mut |w| {
            w.u8(number::CHANNEL_CLOSE).u32(remote);
        });
        Some(Step::Close)
    }

    /// Writes as much of what comes first as the peer takes; how many bytes that were.
    fn piece(
        &mut self,
        remote: u32,
        write: impl FnOnce(&mut dyn FnMut(&mut Writer<'_>)),
    ) -> Option<u32> {
        let room = self.room();
        let (stream, bytes) = self.chunks.front()?;
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(room);
        let all = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..all).unwrap_or_default();
        write(&mut |w| {
            match stream {
                Stream::Data => w.u8(number::CHANNEL_DATA).u32(remote),
                Stream::Extended(kind) => w.u8(number::CHANNEL_EXTENDED_DATA).u32(remote).u32(kind),
            };
            w.u32(count).bytes(bytes);
        });
        self.chunks.consume(all);
        self.window = self.window.saturating_sub(count);
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(queue: &mut SendQueue) -> Option<(Step, Vec<u8>)> {
        let mut message = Vec::new();
        let step = queue.next(7, |build| build(&mut Writer::new(&mut message)))?;
        Some((step, message))
    }

    #[test]
    fn data_is_cut_to_what_the_peer_takes_and_the_end_comes_last() {
        let mut queue = SendQueue::default();
        queue.begin(5, 2);
        queue.push(Stream::Data, b"abc");
        queue.push(Stream::Extended(1), b"xyz");
        queue.exit_status(3);
        queue.eof();
        queue.finish();
        queue.push(Stream::Data, b"too late");
        let data = |kind: u8, head: &[u8], text: &[u8]| [&[kind, 0, 0, 0, 7], head, text].concat();
        let (one, two) = (&[0, 0, 0, 1][..], &[0, 0, 0, 2][..]);
        assert_eq!(next(&mut queue).unwrap(), (Step::Data(2), data(94, two, b"ab")));
        assert_eq!(next(&mut queue).unwrap(), (Step::Data(1), data(94, one, b"c")));
        let stderr = [one, two].concat();
        assert_eq!(next(&mut queue).unwrap(), (Step::Data(2), data(95, &stderr, b"xy")));
        assert!(!queue.is_ready() && next(&mut queue).is_none(), "the window is used up");
        assert_eq!(queue.adjust(u32::MAX), Ok(()));
        assert_eq!(queue.adjust(1), Err(Overflow));
        let stderr = [one, one].concat();
        assert_eq!(next(&mut queue).unwrap(), (Step::Data(1), data(95, &stderr, b"z")));
        let (step, message) = next(&mut queue).unwrap();
        assert_eq!(
            (step, message[0], &message[message.len() - 4..]),
            (Step::Other, 98, &[0, 0, 0, 3][..])
        );
        assert_eq!(next(&mut queue).unwrap(), (Step::Other, vec![96, 0, 0, 0, 7]));
        assert_eq!(next(&mut queue).unwrap(), (Step::Close, vec![97, 0, 0, 0, 7]));
        assert!(next(&mut queue).is_none() && queue.close_sent());
    }

    #[test]
    fn a_peer_that_takes_nothing_gets_no_data_but_the_end() {
        for (window, packet) in [(0, 1000), (1000, 0)] {
            let mut queue = SendQueue::default();
            queue.begin(window, packet);
            queue.push(Stream::Data, b"abc");
            assert!(!queue.is_ready() && !queue.pass(1));
            assert_eq!(queue.close(), 3);
            assert_eq!(next(&mut queue).unwrap().0, Step::Close);
        }
    }

    #[test]
    fn nothing_passes_a_queue_that_is_not_empty() {
        let mut queue = SendQueue::default();
        queue.begin(10, 10);
        assert!(queue.pass(4) && !queue.pass(7) && queue.pass(6));
        queue.adjust(10).unwrap();
        queue.push(Stream::Data, b"a");
        assert!(!queue.pass(1));
    }
}
