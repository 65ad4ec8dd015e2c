//! Bytes as they come from the network: version lines, packets in clear and sealed ones.

use std::sync::Arc;
use std::time::Duration;

use tidegate_ssh::{Config, Core, Door, Event, Fatal, HostKey, Inbound, Next};

use super::input::{Input, check};
use crate::{Client, Key, Offer, Seeded};

const NOW: Duration = Duration::from_secs(1);

/// Lets nobody in.
struct Shut;

impl Door for Shut {
    fn offered(&mut self, _: &str, _: &[u8]) -> bool {
        false
    }

    fn proven(&mut self, _: &str, _: &[u8]) -> bool {
        panic!("a key was proven that was not let in")
    }
}

thread_local! {
    /// Made once, since keys take longer than most inputs.
    static CONFIG: Arc<Config> = Arc::new(Config::new(vec![host_key()]));
}

/// An ed25519 host key.
pub fn host_key() -> HostKey {
    HostKey::from_private_key(&Key::private([1; 32])).expect("a host key")
}

/// A server as a driver has one.
pub struct Server {
    pub core: Core,
    door: Box<dyn Door>,
    inbound: Inbound,
    buffer: Vec<u8>,
    /// What came, messages by their numbers and lengths.
    pub read: Vec<(u8, usize)>,
    pub dead: Option<Fatal>,
    pub keys: usize,
    pub logins: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// One that lets nobody in.
    pub fn new() -> Self {
        Self::with(Box::new(Shut))
    }

    pub fn with(door: Box<dyn Door>) -> Self {
        let config = CONFIG.with(Arc::clone);
        Self {
            inbound: Inbound::new(config.rekey),
            core: Core::new(config, Box::new(Seeded::new(1 << 40)), NOW),
            door,
            buffer: Vec::new(),
            read: Vec::new(),
            dead: None,
            keys: 0,
            logins: 0,
        }
    }

    /// Bytes for the client.
    pub fn take(&mut self) -> Vec<u8> {
        let output = self.core.output();
        let bytes = output.as_slice().to_vec();
        output.consume(bytes.len());
        bytes
    }

    /// Bytes until the connection is dead; what comes then is not read any more.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.dead.is_none() && !self.core.is_over() {
            self.buffer.extend_from_slice(bytes);
            if let Err(fatal) = self.read() {
                check(&fatal);
                self.core.disconnect(fatal.code, &fatal.text);
                assert!(self.core.is_over());
                self.dead = Some(fatal);
            }
        }
    }

    fn read(&mut self) -> Result<(), Fatal> {
        let mut at = 0;
        while !self.core.is_over() {
            let before = at;
            match self.inbound.next(&mut self.buffer, at)? {
                Next::Incomplete { need } => {
                    assert!(need > self.buffer.len() - at, "it asks for what it has");
                    assert!(need <= tidegate_ssh::packet::MOST + 20);
                    break;
                }
                Next::Version { line, next } => {
                    // One byte less than a line may have: a bare LF ends it as well.
                    assert!(line.len() <= 254 && line.len() < next && next <= 255);
                    self.core.version(&self.buffer[line.clone()]);
                    assert_eq!(self.core.peer_version().len(), line.len());
                    at = next;
                }
                Next::Message { frame, message, next, sequence } => {
                    assert!(frame.start == at && frame.end == next);
                    assert!(message.start == at + 5 && message.end + 4 <= next);
                    let message = &self.buffer[message];
                    self.read.push((message[0], message.len()));
                    let told = self.core.handle(message, sequence, self.door.as_mut(), NOW)?;
                    match told {
                        Some(Event::Keys { opener, reset_sequence, .. }) => {
                            self.keys += 1;
                            self.inbound.install(opener, reset_sequence);
                        }
                        Some(Event::Authenticated { .. }) => self.logins += 1,
                        Some(Event::Disconnected { .. }) | None => {}
                        other => panic!("nobody is logged in: {other:?}"),
                    }
                    at = next;
                }
                Next::Exhausted => self.core.rekey(NOW),
            }
            assert!(at > before || !self.buffer.is_empty());
        }
        self.buffer.drain(..at);
        Ok(())
    }
}

/// A version line and what follows, in one piece and in pieces: both ways it ends the same.
pub fn version(data: &[u8]) {
    let mut input = Input::new(data);
    let step = usize::from(input.byte()).max(1);
    let rest = input.take(usize::MAX);
    let mut whole = Server::new();
    whole.receive(rest);
    let mut split = Server::new();
    for piece in rest.chunks(step) {
        split.receive(piece);
    }
    assert_eq!(whole.dead, split.dead);
    assert_eq!(whole.read, split.read);
    assert_eq!(whole.core.peer_version(), split.core.peer_version());
    assert_eq!(whole.keys, 0);
}

/// Messages in clear from the first on, which is a KEXINIT.
pub fn kexinit(data: &[u8]) {
    let mut input = Input::new(data);
    let mut server = Server::new();
    server.receive(b"SSH-2.0-fuzz\r\n");
    let mut out = tidegate_ssh::testing::Outbound::new();
    let mut first = true;
    while !input.is_empty() && server.keys == 0 {
        let piece = input.piece();
        let written = out.write(&mut Seeded::new(0), |w| {
            if std::mem::take(&mut first) {
                w.u8(20);
            }
            w.bytes(piece);
        });
        if written.is_err() {
            return;
        }
        server.receive(out.output.as_slice());
        out.output.consume(usize::MAX);
    }
    if server.dead.is_none() && server.keys > 0 {
        assert!(server.core.negotiated().is_some());
    }
}

/// After a key exchange that is the same each time: what is sealed but makes no sense, and bytes that
/// are not sealed.
pub fn packets(data: &[u8]) {
    let mut input = Input::new(data);
    let cipher = ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"];
    let cipher = vec![cipher[usize::from(input.byte()) % 2]];
    let mut client = Client::new(Offer {
        kex: vec!["curve25519-sha256"],
        ciphers: [cipher.clone(), cipher],
        strict: input.flip(),
        ..Offer::default()
    });
    let mut server = Server::new();
    for _ in 0..3 {
        server.receive(&client.take());
        client.receive(&server.take());
    }
    assert_eq!((server.keys, client.exchanges), (1, 1));
    while !input.is_empty() && server.dead.is_none() {
        match input.byte() % 4 {
            // A message.
            0 => {
                let message = input.piece();
                if !message.is_empty() {
                    client.send(message);
                }
            }
            // A packet with a length and a padding of its own.
            1 => {
                let length = input.byte();
                let content = input.piece();
                let mut frame = u32::from(length).to_be_bytes().to_vec();
                if length == 0 {
                    frame = u32::try_from(content.len()).expect("two bytes").to_be_bytes().to_vec();
                }
                frame.extend_from_slice(content);
                frame.resize(frame.len() + 16, 0);
                if client.outbound.seal_anything(&mut frame) {
                    client.outbound.output.append(&frame);
                }
            }
            // Bytes as they are.
            2 => client.outbound.output.append(input.piece()),
            // Another key exchange; they take longer than all the rest.
            _ if client.exchanges < 4 => client.begin(),
            _ => {}
        }
        server.receive(&client.take());
        // After bytes that make no sense the client may be at a loss, too.
        if client.try_receive(&server.take()).is_err() {
            break;
        }
    }
}
