//! Bytes for the peer, as they go on the wire.

/// What is to be written to the socket. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// What is written already.
    head: usize,
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
        self.head = self.head.saturating_add(count).min(self.bytes.len());
        if self.head == self.bytes.len() {
            *self = Self::default();
        }
    }

    /// For what is put behind all others.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_memory_goes_with_them() {
        let mut output = Output::default();
        let (mut written, mut read) = (Vec::new(), Vec::new());
        for round in 0..1000_usize {
            let part = vec![u8::try_from(round % 251).unwrap(); round % 97];
            output.tail().extend_from_slice(&part);
            written.extend(part);
            assert!(output.bytes.len() <= 2 * output.len() + 97, "nothing of the past is kept");
            let some = output.len().min(round % 103);
            read.extend_from_slice(&output.as_slice()[..some]);
            output.consume(some);
        }
        read.extend_from_slice(output.as_slice());
        output.consume(usize::MAX);
        assert_eq!(read, written);
        assert_eq!((output.len(), output.bytes.capacity()), (0, 0));
    }
}
