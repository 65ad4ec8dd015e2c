//! A server of just the transport, for one client: exchanges keys, lets everybody in without a proof,
//! and then asks the client for a sign of life again and again, changing keys all the while.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_ssh::message::number;
use tidegate_ssh::random::System;
use tidegate_ssh::wire::{Reader, Writer};
use tidegate_ssh::{Config, DisconnectCode, Fatal, Handled, Inbound, Negotiated, Next, Transport};

/// How often the client is asked.
pub const ROUNDS: usize = 8;

/// What the client reads at the end.
pub const FAREWELL: &str = "that was all";

/// What became of a connection.
#[derive(Debug)]
pub struct Served {
    pub negotiated: Option<Negotiated>,
    /// Key exchanges.
    pub keys: usize,
    /// Signs of life.
    pub lives: usize,
    pub fatal: Option<Fatal>,
}

struct Server {
    transport: Transport,
    served: Served,
    start: Instant,
}

impl Server {
    fn handle(
        &mut self,
        message: &[u8],
        sequence: u32,
        inbound: &mut Inbound,
    ) -> Result<(), Fatal> {
        match self.transport.handle(message, self.start.elapsed())? {
            Handled::Nothing => {}
            Handled::Keys { opener, reset } => {
                inbound.install(opener, reset);
                self.served.keys += 1;
                self.served.negotiated = self.transport.negotiated().cloned();
            }
            Handled::Disconnected { .. } => {
                self.transport.disconnect(DisconnectCode::ByApplication, "");
            }
            Handled::Other => self.other(message, sequence)?,
        }
        Ok(())
    }

    fn other(&mut self, message: &[u8], sequence: u32) -> Result<(), Fatal> {
        match message[0] {
            number::SERVICE_REQUEST => {
                let mut r = Reader::new(&message[1..]);
                let service = r.string()?;
                self.transport.write(|w| {
                    w.u8(number::SERVICE_ACCEPT).string(service);
                });
            }
            number::USERAUTH_REQUEST => {
                self.transport.write(|w| {
                    w.u8(number::USERAUTH_SUCCESS);
                });
                self.transport.logged_in(self.start.elapsed());
                self.ask();
            }
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => {
                self.served.lives += 1;
                if self.served.lives == ROUNDS {
                    self.transport.disconnect(DisconnectCode::ByApplication, FAREWELL);
                } else {
                    if self.served.lives.is_multiple_of(2) {
                        self.transport.rekey(self.start.elapsed());
                    }
                    self.ask();
                }
            }
            number::CHANNEL_OPEN => {
                let mut r = Reader::new(&message[1..]);
                r.string()?;
                let channel = r.u32()?;
                self.transport.write(|w| {
                    w.u8(number::CHANNEL_OPEN_CONFIRMATION);
                    w.u32(channel).u32(0).u32(1 << 20).u32(32_768);
                });
            }
            number::GLOBAL_REQUEST | number::CHANNEL_REQUEST => {}
            _ => self.transport.unimplemented(sequence),
        }
        Ok(())
    }

    fn ask(&mut self) {
        let build = |w: &mut Writer<'_>| {
            w.u8(number::GLOBAL_REQUEST).string("keepalive@openssh.com").bool(true);
            // So much that a client with a low limit begins a key exchange by itself.
            w.bytes(&[0; 3000]);
        };
        self.transport.write(build);
    }

    fn serve(&mut self, stream: &mut TcpStream) -> Result<(), Fatal> {
        let mut inbound = Inbound::new(tidegate_ssh::RekeyLimits::default());
        let mut buffer = Vec::new();
        loop {
            self.flush(stream);
            let mut bytes = [0; 16 * 1024];
            match stream.read(&mut bytes) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => buffer.extend_from_slice(&bytes[..count]),
            }
            let mut at = 0;
            loop {
                match inbound.next(&mut buffer, at)? {
                    Next::Incomplete { .. } => break,
                    Next::Version { line, next } => {
                        self.transport.version(&buffer[line]);
                        at = next;
                    }
                    Next::Message { message, next, sequence, .. } => {
                        let message = buffer[message].to_vec();
                        self.handle(&message, sequence, &mut inbound)?;
                        at = next;
                    }
                    Next::Exhausted => self.transport.rekey(self.start.elapsed()),
                }
            }
            buffer.drain(..at);
        }
    }

    /// The client may be gone already.
    fn flush(&mut self, stream: &mut TcpStream) {
        let output = self.transport.output();
        let _ = stream.write_all(output.as_slice());
        let all = output.len();
        output.consume(all);
    }
}

/// Serves one client on a port of its own.
pub fn serve(config: Config) -> (u16, JoinHandle<Served>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        let served = Served { negotiated: None, keys: 0, lives: 0, fatal: None };
        let transport = Transport::new(Arc::new(config), Box::new(System), Duration::ZERO);
        let mut server = Server { transport, served, start: Instant::now() };
        if let Err(fatal) = server.serve(&mut stream) {
            server.transport.disconnect(fatal.code, &fatal.text);
            server.served.fatal = Some(fatal);
        }
        server.flush(&mut stream);
        server.served
    });
    (port, handle)
}
