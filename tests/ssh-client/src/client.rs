//! The client's side of the transport, written from the RFCs for tests alone: it trusts nothing that
//! the server side computes.

use std::sync::Arc;

use tidegate_ssh::message::number;
use tidegate_ssh::testing::{Direction, Exchange, Outbound, Secrets, opener};
use tidegate_ssh::wire::{Reader, Writer};
use tidegate_ssh::{Inbound, Next, Opener, Random};

use crate::frame::around;
use crate::offer::Offer;
use crate::share::{Private, verify};
use crate::{Fault, Seeded};

/// How many numbers of messages are kept.
const SEEN: usize = 1024;

#[derive(Default)]
struct Under {
    ours: Vec<u8>,
    theirs: Option<Vec<u8>>,
    share: Vec<u8>,
    private: Option<Private>,
    opener: Option<Opener>,
}

/// A connection's transport, client role: bytes in, messages out. What it takes besides is `got`.
pub struct Client {
    offer: Arc<Offer>,
    random: Box<dyn Random + Send>,
    inbound: Inbound,
    /// For what a client must not do: bytes as they are, messages at any time.
    pub outbound: Outbound,
    buffer: Vec<u8>,
    server_line: Vec<u8>,
    under: Option<Box<Under>>,
    /// H of the first exchange.
    pub session: Option<[u8; 32]>,
    /// The host key that signed the latest exchange.
    pub host_key: Vec<u8>,
    /// Whether sequence numbers begin anew with each set of keys.
    strict: bool,
    /// Messages that are not of a key exchange, in order.
    pub got: Vec<Vec<u8>>,
    /// The numbers of the first messages that came, the transport's too.
    pub seen: Vec<u8>,
    pub exchanges: usize,
}

impl Client {
    /// With the same random bytes each time.
    pub fn new(offer: impl Into<Arc<Offer>>) -> Self {
        Self::with(offer, Box::new(Seeded::new(0)))
    }

    pub fn with(offer: impl Into<Arc<Offer>>, random: Box<dyn Random + Send>) -> Self {
        let mut client = Self::silent_with(offer, random);
        client.greet();
        client.begin();
        client
    }

    /// One that sends nothing by itself yet.
    pub fn silent(offer: impl Into<Arc<Offer>>) -> Self {
        Self::silent_with(offer, Box::new(Seeded::new(0)))
    }

    fn silent_with(offer: impl Into<Arc<Offer>>, random: Box<dyn Random + Send>) -> Self {
        let offer = offer.into();
        Self {
            inbound: Inbound::new(offer.rekey),
            offer,
            random,
            outbound: Outbound::new(),
            buffer: Vec::new(),
            server_line: Vec::new(),
            under: None,
            session: None,
            host_key: Vec::new(),
            strict: false,
            got: Vec::new(),
            seen: Vec::new(),
            exchanges: 0,
        }
    }

    /// Its version line.
    pub fn greet(&mut self) {
        self.outbound.output.append(self.offer.line.as_bytes());
        self.outbound.output.append(b"\r\n");
    }

    /// Whether messages that are no part of a key exchange may be sent.
    pub fn is_open(&self) -> bool {
        self.session.is_some() && !self.holds()
    }

    /// Between its KEXINIT and its NEWKEYS (RFC 4253 section 7.1).
    fn holds(&self) -> bool {
        self.under.as_ref().is_some_and(|under| under.opener.is_none())
    }

    /// What is to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = self.outbound.output.as_slice().to_vec();
        self.outbound.output.consume(bytes.len());
        bytes
    }

    /// A message at once, whatever the state; be it larger than a packet may be.
    pub fn send(&mut self, message: &[u8]) {
        let sent = self.outbound.write(self.random.as_mut(), |w| {
            w.bytes(message);
        });
        if sent.is_err() {
            let mut frame = around(message, false);
            assert!(self.outbound.seal_anything(&mut frame), "there are keys");
            self.outbound.output.append(&frame);
        }
    }

    /// A message when it may be sent.
    pub fn say(&mut self, message: &[u8]) {
        if self.holds() {
            let held = self.outbound.hold(|w| {
                w.bytes(message);
            });
            held.expect("few enough messages that wait for keys");
        } else {
            self.send(message);
            if self.session.is_some() && self.outbound.is_exhausted(&self.offer.rekey) {
                self.begin();
            }
        }
    }

    /// The next KEXINIT, which is not sent.
    pub fn kexinit(&mut self) -> Vec<u8> {
        let mut cookie = [0; 16];
        self.random.fill(&mut cookie).expect("random bytes");
        self.offer.kexinit(cookie, self.session.is_none())
    }

    /// Begins a key exchange, if none is under way.
    pub fn begin(&mut self) {
        if self.under.is_some() {
            return;
        }
        let ours = self.kexinit();
        self.send(&ours);
        self.under = Some(Box::new(Under { ours, ..Under::default() }));
        if self.offer.guesses {
            let favourite = self.offer.kex[0];
            self.share(favourite).expect("a share of its own");
        }
    }

    fn share(&mut self, method: &str) -> Result<(), Fault> {
        let mut message = vec![number::KEX_INIT];
        let generated = Private::generate(method, self.random.as_mut())?;
        let share = match &generated {
            Some((_, share)) => share.as_slice(),
            // A guess that the server has never heard of.
            None => b"whatever that method says",
        };
        Writer::new(&mut message).string(share);
        self.send(&message);
        if let (Some(under), Some((private, share))) = (&mut self.under, generated) {
            under.private = Some(private);
            under.share = share;
        }
        Ok(())
    }

    /// Takes bytes of a server that is held to do nothing wrong.
    pub fn receive(&mut self, bytes: &[u8]) {
        if let Err(fault) = self.try_receive(bytes) {
            panic!("{fault}");
        }
    }

    /// Takes bytes of a server. After an error the client is of no use any more.
    pub fn try_receive(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match self.inbound.next(&mut self.buffer, at)? {
                Next::Incomplete { .. } => break,
                Next::Version { line, next } => {
                    self.server_line = self.buffer[line].to_vec();
                    at = next;
                }
                Next::Message { message, next, .. } => {
                    let message = self.buffer[message].to_vec();
                    at = next;
                    self.handle(message)?;
                }
                Next::Exhausted => self.begin(),
            }
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn handle(&mut self, message: Vec<u8>) -> Result<(), Fault> {
        let kind = message.first().copied().unwrap_or_default();
        if self.seen.len() < SEEN {
            self.seen.push(kind);
        }
        match kind {
            number::KEXINIT => {
                self.begin();
                let choice = self.offer.choose(&message)?;
                let first = self.session.is_none();
                if first {
                    self.strict = self.offer.strict && choice.strict;
                }
                match &mut self.under {
                    Some(under) if under.theirs.is_none() => under.theirs = Some(message),
                    _ => return Err(Fault::new("KEXINIT came twice in one exchange")),
                }
                if !choice.guessed_right {
                    self.share(choice.kex)?;
                }
                Ok(())
            }
            number::KEX_REPLY => self.reply(&message),
            number::NEWKEYS => {
                let opener = self.under.take().and_then(|under| under.opener);
                let opener = opener.ok_or_else(|| Fault::new("NEWKEYS came before the reply"))?;
                self.inbound.install(opener, self.strict);
                self.exchanges += 1;
                Ok(())
            }
            _ => {
                self.got.push(message);
                Ok(())
            }
        }
    }

    fn reply(&mut self, message: &[u8]) -> Result<(), Fault> {
        let early = || Fault::new("the reply came before it was asked for");
        let under = self.under.as_mut().ok_or_else(early)?;
        let theirs = under.theirs.as_ref().ok_or_else(early)?;
        let choice = self.offer.choose(theirs)?;
        let mut r = Reader::new(&message[1..]);
        let (blob, share, signed) = (r.string()?, r.string()?, r.string()?);
        r.end()?;
        let secret = under.private.take().ok_or_else(early)?.secret(share)?;
        let lines = [self.offer.line.as_bytes(), &self.server_line];
        let exchange = Exchange::new(lines, [&under.ours, theirs]);
        let hash = exchange.finish(blob, [&under.share, share], &secret);
        verify(blob, signed, &hash, choice.host_key)?;
        self.host_key = blob.to_vec();

        let session = *self.session.get_or_insert(hash);
        let keys = |direction| Secrets::derive(direction, &secret, &hash, &session);
        let opened = opener(choice.from_server, &keys(Direction::ServerToClient));
        under.opener = Some(opened.map_err(|_| Fault::ours())?);
        self.send(&[number::NEWKEYS]);
        let keys = keys(Direction::ClientToServer);
        self.outbound.install(choice.to_server, &keys, self.strict)?;
        self.outbound.release(self.random.as_mut())?;
        Ok(())
    }
}
