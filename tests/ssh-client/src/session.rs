//! A client that is logged in: requests and channels (RFC 4252, RFC 4254). It holds the server to
//! windows, packets, orders and ends; what the server must not do is a [`Fault`].

mod channel;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidegate_ssh::Random;
use tidegate_ssh::message::number;
use tidegate_ssh::wire::{Reader, Writer};

use crate::{Client, Fault, Key, Offer};
use channel::Channel;

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    LoggedIn,
    /// The key was refused.
    Denied,
    /// hostkeys-00@openssh.com: blobs.
    HostKeys(Vec<Vec<u8>>),
    /// The reply to the oldest global request that waited for one.
    Answered {
        granted: bool,
        body: Vec<u8>,
    },
    /// `forwarded-tcpip`: to be answered by [`Session::confirm`] or [`Session::refuse`].
    Asked {
        channel: u32,
        address: String,
        port: u32,
    },
    Opened {
        channel: u32,
    },
    /// The channel's number is free.
    OpenFailed {
        channel: u32,
        code: u32,
        text: String,
    },
    /// It counts as waiting until [`Session::consumed`].
    Data {
        channel: u32,
        bytes: Vec<u8>,
    },
    /// Likewise; 1 is standard error.
    Extended {
        channel: u32,
        kind: u32,
        bytes: Vec<u8>,
    },
    Eof {
        channel: u32,
    },
    ExitStatus {
        channel: u32,
        status: u32,
    },
    /// The reply to the oldest request on the channel that waited for one.
    Reply {
        channel: u32,
        success: bool,
    },
    /// Both have closed it; the number is free.
    Closed {
        channel: u32,
    },
    Pong(Vec<u8>),
    Unimplemented {
        sequence: u32,
    },
    Ended {
        code: u32,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Keys,
    Service,
    Auth,
    Within,
    Over,
}

/// A connection, client role.
pub struct Session {
    /// For what a client must not do.
    pub client: Client,
    user: Box<str>,
    key: Key,
    phase: Phase,
    /// What the server says that it has (RFC 8308).
    hostbound: bool,
    pings: bool,
    channels: BTreeMap<u32, Channel>,
    /// Numbers that were used and are free.
    free: Vec<u32>,
    /// Global requests and PINGs that wait.
    unanswered: u32,
    /// The window and the packet that new channels give.
    pub gives: (u32, u32),
}

impl Session {
    pub fn new(
        offer: impl Into<Arc<Offer>>,
        random: Box<dyn Random + Send>,
        user: &str,
        key: Key,
    ) -> Self {
        Self {
            client: Client::with(offer, random),
            user: user.into(),
            key,
            phase: Phase::Keys,
            hostbound: false,
            pings: false,
            channels: BTreeMap::new(),
            free: Vec::new(),
            unanswered: 0,
            gives: (256 << 10, 32 << 10),
        }
    }

    /// Bytes for the server.
    pub fn take(&mut self) -> Vec<u8> {
        self.pump();
        self.client.take()
    }

    /// Bytes of the server; what they say is put behind `events`.
    pub fn receive(&mut self, bytes: &[u8], events: &mut VecDeque<Event>) -> Result<(), Fault> {
        self.client.try_receive(bytes)?;
        if self.phase == Phase::Keys && self.client.session.is_some() {
            self.phase = Phase::Service;
            self.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth"));
        }
        for message in std::mem::take(&mut self.client.got) {
            if self.phase == Phase::Over {
                return Err(Fault::new("the server went on after its DISCONNECT"));
            }
            if let Some(event) = self.handle(&message)? {
                events.push_back(event);
            }
        }
        Ok(())
    }

    fn say(&mut self, build: impl for<'a, 'b> FnOnce(&'a mut Writer<'b>) -> &'a mut Writer<'b>) {
        let mut message = Vec::new();
        build(&mut Writer::new(&mut message));
        self.client.say(&message);
    }

    fn handle(&mut self, message: &[u8]) -> Result<Option<Event>, Fault> {
        let mut r = Reader::new(message);
        let kind = r.u8()?;
        match (self.phase, kind) {
            (_, number::DISCONNECT) => {
                let (code, text) = (r.u32()?, r.text()?.to_owned());
                r.string()?;
                r.end()?;
                self.phase = Phase::Over;
                Ok(Some(Event::Ended { code, text }))
            }
            (_, number::IGNORE | number::DEBUG) => Ok(None),
            (_, number::UNIMPLEMENTED) => Ok(Some(Event::Unimplemented { sequence: r.u32()? })),
            (Phase::Service, number::EXT_INFO) => self.ext_info(r).map(|()| None),
            (Phase::Service, number::SERVICE_ACCEPT) => {
                if r.string()? != b"ssh-userauth" {
                    return Err(Fault::new("another service than ssh-userauth was accepted"));
                }
                r.end()?;
                self.phase = Phase::Auth;
                self.log_in();
                Ok(None)
            }
            (Phase::Auth, number::USERAUTH_FAILURE) => Ok(Some(Event::Denied)),
            (Phase::Auth, number::USERAUTH_SUCCESS) => {
                r.end()?;
                self.phase = Phase::Within;
                Ok(Some(Event::LoggedIn))
            }
            (Phase::Within, number::GLOBAL_REQUEST) => self.global_request(r),
            (Phase::Within, number::REQUEST_SUCCESS | number::REQUEST_FAILURE) => {
                self.answered()?;
                let (granted, body) = (kind == number::REQUEST_SUCCESS, r.rest().to_vec());
                Ok(Some(Event::Answered { granted, body }))
            }
            (Phase::Within, number::PONG) => {
                self.answered()?;
                let data = r.string()?.to_vec();
                r.end()?;
                Ok(Some(Event::Pong(data)))
            }
            (Phase::Within, number::CHANNEL_OPEN) => self.asked(r),
            (Phase::Within, 91..=100) => self.channel_message(kind, r),
            (phase, kind) => Err(Fault::new(format!("message {kind} came in {phase:?}"))),
        }
    }

    /// RFC 8308 section 2.3.
    fn ext_info(&mut self, mut r: Reader<'_>) -> Result<(), Fault> {
        for _ in 0..r.u32()? {
            let (name, value) = (r.string()?, r.string()?);
            self.hostbound |= name == b"publickey-hostbound@openssh.com" && value == b"0";
            self.pings |= name == b"ping@openssh.com" && value == b"0";
        }
        r.end()?;
        Ok(())
    }

    /// Signs, bound to the host key where the server has that.
    fn log_in(&mut self) {
        let bound = self.hostbound.then_some(self.client.host_key.as_slice());
        let session = self.client.session.unwrap_or_default();
        let request = self.key.request(&self.user, Some(&session), bound);
        self.client.say(&request);
    }

    fn answered(&mut self) -> Result<(), Fault> {
        let less = self.unanswered.checked_sub(1);
        self.unanswered = less.ok_or_else(|| Fault::new("an answer came that nobody waits for"))?;
        Ok(())
    }

    fn global_request(&mut self, mut r: Reader<'_>) -> Result<Option<Event>, Fault> {
        let (name, wants_reply) = (r.string()?, r.bool()?);
        if wants_reply {
            self.say(|w| w.u8(number::REQUEST_FAILURE));
        }
        if name != b"hostkeys-00@openssh.com" {
            return Ok(None);
        }
        let mut keys = Vec::new();
        while !r.is_empty() {
            keys.push(r.string()?.to_vec());
        }
        Ok(Some(Event::HostKeys(keys)))
    }

    /// Whether it has logged in, and neither side has said goodbye.
    pub fn is_within(&self) -> bool {
        self.phase == Phase::Within
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// A global request; what `body` has is appended.
    pub fn ask(&mut self, name: &str, wants_reply: bool, body: &[u8]) {
        self.unanswered += u32::from(wants_reply);
        self.say(|w| w.u8(number::GLOBAL_REQUEST).string(name).bool(wants_reply).bytes(body));
    }

    /// `tcpip-forward`, as `ssh -R` sends it; port 0 leaves it to the server.
    pub fn forward(&mut self, address: &str, port: u32) {
        let mut body = Vec::new();
        Writer::new(&mut body).string(address).u32(port);
        self.ask("tcpip-forward", true, &body);
    }

    /// PING; false if the server has none.
    pub fn ping(&mut self, data: &[u8]) -> bool {
        if self.pings {
            self.unanswered += 1;
            self.say(|w| w.u8(number::PING).string(data));
        }
        self.pings
    }

    /// Asks for new keys.
    pub fn rekey(&mut self) {
        if self.client.is_open() {
            self.client.begin();
        }
    }

    /// Says goodbye; nothing is sent any more.
    pub fn disconnect(&mut self, text: &str) {
        let mut message = Vec::new();
        Writer::new(&mut message).u8(number::DISCONNECT).u32(11).string(text).string("");
        self.client.send(&message);
        self.phase = Phase::Over;
    }
}
