//! A relay's end and a client's end of one connection, without a network.

use crate::arrival::{Arrival, Closed, Offer, Step};
use crate::layer::{HEADROOM, Layer as _};
use crate::stack::Stack;
use crate::websocket::client::{Client as WebSocket, Handshake, Random};

/// The relay's end.
pub enum Relay {
    Arriving(Box<Arrival>),
    Ssh(Box<Stack>),
    Closed(Closed),
}

pub struct End {
    pub relay: Relay,
    /// What SSH has read.
    pub plain: Vec<u8>,
    pub written: Vec<u8>,
    /// The peer's goodbye came.
    pub ended: bool,
}

impl End {
    pub fn new(offer: Offer) -> Self {
        Self {
            relay: Relay::Arriving(Box::new(Arrival::new(offer))),
            plain: Vec::new(),
            written: Vec::new(),
            ended: false,
        }
    }

    pub fn receive(&mut self, raw: &[u8]) {
        match &mut self.relay {
            Relay::Arriving(arrival) => {
                let mut step = arrival.receive(raw);
                if step == Step::Tls {
                    step = arrival.begin_tls();
                }
                self.take();
                let Relay::Arriving(arrival) = &mut self.relay else { unreachable!() };
                match step {
                    Step::More | Step::Tls => {}
                    Step::Ssh => {
                        let arrival =
                            std::mem::replace(&mut **arrival, Arrival::new(Offer::default()));
                        let (stack, first) = arrival.finish();
                        self.plain = first;
                        self.relay = Relay::Ssh(Box::new(stack));
                    }
                    Step::Closed(closed) => self.relay = Relay::Closed(closed),
                }
            }
            Relay::Ssh(stack) => {
                let mut buffer = [&vec![0; HEADROOM], raw].concat();
                let all = buffer.len();
                let got = stack.receive(&mut buffer, HEADROOM..all).unwrap();
                self.plain.extend_from_slice(&buffer[..got.plain]);
                self.ended |= got.ended;
                self.take();
            }
            Relay::Closed(_) => {}
        }
    }

    pub fn stack(&mut self) -> &mut Stack {
        match &mut self.relay {
            Relay::Arriving(arrival) => arrival.stack(),
            Relay::Ssh(stack) => stack,
            Relay::Closed(closed) => panic!("{closed:?}"),
        }
    }

    /// As a socket that takes everything.
    pub fn take(&mut self) {
        let output = self.stack().output();
        let bytes = output.as_slice().to_vec();
        output.consume(bytes.len());
        self.written.extend(bytes);
    }

    pub fn closed(&self) -> &Closed {
        match &self.relay {
            Relay::Closed(closed) => closed,
            _ => panic!("it is open"),
        }
    }
}

fn random() -> Random {
    let mut state = 1_u8;
    Box::new(move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(29).wrapping_add(7);
            *byte = state;
        }
    })
}

/// A client's WebSocket over bytes.
pub struct Framed {
    handshake: Handshake,
    websocket: Option<WebSocket>,
    seen: Vec<u8>,
    pub out: Vec<u8>,
    pub plain: Vec<u8>,
}

impl Framed {
    pub fn new() -> Self {
        let handshake = Handshake::new("relay.example.com", *b"sixteen bytes...");
        let out = handshake.request.clone();
        Self { handshake, websocket: None, seen: Vec::new(), out, plain: Vec::new() }
    }

    pub fn send(&mut self, plain: &[u8]) {
        self.websocket.as_mut().expect("101 has come").send(plain, &mut self.out).unwrap();
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.seen.extend_from_slice(bytes);
        if self.websocket.is_none() {
            let Some(at) = self.handshake.read(&self.seen).unwrap() else { return };
            self.seen.drain(..at);
            self.websocket = Some(WebSocket::new(random()));
        }
        let mut raw = std::mem::take(&mut self.seen);
        let all = raw.len();
        let websocket = self.websocket.as_mut().unwrap();
        let got = websocket.receive(&mut raw, 0..all, &mut self.out).unwrap();
        self.plain.extend_from_slice(&raw[..got.plain]);
    }

    pub fn is_open(&self) -> bool {
        self.websocket.is_some()
    }
}
