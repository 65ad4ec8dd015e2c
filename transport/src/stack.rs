//! The layers of one connection, from its socket up to SSH: none, TLS, a WebSocket, or a WebSocket
//! in TLS; and what waits to be written.

use std::ops::Range;

use crate::Fault;
use crate::layer::{Layer, Received};
use crate::output::Output;
use crate::tls::Tls;
use crate::websocket;

/// Bytes that may wait for the socket while more are taken to be sent.
pub const FULL: usize = 64 * 1024;
/// What goes into one frame: with its head it fills a TLS record.
const FRAME: usize = (1 << 14) - 4;

/// What a connection speaks below SSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Plain,
    Tls,
    WebSocket,
    WebSocketInTls,
}

impl Transport {
    /// Its name in decisions, the audit and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "SSH",
            Self::Tls => "TLS",
            Self::WebSocket => "WebSocket",
            Self::WebSocketInTls => "WebSocketTLS",
        }
    }
}

/// The layers, outermost first.
#[derive(Debug, Default)]
pub struct Stack {
    pub(crate) tls: Option<Box<Tls>>,
    pub(crate) websocket: Option<Box<websocket::Server>>,
    output: Output,
    /// Nothing more is sent: a goodbye was.
    closed: bool,
}

impl Stack {
    pub fn transport(&self) -> Transport {
        match (&self.tls, &self.websocket) {
            (None, None) => Transport::Plain,
            (Some(_), None) => Transport::Tls,
            (None, Some(_)) => Transport::WebSocket,
            (Some(_), Some(_)) => Transport::WebSocketInTls,
        }
    }

    /// Takes all of `buffer[raw]`, in front of which there are [`crate::layer::HEADROOM`] bytes, and puts
    /// what SSH is to read to the front. After a fault nothing more is to be read; what
    /// [`Stack::output`] has then is the peer's explanation.
    pub fn receive(&mut self, buffer: &mut [u8], raw: Range<usize>) -> Result<Received, Fault> {
        let mut got = Received { plain: raw.len(), ended: false };
        if let Some(tls) = &mut self.tls {
            got = tls.receive(buffer, raw.clone(), self.output.tail())?;
        } else if self.websocket.is_none() {
            if raw.end <= buffer.len() && raw.start <= raw.end {
                buffer.copy_within(raw, 0);
            }
            return Ok(got);
        }
        let Some(websocket) = &mut self.websocket else { return Ok(got) };
        let Some(tls) = &mut self.tls else {
            return websocket.receive(buffer, raw, self.output.tail());
        };
        let mut out = Vec::new();
        let inner = websocket.receive(buffer, 0..got.plain, &mut out);
        // One that reads nothing gets no more pongs.
        let pong = inner.as_ref().is_ok_and(|inner| !inner.ended);
        let dropped = pong && self.output.len() > FULL;
        if !out.is_empty() && !self.closed && !dropped {
            tls.send(&out, self.output.tail())?;
        }
        let inner = inner?;
        Ok(Received { plain: inner.plain, ended: got.ended || inner.ended })
    }

    /// Puts a WebSocket on top, for which `bytes`, plaintext of the layer below, came already; they become
    /// what it makes of them.
    pub(crate) fn upgrade(&mut self, bytes: &mut Vec<u8>) -> Result<Received, Fault> {
        let mut websocket = Box::<websocket::Server>::default();
        let mut out = Vec::new();
        let raw = 0..bytes.len();
        let got = websocket.receive(bytes, raw, &mut out);
        self.put(&out)?;
        self.websocket = Some(websocket);
        let got = got?;
        bytes.truncate(got.plain);
        Ok(got)
    }

    /// Takes of `plain` as much as may wait, for [`Stack::output`]. 0: the output is full, or closed.
    pub fn send(&mut self, plain: &[u8]) -> Result<usize, Fault> {
        let mut sent = 0_usize;
        for part in plain.chunks(FRAME) {
            if self.output.len() >= FULL || self.closed {
                break;
            }
            self.put(part)?;
            sent = sent.saturating_add(part.len());
        }
        Ok(sent)
    }

    fn put(&mut self, part: &[u8]) -> Result<(), Fault> {
        match (&mut self.tls, &mut self.websocket) {
            (None, None) => {
                self.output.tail().extend_from_slice(part);
                Ok(())
            }
            (Some(tls), None) => tls.send(part, self.output.tail()),
            (None, Some(websocket)) => websocket.send(part, self.output.tail()),
            (Some(tls), Some(websocket)) => {
                let mut frame = Vec::with_capacity(part.len().saturating_add(4));
                websocket.send(part, &mut frame)?;
                tls.send(&frame, self.output.tail())
            }
        }
    }

    /// Says goodbye in each layer's way, once; nothing is sent any more then.
    pub fn close(&mut self) {
        self.close_with(None);
    }

    /// The same, and tells a WebSocket's client why.
    pub(crate) fn close_with(&mut self, why: Option<&Fault>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut last = Vec::new();
        if let Some(websocket) = &mut self.websocket {
            match why {
                Some(why) => websocket.refuse(&why.to_string(), &mut last),
                None => websocket.close(&mut last),
            }
        }
        match &mut self.tls {
            Some(tls) => {
                // Where TLS has failed nobody is there to read it.
                let _ = tls.send(&last, self.output.tail());
                tls.close(self.output.tail());
            }
            None => self.output.tail().extend_from_slice(&last),
        }
    }

    /// Bytes for the socket. The caller consumes what it has written.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Whether no byte is changed on its way, so that SSH may use the socket itself.
    pub fn is_plain(&self) -> bool {
        self.transport() == Transport::Plain && self.output.is_empty()
    }
}
