//! The relay's side.

use std::ops::Range;

use super::frame::{self, BINARY, CLOSE, Code, PONG};
use super::receiver::{Got, Receiver};
use crate::Fault;
use crate::layer::{Layer, Received};

/// The most bytes that wait before pongs, too, wait.
const FULL: usize = 64 * 1024;

/// The layer of a server; it begins right behind the head of the client's request.
#[derive(Debug)]
pub struct Server {
    receiver: Receiver,
    /// Our close frame is sent.
    closed: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self { receiver: Receiver::new(true), closed: false }
    }
}

fn put(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(frame::build(opcode, payload.len(), None).as_slice());
    out.extend_from_slice(payload);
}

impl Server {
    /// Closes, since what is inside is nothing that is served.
    pub(crate) fn refuse(&mut self, reason: &str, out: &mut Vec<u8>) {
        self.close_with(Code::Policy, reason, out);
    }

    /// Says why the connection ends; the second time nothing.
    fn close_with(&mut self, code: Code, reason: &str, out: &mut Vec<u8>) {
        self.say_close(&frame::close(code as u16, reason), out);
    }

    fn say_close(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if !self.closed {
            self.closed = true;
            put(CLOSE, payload, out);
        }
    }
}

impl Layer for Server {
    fn receive(
        &mut self,
        buffer: &mut [u8],
        raw: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<Received, Fault> {
        match self.receiver.receive(buffer, raw) {
            Ok(Got { plain, closed }) => {
                if let Some(payload) = &closed {
                    self.say_close(payload, out);
                } else if out.len() <= FULL
                    && !self.closed
                    && let Some(ping) = self.receiver.ping.take()
                {
                    put(PONG, ping.as_slice(), out);
                }
                Ok(Received { plain, ended: closed.is_some() })
            }
            Err(violation) => {
                self.receiver.close();
                self.close_with(violation.code, &violation.fault.to_string(), out);
                Err(violation.fault)
            }
        }
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if !plain.is_empty() && !self.closed {
            self.receiver.earn(plain.len());
            put(BINARY, plain, out);
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.close_with(Code::Normal, "", out);
    }
}
