//! Made-up bytes as numbers and messages. An input that ends early goes on with nothing.

use tidegate_ssh::Fatal;
use tidegate_ssh::message::printable;

#[derive(Clone, Copy)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn flip(&mut self) -> bool {
        self.byte().is_multiple_of(2)
    }

    pub fn word(&mut self) -> u32 {
        self.take(4).iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Two bytes of length, and as much as there is of that.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.take(length)
    }
}

/// What a peer is told in the end is a sentence that any log can hold.
pub fn check(fatal: &Fatal) {
    assert!(!fatal.text.is_empty());
    assert_eq!(printable(&fatal.text, Fatal::TEXT), fatal.text);
    // The relay blames itself for nothing that a peer can bring about.
    for ours in ["the relay read on", "the relay could not", "a message of the relay"] {
        assert!(!fatal.text.starts_with(ours), "{fatal}");
    }
}
