//! The lines that both sides begin with (RFC 4253 section 4.2).

use crate::message::{DisconnectCode, Fatal};

/// Ours, without its CR LF. No '-' in the software part, and not OpenSSH's name, by which peers would
/// assume its faults.
pub const OURS: &str = "SSH-2.0-Tidegate";

/// The most bytes that a line has, its CR LF counted.
const MOST: usize = 255;

/// What every version line begins with.
const PROTOCOL: &[u8] = b"SSH-";

/// What the first bytes of a client make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// No whole line yet; at least so many bytes are needed.
    Incomplete { need: usize },
    /// A line of `length` bytes, its end left out; what follows begins at `next`.
    Whole { length: usize, next: usize },
}

/// Reads a client's version line. A bare LF ends it too (section 5.1 allows for that), and 1.99 is the
/// name of a 2.0 that also speaks older ones (section 5.1). Lines before it are a server's privilege,
/// and older protocols are refused (code 8).
pub(crate) fn read(bytes: &[u8]) -> Result<Line, Fatal> {
    let seen = bytes.get(..MOST).unwrap_or(bytes);
    let end = seen.iter().position(|byte| *byte == b'\n');
    let line = seen.get(..end.unwrap_or(seen.len())).unwrap_or_default();
    // Refused at the first byte that cannot belong to it, not when the line ends some day.
    let begun = line.iter().zip(PROTOCOL).all(|(byte, wanted)| byte == wanted);
    if !begun || (end.is_some() && line.len() < PROTOCOL.len()) {
        return Err(Fatal::protocol(
            "the first line is not an SSH version; connect with an SSH client",
        ));
    }
    let Some(end) = end else {
        if seen.len() == MOST {
            return Err(Fatal::protocol("the version line is longer than 255 bytes"));
        }
        return Ok(Line::Incomplete { need: bytes.len().saturating_add(1) });
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Fatal::protocol("the version line has bytes that are not printable ASCII"));
    }
    let software = line.strip_prefix(b"SSH-2.0-").or_else(|| line.strip_prefix(b"SSH-1.99-"));
    match software {
        Some([]) => Err(Fatal::protocol("the version line names no software")),
        Some(_) => Ok(Line::Whole { length: line.len(), next: end.saturating_add(1) }),
        None => Err(Fatal::new(
            DisconnectCode::VersionNotSupported,
            "this protocol version of SSH is not supported; use a client that speaks SSH 2.0",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> (usize, usize) {
        match read(bytes) {
            Ok(Line::Whole { length, next }) => (length, next),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_what_clients_send() {
        assert_eq!(whole(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\nrest"), (30, 32));
        assert_eq!(whole(b"SSH-2.0-PuTTY_Release_0.78\n"), (26, 27));
        assert_eq!(whole(b"SSH-1.99-x\r\n"), (10, 12));
        let mut longest = b"SSH-2.0-".to_vec();
        longest.resize(253, b'x');
        longest.extend_from_slice(b"\r\n");
        assert_eq!(whole(&longest), (253, 255));
        longest.truncate(253);
        longest.extend_from_slice(b"x\n");
        assert_eq!(whole(&longest), (254, 255));
    }

    #[test]
    fn waits_for_the_end() {
        for end in 0..16 {
            assert_eq!(read(&b"SSH-2.0-Tidegate"[..end]), Ok(Line::Incomplete { need: end + 1 }));
        }
    }

    #[test]
    fn refuses_other_lines() {
        let mut long = b"SSH-2.0-".to_vec();
        long.resize(254, b'x');
        assert!(matches!(read(&long), Ok(Line::Incomplete { need: 255 })));
        long.push(b'x');
        for line in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"\nSSH-2.0-x\r\n",
            b"SSH\n",
            b"SSH-2.0-\r\n",
            b"SSH-2.0-a\0b\r\n",
            b"SSH-2.0-a\rb\r\n",
            b"SSH-2.0-\xff\r\n",
            &long,
        ] {
            assert_eq!(read(line).unwrap_err().code, DisconnectCode::Protocol, "{line:?}");
        }
        for line in [&b"SSH-1.5-old\r\n"[..], b"SSH-2.1-new\r\n", b"SSH-2.0\r\n", b"SSH-\n"] {
            let fatal = read(line).unwrap_err();
            assert_eq!(fatal.code, DisconnectCode::VersionNotSupported, "{line:?}");
        }
    }
}
