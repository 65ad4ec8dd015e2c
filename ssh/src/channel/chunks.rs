//! Data that waits on a channel, in pieces as it came, so that more of it moves nothing that is there
//! already, and memory goes with what leaves.

use std::collections::VecDeque;

use super::send::{PIECE, Stream};

/// Data shorter than this joins what is in front of it, or many small packets would cost more memory
/// than their bytes.
const SMALL: usize = 4 * 1024;

#[derive(Debug)]
struct Chunk {
    stream: Stream,
    bytes: Vec<u8>,
    /// What has left already.
    head: usize,
}

/// Bytes of one or more streams. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    chunks: VecDeque<Chunk>,
    len: usize,
}

impl Chunks {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, stream: Stream, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.len = self.len.saturating_add(data.len());
        let most = usize::try_from(PIECE).unwrap_or(usize::MAX);
        match self.chunks.back_mut() {
            Some(last)
                if last.stream == stream
                    && data.len() < SMALL
                    && last.bytes.len().saturating_add(data.len()) <= most =>
            {
                last.bytes.extend_from_slice(data);
            }
            _ => self.chunks.push_back(Chunk { stream, bytes: data.to_vec(), head: 0 }),
        }
    }

    /// What comes first: bytes of one stream, as many as lie together.
    pub fn front(&self) -> Option<(Stream, &[u8])> {
        let chunk = self.chunks.front()?;
        Some((chunk.stream, chunk.bytes.get(chunk.head..).unwrap_or_default()))
    }

    /// So many bytes of what comes first have left, at most those of [`Chunks::front`].
    pub fn consume(&mut self, count: usize) {
        let Some(chunk) = self.chunks.front_mut() else { return };
        let count = count.min(chunk.bytes.len().saturating_sub(chunk.head));
        chunk.head = chunk.head.saturating_add(count);
        self.len = self.len.saturating_sub(count);
        if chunk.head == chunk.bytes.len() {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_small_ones_lie_together() {
        let mut chunks = Chunks::default();
        let (mut came, mut left) = (Vec::new(), Vec::new());
        for round in 0..3000_usize {
            let part = vec![u8::try_from(round % 251).unwrap(); (round * 37) % 9000];
            came.extend_from_slice(&part);
            chunks.push(Stream::Data, &part);
            if let Some((stream, bytes)) = chunks.front() {
                assert_eq!(stream, Stream::Data);
                assert!(bytes.len() <= 32 * 1024);
                let some = bytes.len().min((round * 53) % 9500);
                left.extend_from_slice(&bytes[..some]);
                chunks.consume(some);
            }
            assert_eq!(chunks.len(), came.len() - left.len());
            let held: usize = chunks.chunks.iter().map(|it| it.bytes.capacity()).sum();
            assert!(held <= 2 * chunks.len() + 64 * 1024, "{held} for {}", chunks.len());
        }
        while let Some((_, bytes)) = chunks.front() {
            left.extend_from_slice(bytes);
            let all = bytes.len();
            chunks.consume(all);
        }
        assert!(came == left && chunks.is_empty() && chunks.chunks.capacity() == 0);
        for _ in 0..100_000 {
            chunks.push(Stream::Data, b"x");
        }
        assert_eq!(chunks.chunks.len(), 4, "100,000 bytes, 32 KiB each");
        chunks.push(Stream::Extended(1), b"y");
        assert_eq!(chunks.chunks.len(), 5, "another stream");
    }
}
