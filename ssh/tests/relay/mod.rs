//! A relay of one connection: the core on a socket. It answers commands, echoes on channels, and opens
//! a channel for each forward that it grants.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_ssh::random::System;
use tidegate_ssh::{
    Config, Core, DisconnectCode, Door, Event, Fatal, Id, Inbound, Next, RequestKind,
};

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Keys,
    Login(String, Vec<u8>),
    Open(String, u32),
    Forward(String, u32),
    /// What was sent on a forwarded channel came back.
    Echoed,
    Alive,
    Proved(Vec<usize>),
    Refused(&'static str),
    Ended(String),
}

pub struct Relay {
    pub port: u16,
    task: JoinHandle<Vec<Seen>>,
}

struct Keys(Vec<Vec<u8>>);

impl Door for Keys {
    fn offered(&mut self, _: &str, key: &[u8]) -> bool {
        self.0.iter().any(|known| known == key)
    }

    fn proven(&mut self, _: &str, _: &[u8]) -> bool {
        true
    }
}

struct One {
    core: Core,
    start: Instant,
    seen: Vec<Seen>,
    /// Channels that are echoed on.
    echoes: Vec<Id>,
    /// The forwarded channel, and what came back on it.
    forwarded: Option<(Id, Vec<u8>)>,
}

const QUESTION: &[u8] = b"are you there?";

impl Relay {
    /// Serves one client that has one of these keys.
    pub fn start(config: Config, keys: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let rekey = config.rekey;
            let mut one = One {
                core: Core::new(Arc::new(config), Box::new(System), Duration::ZERO),
                start: Instant::now(),
                seen: Vec::new(),
                echoes: Vec::new(),
                forwarded: None,
            };
            if let Err(fatal) = one.serve(&mut stream, Inbound::new(rekey), &mut Keys(keys)) {
                one.seen.push(Seen::Ended(fatal.text));
            }
            one.flush(&mut stream);
            one.seen
        });
        Self { port, task }
    }

    /// Waits for the connection's end.
    pub fn end(self) -> Vec<Seen> {
        self.task.join().unwrap()
    }
}

impl One {
    fn serve(
        &mut self,
        stream: &mut TcpStream,
        mut inbound: Inbound,
        door: &mut Keys,
    ) -> Result<(), Fatal> {
        let mut buffer = Vec::new();
        let mut bytes = vec![0; 128 * 1024];
        while self.start.elapsed() < Duration::from_secs(10) {
            self.core.tick(self.start.elapsed())?;
            self.flush(stream);
            if self.core.is_over() {
                return Ok(());
            }
            match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => return Ok(()),
            }
            let mut at = 0;
            loop {
                let now = self.start.elapsed();
                match inbound.next(&mut buffer, at)? {
                    Next::Incomplete { .. } => break,
                    Next::Version { line, next } => {
                        self.core.version(&buffer[line]);
                        at = next;
                    }
                    Next::Message { message, next, sequence, .. } => {
                        let message = &buffer[message];
                        match self.core.handle(message, sequence, door, now)? {
                            Some(Event::Keys { opener, reset_sequence, .. }) => {
                                inbound.install(opener, reset_sequence);
                                self.seen.push(Seen::Keys);
                            }
                            Some(event) => self.event(event, message),
                            None => {}
                        }
                        at = next;
                    }
                    Next::Exhausted => self.core.rekey(now),
                }
            }
            buffer.drain(..at);
        }
        panic!("this takes too long: {:?}", self.seen)
    }

    fn event(&mut self, event: Event, message: &[u8]) {
        let core = &mut self.core;
        match event {
            Event::Authenticated { user, key } => self.seen.push(Seen::Login(user, key)),
            Event::Open { channel, host, port, .. } => {
                self.seen.push(Seen::Open(host, port));
                self.echoes.push(channel);
                core.confirm(channel);
            }
            Event::Data { channel, bytes } => match &mut self.forwarded {
                Some((id, answer)) if *id == channel => {
                    answer.extend_from_slice(&message[bytes]);
                }
                _ => core.send(channel, &message[bytes]).unwrap(),
            },
            Event::Eof { channel } if self.forwarded.is_none() => {
                core.eof(channel);
                core.finish(channel);
            }
            Event::Eof { channel } => {
                if let Some((_, answer)) = &self.forwarded
                    && answer == QUESTION
                {
                    self.seen.push(Seen::Echoed);
                }
                core.close(channel);
                assert!(core.ping());
            }
            Event::Alive => {
                self.seen.push(Seen::Alive);
                core.disconnect(DisconnectCode::ByApplication, "the window has closed");
            }
            Event::Forward { token, host, port } => {
                let granted = if port == 0 { 4023 } else { port };
                core.answer_forward(token, Some(granted));
                let id = core.open_forwarded(&host, granted, ("127.0.0.1", 0)).unwrap();
                core.send(id, QUESTION).unwrap();
                core.eof(id);
                self.forwarded = Some((id, Vec::new()));
                self.seen.push(Seen::Forward(host, port));
            }
            Event::Request { channel, kind, pty } => {
                core.answer_request(channel, true);
                let RequestKind::Exec(command) = kind else { return core.close(channel) };
                // One that waits is ended by what comes next.
                if command == b"wait" {
                    return;
                }
                let out = format!("{} pty={pty}\r\n", String::from_utf8_lossy(&command));
                core.send(channel, out.as_bytes()).unwrap();
                core.send_extended(channel, 1, b"this is stderr\r\n").unwrap();
                core.exit_status(channel, 3);
                core.eof(channel);
                core.finish(channel);
            }
            Event::HostKeysProved { keys } => {
                self.seen.push(Seen::Proved(keys));
                assert!(core.ping());
            }
            Event::OpenFailed { code, text, .. } => panic!("{code}: {text}"),
            Event::Refused { what } => self.seen.push(Seen::Refused(what)),
            Event::Disconnected { text, .. } => self.seen.push(Seen::Ended(text)),
            _ => {}
        }
    }

    /// Writes and seals until nothing is left. The client may be gone already.
    fn flush(&mut self, stream: &mut TcpStream) {
        let mut drained = Vec::new();
        loop {
            self.core.pump(&mut drained, &mut |_| true);
            let now = self.start.elapsed();
            for (id, bytes) in drained.drain(..) {
                if self.echoes.contains(&id) {
                    self.core.consumed(id, bytes, now);
                }
            }
            let output = self.core.output();
            if output.is_empty() {
                return;
            }
            let _ = stream.write_all(output.as_slice());
            let all = output.len();
            output.consume(all);
        }
    }
}
