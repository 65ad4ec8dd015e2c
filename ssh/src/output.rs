//! Bytes for the peer, sealed, in the order of the wire.

/// What is to be written to the socket. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// What is written already.
    head: usize,
    /// How much there lately was before it was empty again: what is made room for at once.
    usual: usize,
    /// Bytes that were ever written.
    gone: u64,
}

impl Output {
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.head)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` bytes were written.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len());
        self.gone = self.gone.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.head = self.head.saturating_add(count);
        if self.head == self.bytes.len() {
            let usual = self.bytes.len().max(self.usual / 2);
            *self = Self { usual, gone: self.gone, ..Self::default() };
        }
    }

    /// How many bytes were written since the connection began.
    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }

    /// What [`Output::gone`] will be when the last byte that is here now is written.
    pub(crate) fn end(&self) -> u64 {
        self.gone.saturating_add(u64::try_from(self.len()).unwrap_or(u64::MAX))
    }

    /// Bytes that are sealed already, behind all others: the rest of a frame of
    /// [`crate::transport::Transport::seal_frame`] that the socket did not take.
    pub fn append(&mut self, sealed: &[u8]) {
        self.make_room();
        self.bytes.extend_from_slice(sealed);
    }

    /// For a frame that is built and sealed at its end.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        self.make_room();
        &mut self.bytes
    }

    /// Saves a full output from growing step by step each time, and moves what is left to the front once most of the memory is of bytes that are gone.
    fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.usual);
        }
        if self.head > 4096 && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_memory_goes_with_them() {
        let mut output = Output::default();
        let mut read = Vec::new();
        let mut written = Vec::new();
        for round in 0..2000_usize {
            let part = vec![u8::try_from(round % 251).unwrap(); round % 97];
            output.append(&part);
            written.extend(part);
            let some = output.len().min(round % 103);
            read.extend_from_slice(&output.as_slice()[..some]);
            output.consume(some);
            assert!(
                output.bytes.len() <= 2 * output.len() + 4096 + 97,
                "nothing of the past is kept"
            );
        }
        read.extend_from_slice(output.as_slice());
        output.consume(usize::MAX);
        assert_eq!(read, written);
        assert_eq!((output.len(), output.bytes.capacity()), (0, 0));
    }
}
