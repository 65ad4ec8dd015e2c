//! A relay of one connection: the core on a socket. It answers commands, echoes on channels, and opens
//! a channel for each forward that it grants. The command `after` ends when what went through the
//! channels both ways is back; `told` ends when the test says so, since a client that is a command drops
//! what it has not handed on when its command ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_ssh::random::System;
use tidegate_ssh::{
    Config, Core, DisconnectCode, Door, Event, Fatal, Id, Inbound, Negotiated, Next, RequestKind,
};

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Keys,
    /// The peer's version line, and what the first key exchange agreed on.
    Agreed(String, Negotiated),
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

/// What the connection is for.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// How long it may last.
    pub patience: Duration,
    /// Bytes that are sent on a forwarded channel, to come back.
    pub question: usize,
    /// Whether the client goes on to do everything else. It does not: its forward is used at once, and
    /// the relay says goodbye when the bytes are back. It does: its forward is used when it opens a channel
    /// by itself. paramiko and asyncssh refuse what comes right behind the grant, and libssh loses the
    /// port that the grant names.
    pub everything: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), question: 14, everything: false }
    }
}

pub struct Relay {
    pub port: u16,
    /// Tells when a command was asked for; broken off when the connection has ended.
    pub asked: Receiver<()>,
    /// Ends the command `told`.
    pub tell: Sender<()>,
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
    script: Script,
    start: Instant,
    asked: Sender<()>,
    told: Receiver<()>,
    seen: Vec<Seen>,
    /// Channels that are echoed on.
    echoes: Vec<Id>,
    /// The forwarded channel, and what came back on it.
    forwarded: Option<(Id, Vec<u8>)>,
    /// A forward that is granted, and not used yet.
    granted: Option<(String, u32)>,
    /// A command that waits for the channels, and whether it has a terminal.
    after: Option<(Id, bool)>,
    /// One that waits to be told.
    waits: Option<(Id, bool)>,
    /// Whether a channel's echo has ended.
    echoed: bool,
}

/// Bytes that do not repeat soon.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

impl Relay {
    /// Serves one client that has one of these keys.
    pub fn start(config: Config, keys: Vec<Vec<u8>>) -> Self {
        Self::play(Script::default(), config, keys)
    }

    pub fn play(script: Script, config: Config, keys: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asking, asked) = channel();
        let (tell, told) = channel();
        let task = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            stream.set_write_timeout(Some(script.patience)).unwrap();
            stream.set_nodelay(true).unwrap();
            let rekey = config.rekey;
            let mut one = One {
                core: Core::new(Arc::new(config), Box::new(System), Duration::ZERO),
                script,
                start: Instant::now(),
                asked: asking,
                told,
                seen: Vec::new(),
                echoes: Vec::new(),
                forwarded: None,
                granted: None,
                after: None,
                waits: None,
                echoed: false,
            };
            if let Err(fatal) = one.serve(&mut stream, Inbound::new(rekey), &mut Keys(keys)) {
                one.seen.push(Seen::Ended(fatal.text));
            }
            one.flush(&mut stream);
            one.seen
        });
        Self { port, asked, tell, task }
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
        while self.start.elapsed() < self.script.patience {
            self.core.tick(self.start.elapsed())?;
            if self.told.try_recv().is_ok()
                && let Some((channel, pty)) = self.waits.take()
            {
                self.answer(channel, "told", pty);
            }
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
                            Some(Event::Keys { opener, reset_sequence, negotiated, first }) => {
                                inbound.install(opener, reset_sequence);
                                if first {
                                    let peer = self.core.peer_version().to_owned();
                                    self.seen.push(Seen::Agreed(peer, negotiated));
                                }
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
        let (queued, after) = (self.core.queued(), self.after.is_some());
        let (echoed, output) = (self.echoed, self.core.output().len());
        panic!(
            "this takes too long: {queued} bytes queued, {output} of output, {} read on, echoed {echoed}, \
             asked {after}, {:?}",
            buffer.len(),
            self.seen
        )
    }

    fn event(&mut self, event: Event, message: &[u8]) {
        let core = &mut self.core;
        match event {
            Event::Authenticated { user, key } => self.seen.push(Seen::Login(user, key)),
            Event::Open { channel, host, port, .. } => {
                self.seen.push(Seen::Open(host, port));
                self.echoes.push(channel);
                core.confirm(channel);
                self.use_forward();
            }
            Event::Data { channel, bytes } => match &mut self.forwarded {
                Some((id, answer)) if *id == channel => {
                    answer.extend_from_slice(&message[bytes.clone()]);
                    let count = u32::try_from(bytes.len()).unwrap();
                    core.consumed(channel, count, self.start.elapsed());
                }
                _ => core.send(channel, &message[bytes]).unwrap(),
            },
            Event::Eof { channel } => self.eof(channel),
            Event::Alive => {
                self.seen.push(Seen::Alive);
                core.disconnect(DisconnectCode::ByApplication, "the window has closed");
            }
            Event::Forward { token, host, port } => {
                let granted = if port == 0 { 4023 } else { port };
                core.answer_forward(token, Some(granted));
                self.granted = Some((host.clone(), granted));
                self.seen.push(Seen::Forward(host, port));
                if !self.script.everything {
                    self.use_forward();
                }
            }
            Event::Request { channel, kind, pty } => {
                core.answer_request(channel, true);
                let RequestKind::Exec(command) = kind else { return core.close(channel) };
                // One that waits is ended by what comes next.
                match command.as_slice() {
                    b"wait" => {}
                    b"told" => {
                        self.waits = Some((channel, pty));
                        // Nobody may want to know.
                        let _ = self.asked.send(());
                    }
                    b"after" => {
                        self.after = Some((channel, pty));
                        self.answer_after();
                    }
                    _ => self.answer(channel, &String::from_utf8_lossy(&command), pty),
                }
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

    fn use_forward(&mut self) {
        let Some((host, port)) = self.granted.take() else { return };
        // Go's client refuses an originator's port of 0.
        let id = self.core.open_forwarded(&host, port, ("127.0.0.1", 65_535)).unwrap();
        self.core.send(id, &bytes(self.script.question)).unwrap();
        self.core.eof(id);
        self.forwarded = Some((id, Vec::new()));
    }

    fn eof(&mut self, channel: Id) {
        match &self.forwarded {
            Some((id, answer)) if *id == channel => {
                if *answer == bytes(self.script.question) {
                    self.seen.push(Seen::Echoed);
                }
                self.core.close(channel);
                if !self.script.everything {
                    assert!(self.core.ping());
                }
            }
            _ => {
                self.echoed |= self.echoes.contains(&channel);
                self.core.eof(channel);
                self.core.finish(channel);
            }
        }
        self.answer_after();
    }

    fn answer_after(&mut self) {
        if self.echoed
            && self.seen.contains(&Seen::Echoed)
            && let Some((channel, pty)) = self.after.take()
        {
            self.answer(channel, "after", pty);
        }
    }

    fn answer(&mut self, channel: Id, command: &str, pty: bool) {
        let core = &mut self.core;
        core.send(channel, format!("{command} pty={pty}\r\n").as_bytes()).unwrap();
        core.send_extended(channel, 1, b"this is stderr\r\n").unwrap();
        core.exit_status(channel, 3);
        core.eof(channel);
        core.finish(channel);
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
