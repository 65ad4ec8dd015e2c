//! The other side: the agent's, and the tests'.

use std::ops::Range;

use base64::Engine as _;

use super::frame::{self, BINARY, CLOSE, Code, PONG};
use super::mask;
use super::receiver::Receiver;
use crate::http::PROTOCOL;
use crate::layer::{Layer, Received};
use crate::{Fault, http};

/// Where masks and keys come from: bytes that nobody can guess (RFC 6455 section 10.3).
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// The layer of a client; it begins right behind the head of the server's answer.
pub struct Client {
    receiver: Receiver,
    random: Random,
    closed: bool,
}

impl Client {
    pub fn new(random: Random) -> Self {
        Self { receiver: Receiver::new(false), random, closed: false }
    }

    fn put(&mut self, opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
        let mut key = [0; 4];
        (self.random)(&mut key);
        out.extend_from_slice(frame::build(opcode, payload.len(), Some(key)).as_slice());
        let at = out.len();
        out.extend_from_slice(payload);
        mask::apply(out.get_mut(at..).unwrap_or_default(), key, 0);
    }

    fn say_close(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if !self.closed {
            self.closed = true;
            self.put(CLOSE, payload, out);
        }
    }
}

impl Layer for Client {
    fn receive(
        &mut self,
        buffer: &mut [u8],
        raw: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<Received, Fault> {
        let got = match self.receiver.receive(buffer, raw) {
            Ok(got) => got,
            Err(violation) => {
                self.receiver.close();
                let reason = violation.fault.to_string();
                self.say_close(&frame::close(violation.code as u16, &reason), out);
                return Err(violation.fault);
            }
        };
        if let Some(payload) = &got.closed {
            self.say_close(payload, out);
        } else if let Some(ping) = self.receiver.ping.take() {
            self.put(PONG, ping.as_slice(), out);
        }
        Ok(Received { plain: got.plain, ended: got.closed.is_some() })
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if !plain.is_empty() && !self.closed {
            self.receiver.earn(plain.len());
            self.put(BINARY, plain, out);
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.say_close(&frame::close(Code::Normal as u16, ""), out);
    }
}

/// A request for the relay's WebSocket, and what has to be answered.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub request: Vec<u8>,
    accept: String,
}

impl Handshake {
    /// `host`: of the URL, with its port unless that is the scheme's; `key`: 16 random bytes.
    pub fn new(host: &str, key: [u8; 16]) -> Self {
        let key = base64::engine::general_purpose::STANDARD.encode(key);
        let request = format!(
            "GET /tidegate HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: {PROTOCOL}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let accept = key.as_bytes().try_into().map(http::accept).unwrap_or_default();
        Self { request: request.into_bytes(), accept }
    }

    /// Where frames begin in what the server sent so far (RFC 6455 section 4.1); `None`: not yet.
    pub fn read(&self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut headers = [httparse::EMPTY_HEADER; http::HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let end = match answer.parse(bytes.get(..http::MOST).unwrap_or(bytes)) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if bytes.len() < http::MOST => return Ok(None),
            _ => return Err(Fault::new("what answers is no HTTP server")),
        };
        let has = |name: &str, value: &str, any_case: bool| {
            let mut all = answer.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name));
            let is = |it: &[u8]| {
                it == value.as_bytes() || any_case && it.eq_ignore_ascii_case(value.as_bytes())
            };
            all.next().is_some_and(|it| is(it.value.trim_ascii())) && all.next().is_none()
        };
        if answer.code != Some(101) {
            let code = answer.code.unwrap_or_default();
            let sentence = format!("the server refuses a WebSocket with HTTP status {code}");
            return Err(Fault::new(sentence));
        }
        let agreed = has("upgrade", "websocket", true)
            && has("connection", "upgrade", true)
            && has("sec-websocket-accept", &self.accept, false)
            && has("sec-websocket-protocol", PROTOCOL, false);
        if agreed {
            Ok(Some(end))
        } else {
            Err(Fault::new("what answers is not a relay's WebSocket"))
        }
    }
}
