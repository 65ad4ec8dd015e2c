//! The server's end: a core, what reads for it, and the commands that it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_ssh::{Config, Core, Door, Event, Fatal, Id, Inbound, Next};

use crate::{Key, Seeded};

/// Knows one key.
pub struct OneKey(pub Key);

impl Door for OneKey {
    fn offered(&mut self, _: &str, key: &[u8]) -> bool {
        key == self.0.blob
    }

    fn proven(&mut self, user: &str, key: &[u8]) -> bool {
        user == "terminal" && key == self.0.blob
    }
}

/// What the server knows of a channel.
#[derive(Debug)]
pub struct Ours {
    pub tag: u64,
    /// Data that came and was not consumed.
    pub held: u32,
    /// Data that was given to the core and not reported as sealed.
    pub queued: u64,
    /// CLOSE was asked for.
    pub closing: bool,
    /// Open, as far as the server knows.
    pub open: bool,
    /// The server asked for it.
    pub forwarded: bool,
}

pub struct Server {
    pub core: Core,
    inbound: Inbound,
    buffer: Vec<u8>,
    pub door: OneKey,
    pub channels: BTreeMap<Id, Ours>,
}

impl Ours {
    pub fn new(tag: u64) -> Self {
        Self { tag, held: 0, queued: 0, closing: false, open: false, forwarded: false }
    }
}

impl Server {
    pub fn new(config: Arc<Config>, door: OneKey, seed: u64, now: Duration) -> Self {
        Self {
            inbound: Inbound::new(config.rekey),
            core: Core::new(config, Box::new(Seeded::new(seed)), now),
            buffer: Vec::new(),
            door,
            channels: BTreeMap::new(),
        }
    }

    /// Bytes of the client; events with the data that they name.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<Vec<(Event, Vec<u8>)>, Fatal> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut at = 0;
        loop {
            match self.inbound.next(&mut self.buffer, at)? {
                Next::Incomplete { need } => {
                    assert!(need > self.buffer.len() - at, "it asks for what it has");
                    break;
                }
                Next::Version { line, next } => {
                    self.core.version(&self.buffer[line]);
                    at = next;
                }
                Next::Message { message, next, sequence, .. } => {
                    let message = &self.buffer[message];
                    match self.core.handle(message, sequence, &mut self.door, now)? {
                        Some(Event::Keys { opener, reset_sequence, .. }) => {
                            self.inbound.install(opener, reset_sequence);
                        }
                        Some(Event::Data { channel, bytes }) => {
                            let data = message[bytes.clone()].to_vec();
                            events.push((Event::Data { channel, bytes }, data));
                        }
                        Some(event) => events.push((event, Vec::new())),
                        None => {}
                    }
                    at = next;
                }
                Next::Exhausted => self.core.rekey(now),
            }
        }
        self.buffer.drain(..at);
        assert!(self.buffer.len() <= tidegate_ssh::packet::MOST + 20, "one packet at most waits");
        Ok(events)
    }

    /// Seals what may be sealed.
    pub fn pump(&mut self) {
        let mut drained = Vec::new();
        self.core.pump(&mut drained, &mut |_| true);
        for (id, bytes) in drained {
            if let Some(ours) = self.channels.get_mut(&id) {
                let less = ours.queued.checked_sub(u64::from(bytes));
                ours.queued = less.expect("no more is sealed than was queued");
            }
        }
    }
}
