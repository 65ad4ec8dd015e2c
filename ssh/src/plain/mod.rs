//! The core against a peer that speaks in plain text: what the transport adds is tested there.

mod any_order;
mod channels;
mod flow;
mod globals;
pub(crate) mod keys;
mod login;
mod model;
mod op;
mod requests;
mod states;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use crate::config::Config;
use crate::core::Core;
use crate::event::Event;
use crate::hostkey::HostKey;
use crate::message::{Fatal, number};
use crate::random::{NoRandom, Random};
use crate::transport::Transport;
use crate::wire::{Reader, Writer};
use crate::{Door, Id};

pub(crate) const SESSION: [u8; 32] = [7; 32];

/// Bytes that count up.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

/// An ed25519 host key made of this byte.
pub(crate) fn host_key(seed: u8) -> HostKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let both = [&[seed; 32], pair.public_key().as_ref()].concat();
    let pair = ssh_key::private::Ed25519Keypair::from_bytes(&both.try_into().unwrap()).unwrap();
    HostKey::from_private_key(&ssh_key::PrivateKey::from(pair)).unwrap()
}

/// Knows `keys`, and lets in those of them that are not `barred`.
#[derive(Default)]
pub(crate) struct TestDoor {
    pub keys: Vec<Vec<u8>>,
    pub barred: Vec<Vec<u8>>,
    /// What one is told who begins one more key exchange.
    pub turned_away: Option<&'static str>,
    /// What it was asked.
    pub asked: Vec<(String, Vec<u8>)>,
}

impl Door for TestDoor {
    fn offered(&mut self, user: &str, key: &[u8]) -> bool {
        self.asked.push((user.to_owned(), key.to_vec()));
        self.keys.iter().any(|known| known == key)
    }

    fn turned_away(&mut self) -> Option<&'static str> {
        self.turned_away
    }

    fn proven(&mut self, _: &str, key: &[u8]) -> bool {
        self.barred.iter().all(|barred| barred != key)
    }
}

/// The peer, and the core that it talks to.
pub(crate) struct Peer {
    pub core: Core,
    pub door: TestDoor,
    pub now: Duration,
    pub sequence: u32,
    /// What the output held and was not looked at.
    unread: Vec<u8>,
}

impl Peer {
    /// After the first key exchange.
    pub fn new() -> Self {
        Self::with(Config::new(vec![host_key(1), host_key(2)]))
    }

    pub fn with(config: Config) -> Self {
        let config = Arc::new(config);
        let transport = Transport::plain(Arc::clone(&config), Box::new(Counting(0)), SESSION);
        Self {
            core: Core::after_keys(config, transport),
            door: TestDoor::default(),
            now: Duration::from_secs(1),
            sequence: 3,
            unread: Vec::new(),
        }
    }

    /// After a login.
    pub fn logged_in(config: Config) -> Self {
        let mut peer = Self::with(config);
        peer.enter();
        peer
    }

    pub fn enter(&mut self) {
        self.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth")).unwrap();
        let key = keys::ed25519();
        self.door.keys.push(key.blob.clone());
        let event = self.hand(&key.login("alice", &SESSION)).unwrap();
        assert!(matches!(event, Some(Event::Authenticated { .. })), "{event:?}");
        self.heard();
    }

    /// One message to the core.
    pub fn hand(&mut self, message: &[u8]) -> Result<Option<Event>, Fatal> {
        self.sequence += 1;
        self.core.handle(message, self.sequence, &mut self.door, self.now)
    }

    pub fn say(
        &mut self,
        build: impl for<'a, 'b> FnOnce(&'a mut Writer<'b>) -> &'a mut Writer<'b>,
    ) -> Result<Option<Event>, Fatal> {
        self.hand(&message(build))
    }

    /// The messages that the core has sent since.
    pub fn heard(&mut self) -> Vec<Vec<u8>> {
        let output = self.core.output();
        self.unread.extend_from_slice(output.as_slice());
        output.consume(output.len());
        let mut messages = Vec::new();
        let mut rest = Reader::new(&self.unread);
        while let Ok(packet) = rest.string() {
            let padding = usize::from(packet[0]);
            messages.push(packet[1..packet.len() - padding].to_vec());
        }
        assert!(rest.is_empty());
        self.unread.clear();
        messages
    }

    /// The only message that the core has sent since.
    pub fn heard_one(&mut self) -> Vec<u8> {
        let mut messages = self.heard();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// Seals all that can be sealed; what came out, and what was drained.
    pub fn pumped(&mut self) -> (Vec<Vec<u8>>, Vec<(Id, u32)>) {
        let (mut messages, mut drained) = (Vec::new(), Vec::new());
        loop {
            self.core.pump(&mut drained, &mut |_| true);
            let more = self.heard();
            if more.is_empty() {
                return (messages, drained);
            }
            messages.extend(more);
        }
    }

    /// The peer opens a direct-tcpip channel that it calls `remote`, and the relay confirms it.
    pub fn opened(&mut self, remote: u32, window: u32, packet: u32) -> Id {
        let event = self.hand(&direct(remote, window, packet)).unwrap();
        let Some(Event::Open { channel, .. }) = event else { panic!("{event:?}") };
        self.core.confirm(channel);
        let confirmed = self.heard_one();
        assert_eq!(confirmed[0], number::CHANNEL_OPEN_CONFIRMATION);
        assert_eq!(word(&confirmed, 1), remote);
        assert_eq!(word(&confirmed, 5), channel.number);
        channel
    }

    /// The relay opens a channel, and the peer confirms it as `remote`.
    pub fn forwarded(&mut self, remote: u32, window: u32, packet: u32) -> Id {
        let id = self.core.open_forwarded("localhost", 22, ("0.0.0.0", 0)).unwrap();
        self.heard();
        let event = self.say(|w| {
            w.u8(number::CHANNEL_OPEN_CONFIRMATION).u32(id.number).u32(remote);
            w.u32(window).u32(packet)
        });
        assert!(matches!(event, Ok(Some(Event::Opened { channel })) if channel == id));
        id
    }

    /// The peer opens a session that it calls `remote`; our number for it.
    pub fn session(&mut self, remote: u32) -> u32 {
        let open = self.say(|w| {
            w.u8(number::CHANNEL_OPEN).string("session").u32(remote).u32(1 << 20).u32(32768)
        });
        assert!(matches!(open, Ok(None)), "{open:?}");
        word(&self.heard_one(), 5)
    }

    /// The peer sends data.
    pub fn data(&mut self, id: Id, bytes: usize) -> Result<Option<Event>, Fatal> {
        self.say(|w| w.u8(number::CHANNEL_DATA).u32(id.number).string(vec![b'x'; bytes]))
    }

    /// The connection ended with this code; DISCONNECT is the last that was sent.
    pub fn assert_dead(&mut self, done: Result<Option<Event>, Fatal>, code: u32) -> String {
        let fatal = done.expect_err("this ends the connection");
        assert_eq!(fatal.code.number(), code, "{fatal}");
        let last = self.heard().pop().unwrap();
        assert_eq!((last[0], word(&last, 1)), (number::DISCONNECT, code));
        assert!(self.core.is_over());
        fatal.text
    }
}

pub(crate) fn message(
    build: impl for<'a, 'b> FnOnce(&'a mut Writer<'b>) -> &'a mut Writer<'b>,
) -> Vec<u8> {
    let mut message = Vec::new();
    build(&mut Writer::new(&mut message));
    message
}

pub(crate) fn direct(remote: u32, window: u32, packet: u32) -> Vec<u8> {
    message(|w| {
        w.u8(number::CHANNEL_OPEN).string("direct-tcpip").u32(remote).u32(window).u32(packet);
        w.string("kiosk-17").u32(22).string("127.0.0.1").u32(65535)
    })
}

/// The `uint32` at this place.
pub(crate) fn word(message: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(message[at..at + 4].try_into().unwrap())
}
