//! One request head, read so that there is one way to read it.

use crate::Fault;

/// The most bytes of a head, its last empty line counted.
pub const MOST: usize = 8 * 1024;
/// The most headers.
pub const HEADERS: usize = 64;

const END: &[u8] = b"\r\n\r\n";
/// How a client of HTTP/2 begins (RFC 9113 section 3.4), as far as its first empty line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// No whole head yet.
    NeedMore,
    /// The first `consumed` bytes are a request.
    Whole {
        request: Request,
        consumed: usize,
    },
    Refused(Refusal),
}

/// Why a head is not answered as the request that it may have been meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Status 400: malformed, or open to more than one reading.
    Malformed(Fault),
    /// Status 431: more bytes or headers than are read.
    TooLarge,
    /// It speaks HTTP/2.
    Http2,
}

fn malformed(sentence: &'static str) -> Refusal {
    Refusal::Malformed(Fault::new(sentence))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Other,
}

/// What of a request an answer can depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Without what follows a `?`.
    pub path: String,
    /// HTTP/1.1, not 1.0.
    pub is_1_1: bool,
    /// There is a `Connection` header that names `upgrade`.
    pub connection_upgrade: bool,
    /// There is an `Upgrade` header, and it names `websocket` and nothing else.
    pub upgrade: Option<bool>,
    /// There is an `Origin` header: a browser sent it for a page of somebody's.
    pub origin: bool,
    /// `Sec-WebSocket-Version`.
    pub version_13: Option<bool>,
    /// `Sec-WebSocket-Key` where it is one: 16 bytes in Base64.
    pub key: Option<[u8; 24]>,
    /// Our subprotocol is among those that are offered; `None`: none is offered.
    pub protocol: Option<bool>,
}

/// Reads one head as it comes. Each byte is looked at once until the head is whole, however many pieces
/// it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Bytes that were looked at.
    at: usize,
    /// The last of them.
    last: u8,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: 0, last: b'\n' }
    }
}

impl Scan {
    /// Reads the head that `bytes`, all that came so far, begin with: those of the call before, and
    /// what follows them. The same bytes give the same answer however they were split.
    pub fn read(&mut self, bytes: &[u8]) -> Head {
        let seen = bytes.get(..MOST).unwrap_or(bytes);
        match self.end(seen) {
            Err(refusal) => Head::Refused(refusal),
            Ok(false) if seen.len() == MOST => Head::Refused(Refusal::TooLarge),
            Ok(false) => Head::NeedMore,
            Ok(true) => whole(seen.get(..self.at).unwrap_or_default()),
        }
    }

    /// Goes on to the end of the head; whether it is there. Lines end with CR LF and nothing else does;
    /// no line begins with a space. The parser below would take the first for ends, too.
    fn end(&mut self, seen: &[u8]) -> Result<bool, Refusal> {
        for byte in seen.get(self.at..).unwrap_or_default() {
            match (self.last, *byte) {
                (b'\r', b'\n') => {}
                (b'\r', _) | (_, b'\n') => {
                    return Err(malformed("a line of the HTTP head ends with a bare CR or LF"));
                }
                (b'\n', b' ' | b'\t') => {
                    let sentence = "a line of the HTTP head is folded, or begins with a space";
                    return Err(malformed(sentence));
                }
                (_, 0) => return Err(malformed("the HTTP head has a NUL byte")),
                _ => {}
            }
            self.at = self.at.saturating_add(1);
            self.last = *byte;
            if *byte == b'\n' && seen.get(..self.at).is_some_and(|head| head.ends_with(END)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads a head that came at once, or its beginning.
#[cfg(test)]
pub fn read(bytes: &[u8]) -> Head {
    Scan::default().read(bytes)
}

fn whole(head: &[u8]) -> Head {
    if head == PREFACE {
        return Head::Refused(Refusal::Http2);
    }
    match parse(head) {
        Ok(request) => Head::Whole { request, consumed: head.len() },
        Err(refusal) => Head::Refused(refusal),
    }
}

fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(consumed)) if consumed == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(httparse::Error::HeaderName) => {
            return Err(malformed("the HTTP head has a header whose name is malformed"));
        }
        Err(httparse::Error::HeaderValue) => {
            return Err(malformed("the HTTP head has a header whose value is malformed"));
        }
        _ => return Err(malformed("the HTTP request line is malformed")),
    }
    let target = parsed.path.unwrap_or_default();
    let method = match parsed.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "CONNECT" => {
            return Err(malformed("the relay is no HTTP proxy: it takes no CONNECT"));
        }
        _ => Method::Other,
    };
    if !target.starts_with('/') || !target.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Err(malformed("the HTTP request names no path: the relay is no HTTP proxy"));
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let is_1_1 = parsed.version == Some(1);
    let fields = Fields(parsed.headers);
    let length = fields.one("content-length")?;
    let coding = fields.one("transfer-encoding")?;
    if length.is_some_and(|it| it.is_empty() || !it.iter().all(u8::is_ascii_digit)) {
        return Err(malformed("the Content-Length of the HTTP request is not a number"));
    }
    if length.is_some() && coding.is_some() {
        return Err(malformed(
            "the HTTP request has both a Content-Length and a Transfer-Encoding",
        ));
    }
    let empty = length.is_none_or(|it| it.iter().all(|digit| *digit == b'0'));
    if method != Method::Other && (coding.is_some() || !empty) {
        return Err(malformed("the HTTP request has a body, which GET and HEAD have not"));
    }
    match fields.one("host")? {
        Some(host) if is_host(host) => {}
        Some(_) => return Err(malformed("the Host of the HTTP request is malformed")),
        None if is_1_1 => return Err(malformed("the HTTP request names no Host")),
        None => {}
    }
    let upgrade = fields.one("upgrade")?;
    Ok(Request {
        method,
        path,
        is_1_1,
        connection_upgrade: fields.list("connection").any(|it| is(it, "upgrade")),
        upgrade: upgrade.map(|it| is(it, "websocket")),
        origin: fields.one("origin")?.is_some(),
        version_13: fields.one("sec-websocket-version")?.map(|it| it == b"13"),
        key: fields.one("sec-websocket-key")?.and_then(key),
        protocol: fields.any("sec-websocket-protocol").then(|| {
            fields.list("sec-websocket-protocol").any(|it| it == super::PROTOCOL.as_bytes())
        }),
    })
}

fn is(value: &[u8], name: &str) -> bool {
    value.eq_ignore_ascii_case(name.as_bytes())
}

/// A name or an address, and a port (RFC 9112 section 3.2): as far as not to be anything else.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte))
}

/// The key, where it is 16 bytes in canonical Base64.
fn key(value: &[u8]) -> Option<[u8; 24]> {
    use base64::Engine as _;
    let text: [u8; 24] = value.try_into().ok()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (bytes.len() == 16).then_some(text)
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = self.0;
        fields.iter().filter(move |it| it.name.eq_ignore_ascii_case(name)).map(|it| it.value)
    }

    fn any(&self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    /// The header that may be there once.
    fn one(&self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => {
                Err(malformed("the HTTP head has two of a header that may be there only once"))
            }
            (value, None) => Ok(value.map(<[u8]>::trim_ascii)),
        }
    }

    /// The items of a list (RFC 9110 section 5.6.1), over all its headers.
    fn list(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }
}
