//! What each request is answered with: one function.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;

use super::page;
use super::request::{Method, Refusal, Request};
use crate::Fault;

/// The subprotocol of SSH in a WebSocket.
pub const PROTOCOL: &str = "ssh.tidegate.dev";
/// Where the WebSocket is.
const WEBSOCKET: &str = "/tidegate";
/// Where the signed list of relays will be.
const RELAYS: &str = "/.well-known/tidegate";
/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is sent, and what comes then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub bytes: Vec<u8>,
    /// `Ok`: frames follow. `Err`: the connection is to be closed, and why.
    pub then: Result<(), Fault>,
}

/// Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2).
pub fn accept(key: &[u8; 24]) -> String {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Answers a request.
pub fn answer(request: &Result<Request, Refusal>) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(Refusal::Malformed(fault)) => {
            return line("400 Bad Request", "", fault.to_string(), true);
        }
        Err(Refusal::TooLarge) => {
            let text = "the HTTP head has more than 8192 bytes or 64 headers";
            return line("431 Request Header Fields Too Large", "", text.into(), true);
        }
        Err(Refusal::Http2) => return http2(),
    };
    let body = request.method != Method::Head;
    let line = |status, more, text: &str| line(status, more, text.into(), body);
    if request.path == WEBSOCKET || request.upgrade.is_some() {
        return upgrade(request, &line);
    }
    if request.method == Method::Other {
        let text = "the relay answers GET and HEAD alone";
        return line("405 Method Not Allowed", "Allow: GET, HEAD\r\n", text);
    }
    match request.path.as_str() {
        "/" => page("200 OK", body, "an HTTP client asked for the page that says what this is"),
        RELAYS => line(
            "404 Not Found",
            "",
            "this relay has no signed list of relays yet; connect by the relays' domain name",
        ),
        _ => page("404 Not Found", body, "an HTTP client asked for a page that does not exist"),
    }
}

/// A request for a WebSocket, or for something that could be meant to be one (RFC 6455 section 4.2.1).
fn upgrade(request: &Request, line: &dyn Fn(&'static str, &'static str, &str) -> Answer) -> Answer {
    const WANTED: &str = "Upgrade: websocket\r\n";
    let bad = |text| line("400 Bad Request", "", text);
    if request.path != WEBSOCKET {
        let text = "the relay's WebSocket is at /tidegate, and it upgrades to nothing else";
        return bad(text);
    }
    if request.origin {
        return line(
            "403 Forbidden",
            "",
            "the request has an Origin header: pages in a browser may not connect to a relay",
        );
    }
    match request.upgrade {
        Some(true) => {}
        Some(false) => {
            return line("426 Upgrade Required", WANTED, "the relay upgrades to a WebSocket alone");
        }
        None => {
            return line(
                "426 Upgrade Required",
                WANTED,
                "this is a WebSocket with SSH in it; connect with: websocat --binary --protocol \
                 ssh.tidegate.dev ws://RELAY/tidegate",
            );
        }
    }
    if request.method != Method::Get || !request.is_1_1 {
        return bad("a WebSocket begins with GET and HTTP/1.1");
    }
    if !request.connection_upgrade {
        return bad("a request for a WebSocket has to have the header Connection: Upgrade");
    }
    if request.version_13 != Some(true) {
        return line(
            "426 Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "the relay speaks version 13 of WebSocket alone",
        );
    }
    let Some(key) = request.key else {
        return bad("the Sec-WebSocket-Key is missing, or is not 16 bytes in Base64");
    };
    match request.protocol {
        Some(true) => {}
        Some(false) => {
            return bad("the only subprotocol of the relay's WebSocket is ssh.tidegate.dev");
        }
        None => {
            return bad(
                "the request offers no subprotocol; ask for ssh.tidegate.dev (websocat: --binary \
                 --protocol ssh.tidegate.dev)",
            );
        }
    }
    let accept = accept(&key);
    let text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    );
    Answer { bytes: text.into_bytes(), then: Ok(()) }
}

/// One line of text. `more`: headers, each with its CR LF. HEAD has no `body`.
fn line(status: &'static str, more: &'static str, text: String, body: bool) -> Answer {
    let sent = format!("{text}\n");
    Answer {
        bytes: respond(status, more, "text/plain; charset=utf-8", &sent, body),
        then: Err(Fault::new(text)),
    }
}

fn page(status: &'static str, body: bool, why: &'static str) -> Answer {
    let bytes = respond(status, "", "text/html; charset=utf-8", page::HTML, body);
    Answer { bytes, then: Err(Fault::new(why)) }
}

fn respond(status: &str, more: &str, kind: &str, content: &str, body: bool) -> Vec<u8> {
    let length = content.len();
    let content = if body { content } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\
         Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'\r\n\r\n{content}"
    )
    .into_bytes()
}

/// In HTTP/2's own words: SETTINGS, which has to come first, and GOAWAY with HTTP_1_1_REQUIRED and the
/// line as its debug data (RFC 9113 sections 6.5, 6.8 and 7).
fn http2() -> Answer {
    const TEXT: &str = "this is a Tidegate relay; of HTTP it speaks version 1.1 alone";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = u8::try_from(TEXT.len().saturating_add(8)).unwrap_or_default();
    let goaway = [0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13];
    let bytes = [&settings[..], &goaway, TEXT.as_bytes()].concat();
    Answer { bytes, then: Err(Fault::new("the peer speaks HTTP/2, the relay HTTP/1.1 alone")) }
}
