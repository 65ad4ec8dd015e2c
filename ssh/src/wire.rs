//! The data types of RFC 4251 section 5: `Reader` over what a peer sent, `Writer` for what we send.

use crate::message::Fatal;

/// What was read is not what its message must be; which one it was, the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message ends early, goes on after its end or has an impossible value")]
pub struct Malformed;

impl From<Malformed> for Fatal {
    fn from(malformed: Malformed) -> Self {
        Self::protocol(malformed)
    }
}

/// Reads a message from front to back; never beyond its end, whatever lengths it claims.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow what was read.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// Every value but 0 is true, as RFC 4251 asks.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The bytes of a `string`.
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// A `string` that must be UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.string()?).map_err(|_| Malformed)
    }

    /// A `name-list` as it came: names apart by commas, US-ASCII, possibly empty.
    pub fn name_list(&mut self) -> Result<&'a str, Malformed> {
        let list = self.text()?;
        if list.is_ascii() { Ok(list) } else { Err(Malformed) }
    }

    /// The magnitude of an `mpint` that is not negative, without leading zeros; other forms of the
    /// same number, which RFC 4251 forbids, are malformed.
    pub fn mpint(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = self.string()?;
        match bytes {
            [0, second, ..] if *second >= 0x80 => bytes.get(1..).ok_or(Malformed),
            [0, ..] => Err(Malformed),
            [first, ..] if *first >= 0x80 => Err(Malformed),
            _ => Ok(bytes),
        }
    }
}

/// Appends to a buffer that it does not own. Lengths beyond `u32` cannot occur: what is written is
/// bounded by the size of a message, and is cut there (see [`Writer::string`]).
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.buffer.push(value);
        self
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A `string`; of more than `u32::MAX` bytes the first `u32::MAX`.
    pub fn string(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let kept = bytes.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(bytes);
        self.u32(length).bytes(kept)
    }

    /// A `string` whose content `build` writes.
    pub fn nested(&mut self, build: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        let at = self.buffer.len();
        self.u32(0);
        build(&mut Writer::new(self.buffer));
        let length = self.buffer.len().saturating_sub(at.saturating_add(4));
        if let Some(place) = self.buffer.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        }
        self
    }

    /// A `name-list`.
    pub fn name_list<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> &mut Self {
        self.nested(|w| {
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    w.u8(b',');
                }
                w.bytes(name.as_bytes());
            }
        })
    }

    /// An `mpint` that is not negative, from its magnitude in big endian, leading zeros or not.
    pub fn mpint(&mut self, magnitude: &[u8]) -> &mut Self {
        let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
        let digits = magnitude.get(zeros..).unwrap_or_default();
        let high = digits.first().is_some_and(|first| *first >= 0x80);
        self.nested(|w| {
            if high {
                w.u8(0);
            }
            w.bytes(digits);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        build(&mut Writer::new(&mut buffer));
        buffer
    }

    /// The examples of RFC 4251 section 5.
    #[test]
    fn examples_of_the_rfc() {
        let mpint = |magnitude: &[u8]| {
            written(|w| {
                w.mpint(magnitude);
            })
        };
        let cases: [(&[u8], &[u8]); 3] = [
            (&[], &[0, 0, 0, 0]),
            (
                &[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
                &[0, 0, 0, 8, 0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
            ),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
        ];
        for (magnitude, encoded) in cases {
            assert_eq!(mpint(magnitude), encoded);
            assert_eq!(mpint(&[&[0, 0], magnitude].concat()), encoded);
            assert_eq!(Reader::new(encoded).mpint(), Ok(magnitude));
        }
        let list = |names: &[&'static str]| {
            written(|w| {
                w.name_list(names.iter().copied());
            })
        };
        assert_eq!(list(&[]), [0, 0, 0, 0]);
        assert_eq!(list(&["zlib"]), b"\0\0\0\x04zlib");
        assert_eq!(list(&["zlib", "none"]), b"\0\0\0\x09zlib,none");
        let number = written(|w| {
            w.u32(699_921_578).string("testing").bool(true).u64(1);
        });
        assert_eq!(number[..15], *b"\x29\xb7\xf4\xaa\0\0\0\x07testing");
        let mut r = Reader::new(&number);
        assert_eq!(
            (r.u32(), r.text(), r.bool(), r.u64()),
            (Ok(699_921_578), Ok("testing"), Ok(true), Ok(1))
        );
        r.end().unwrap();
    }

    #[test]
    fn what_is_malformed() {
        for mpint in [&[0, 0, 0, 1, 0x80][..], &[0, 0, 0, 1, 0], &[0, 0, 0, 2, 0, 0x7f]] {
            assert_eq!(Reader::new(mpint).mpint(), Err(Malformed));
        }
        for string in [&[][..], &[0, 0, 0], &[0, 0, 0, 1], &[0xff, 0xff, 0xff, 0xff, 1]] {
            let mut r = Reader::new(string);
            assert_eq!(r.string(), Err(Malformed));
        }
        assert_eq!(Reader::new(b"\0\0\0\x02\xc3\xa4").name_list(), Err(Malformed));
        assert_eq!(Reader::new(b"\0\0\0\x02\xc3\xa4").text(), Ok("\u{e4}"));
        assert_eq!(Reader::new(b"\0\0\0\x01\xff").text(), Err(Malformed));
        assert_eq!(Reader::new(&[1]).end(), Err(Malformed));
    }
}
