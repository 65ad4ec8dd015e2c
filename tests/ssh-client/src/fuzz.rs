//! What a hostile peer may send, from bytes that somebody makes up: libFuzzer in `ssh/fuzz`, or the
//! replay of its corpora in `tests/corpus.rs`. Nothing may panic, and what these functions assert must
//! hold whatever the input.

mod input;
mod plain;
mod sealed;
mod seeds;

pub use plain::{auth, channels};
pub use sealed::{Server, kexinit, packets, version};
pub use seeds::seeds;

/// A function that takes any input.
pub type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 5] = [
    ("version", version),
    ("packets", packets),
    ("kexinit", kexinit),
    ("auth", auth),
    ("channels", channels),
];
