//! Reads over JSON of any size in little memory, for the few strings that are wanted of it. Pure.
//!
//! An object that is too large to be taken over is still to be named: else one tenant's object would
//! stop the list or watch that all others stand in.

use std::collections::BTreeMap;

/// Levels whose keys are remembered; what is wanted lies no deeper.
const DEPTH: usize = 5;
/// The longest string that is kept. Names have 253 bytes; a continue token has two of them, in base64.
const LONGEST: usize = 4096;

/// One JSON text that is being read over. It is not checked to be JSON: what is none yields nothing.
#[derive(Debug)]
pub struct Skim {
    wanted: &'static [Path],
    found: BTreeMap<Path, String>,
    levels: Vec<Level>,
    /// Levels that are open beyond [`DEPTH`].
    deeper: usize,
    /// The string that is being read, or was read last: a key or a value, as what follows tells.
    text: Vec<u8>,
    at: At,
    begun: bool,
    /// Something that is wanted was there twice.
    twice: bool,
}

/// Keys from the outside in. An array's elements are where the array is.
pub type Path = &'static [&'static str];

#[derive(Debug)]
enum Level {
    /// With the key whose value comes.
    Object(Vec<u8>),
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Between strings; `true`: `text` is one that ended just now.
    Between(bool),
    Text,
    /// After a backslash.
    Escape,
}

impl Skim {
    pub fn new(wanted: &'static [Path]) -> Self {
        Self {
            wanted,
            found: BTreeMap::new(),
            levels: Vec::new(),
            deeper: 0,
            text: Vec::new(),
            at: At::Between(false),
            begun: false,
            twice: false,
        }
    }

    /// Goes on with the bytes that come next.
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.at = match (self.at, *byte) {
                (At::Text, b'"') => At::Between(true),
                (At::Text, byte) => {
                    self.keep(byte);
                    if byte == b'\\' { At::Escape } else { At::Text }
                }
                (At::Escape, byte) => {
                    self.keep(byte);
                    At::Text
                }
                (At::Between(_), b'"') => {
                    self.text.clear();
                    At::Text
                }
                (At::Between(ended), byte) => At::Between(self.between(ended, byte)),
            };
        }
    }

    fn keep(&mut self, byte: u8) {
        // One byte more than is taken: so it is known that it was longer.
        if self.deeper == 0 && self.text.len() <= LONGEST {
            self.text.push(byte);
        }
    }

    /// Takes what stands between strings; whether `text` is still one that ended just now.
    fn between(&mut self, ended: bool, byte: u8) -> bool {
        match byte {
            b'{' => self.open(Level::Object(Vec::new())),
            b'[' => self.open(Level::Array),
            b':' => {
                if self.deeper == 0
                    && let Some(Level::Object(key)) = self.levels.last_mut()
                {
                    *key = std::mem::take(&mut self.text);
                }
            }
            b',' => self.value(ended),
            b'}' | b']' => {
                self.value(ended);
                if self.deeper > 0 {
                    self.deeper = self.deeper.saturating_sub(1);
                } else {
                    self.levels.pop();
                }
            }
            _ => return ended,
        }
        false
    }

    fn open(&mut self, level: Level) {
        self.begun = true;
        if self.deeper > 0 || self.levels.len() == DEPTH {
            self.deeper = self.deeper.saturating_add(1);
        } else {
            self.levels.push(level);
        }
    }

    /// A value has ended; `text`: it is the string.
    fn value(&mut self, text: bool) {
        if !text || self.deeper > 0 || self.text.len() > LONGEST {
            return;
        }
        let mut keys = Vec::new();
        for level in &self.levels {
            if let Level::Object(key) = level {
                keys.push(key.as_slice());
            }
        }
        let is = |path: &&Path| path.iter().map(|key| key.as_bytes()).eq(keys.iter().copied());
        let Some(path) = self.wanted.iter().find(is) else { return };
        let quoted = [b"\"", self.text.as_slice(), b"\""].concat();
        if let Ok(text) = serde_json::from_slice(&quoted) {
            self.twice |= self.found.insert(path, text).is_some();
        }
    }

    /// What was found; `None`: the text has not come to its end, or has something twice, such as two
    /// objects, of which one would be lost.
    pub fn end(self) -> Option<BTreeMap<Path, String>> {
        let whole = self.begun && !self.twice && self.levels.is_empty() && self.deeper == 0;
        whole.then_some(self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NAME: Path = &["object", "metadata", "name"];
    const KIND: Path = &["type"];

    #[test]
    fn it_finds_what_is_wanted_whatever_stands_around_it() {
        let text = json!({
            "type": "ADDED",
            "object": {
                "annotations": {"name": "no", "type": "}]\\\"", "deep": [[[[{"name": "no"}]]]]},
                "metadata": {
                    "a\"b": [1, {"name": "no"}],
                    "labels": {"metadata": {"name": "no"}, "name": "no"},
                    "name": "ber\u{e4}lin", "x": "y".repeat(LONGEST * 3),
                },
                "name": "no",
            },
            "metadata": {"name": "no"},
        })
        .to_string();
        for size in [1, 2, 7, text.len()] {
            let mut skim = Skim::new(&[NAME, KIND]);
            for (fed, part) in text.as_bytes().chunks(size).enumerate() {
                assert!(fed == 0 || skim.levels.len() + skim.deeper > 0, "it ended early");
                skim.feed(part);
            }
            let found = skim.end().unwrap();
            assert_eq!(found.get(NAME).map(String::as_str), Some("ber\u{e4}lin"));
            assert_eq!(found.get(KIND).map(String::as_str), Some("ADDED"));
        }
        let mut skim = Skim::new(&[NAME]);
        skim.feed(&text.as_bytes()[..text.len() - 1]);
        assert!(skim.end().is_none(), "cut off");
    }

    #[test]
    fn it_keeps_little_and_takes_no_string_that_is_too_long() {
        let mut skim = Skim::new(&[NAME, KIND]);
        skim.feed(b"{\"type\":\"");
        for _ in 0..100 {
            skim.feed(&[b'x'; LONGEST]);
        }
        skim.feed(b"\",\"deep\":");
        skim.feed(&vec![b'['; 1 << 16]);
        assert!(skim.text.capacity() <= 4 * LONGEST && skim.levels.len() <= DEPTH);
        skim.feed(&vec![b']'; 1 << 16]);
        skim.feed(b"}");
        assert_eq!(skim.end().unwrap(), BTreeMap::new());
        let mut skim = Skim::new(&[NAME]);
        skim.feed(br#"{"object":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#);
        assert_eq!(skim.end(), None, "one of two");
    }
}
