//! A connection from its first byte to where SSH begins: which layers it has, who is behind a proxy,
//! and what those are told who are not served.
//!
//! | state | by [`crate::sniff`], or else | then |
//! |---|---|---|
//! | proxy, where a header is required | a PROXY header | first; a health check: closed without a word; else refused |
//! | first | `SSH-` | SSH |
//! | | TLS | before TLS |
//! | | HTTP | head |
//! | | PROXY | refused: a second header, or one from outside of the declared ranges |
//! | | anything else | one line |
//! | before TLS | | in TLS, or turned away: a handshake costs a signature, so that the driver is asked |
//! | in TLS | `SSH-` | SSH |
//! | | HTTP | head |
//! | | anything else, TLS and PROXY, too | one line |
//! | head | a request | 101: in WebSocket; else one answer ([`crate::http`]) |
//! | in WebSocket | `SSH-` | SSH |
//! | | anything else | closed with 1008 |
//!
//! Invariant 8: what is kept is a PROXY header, an HTTP head or one read, and what [`crate::tls`] keeps.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::layer::HEADROOM;
use crate::sniff::{self, Kind, sniff};
use crate::stack::Stack;
use crate::tls::{self, Tls};
use crate::{Fault, http, proxy};

/// What a peer is told that speaks nothing known.
const NOT_SSH: &str =
    "This is a Tidegate relay; it speaks SSH on this port, and what you sent is not SSH.";

/// A TLS alert, handshake_failure (RFC 8446 section 6), as a record without protection.
const NO_TLS: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// The same of access_denied, which clients show as "access denied": TLS has no words before its handshake.
const TURNED_AWAY: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What a listener offers to a peer from where it comes.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// `None`: TLS is refused.
    pub tls: Option<Arc<tls::Config>>,
    /// The peer is in a declared range, and has to send a PROXY header; anyone else must not.
    pub proxy: bool,
}

/// What to do after some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more.
    More,
    /// TLS is about to begin, and nothing costly was done for it: [`Arrival::begin_tls`] or
    /// [`Arrival::turn_away`].
    Tls,
    /// SSH begins: [`Arrival::finish`].
    Ssh,
    /// Write what [`Stack::output`] has, then close. Nothing more is to be read, but for throwing it
    /// away: bytes that nobody read would turn the close into a reset that may overtake the last word.
    Closed(Closed),
}

/// Why a connection never came to SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The proxy looked whether somebody is there.
    HealthCheck,
    /// The peer said goodbye by TLS or WebSocket.
    Peer,
    /// It got an answer in HTTP, which is not a fault where the page was asked for.
    Answered(Fault),
    /// It spoke something that is not served, or something that is served badly.
    Refused(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Proxy,
    First,
    BeforeTls,
    InTls,
    Head,
    InWebSocket,
    Done,
}

/// Who is behind a proxy, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A connection that has not come to SSH yet.
#[derive(Debug)]
pub struct Arrival {
    offer: Offer,
    state: State,
    /// What came and belongs to nobody yet.
    seen: Vec<u8>,
    /// How far a head of HTTP in it was looked at.
    head: http::Scan,
    stack: Stack,
    proxied: Option<Proxied>,
    /// It got our banner already, so that it can only speak SSH.
    greeted: bool,
}

impl Arrival {
    pub fn new(offer: Offer) -> Self {
        let state = if offer.proxy { State::Proxy } else { State::First };
        Self {
            offer,
            state,
            seen: Vec::new(),
            head: http::Scan::default(),
            stack: Stack::default(),
            proxied: None,
            greeted: false,
        }
    }

    /// Takes bytes from the socket, some KiB at once at most, since they are kept where SSH begins in
    /// them. Whatever it says, [`Stack::output`] may have something to write.
    pub fn receive(&mut self, raw: &[u8]) -> Step {
        if self.state == State::Done {
            return Step::More;
        }
        let step = self.pass(raw).and_then(|()| self.look());
        self.settle(step)
    }

    /// After [`Step::Tls`]: goes on with what has come.
    pub fn begin_tls(&mut self) -> Step {
        if self.state != State::BeforeTls {
            return Step::More;
        }
        let step = self.tls().and_then(|()| self.look());
        self.settle(step)
    }

    /// After [`Step::Tls`]: the peer is told that it is not served now, as far as TLS can.
    pub fn turn_away(&mut self, why: &'static str) -> Step {
        let _ = self.stack.send(&TURNED_AWAY);
        self.settle(Err(Closed::Refused(Fault::new(why))))
    }

    fn settle(&mut self, step: Result<Step, Closed>) -> Step {
        match step {
            Ok(step) => step,
            Err(closed) => {
                self.state = State::Done;
                self.seen = Vec::new();
                match &closed {
                    Closed::Refused(fault) => self.stack.close_with(Some(fault)),
                    _ => self.stack.close(),
                }
                Step::Closed(closed)
            }
        }
    }

    /// Takes bytes through the layers that there are.
    fn pass(&mut self, raw: &[u8]) -> Result<(), Closed> {
        if self.stack.transport() == crate::stack::Transport::Plain {
            self.seen.extend_from_slice(raw);
            return Ok(());
        }
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(raw);
        let all = buffer.len();
        let got = self.stack.receive(&mut buffer, HEADROOM..all).map_err(Closed::Refused)?;
        self.seen.extend_from_slice(buffer.get(..got.plain).unwrap_or_default());
        // What came before a goodbye can be nothing that lasts.
        if got.ended { Err(Closed::Peer) } else { Ok(()) }
    }

    fn look(&mut self) -> Result<Step, Closed> {
        loop {
            match self.state {
                State::Proxy => match proxy::read(&self.seen) {
                    proxy::Read::NeedMore => return Ok(Step::More),
                    proxy::Read::Header { source, destination, consumed } => {
                        self.seen.drain(..consumed);
                        self.proxied = Some(Proxied { source, destination });
                        self.state = State::First;
                    }
                    proxy::Read::HealthCheck { .. } => return Err(Closed::HealthCheck),
                    proxy::Read::Refused(fault) => return Err(self.refuse(fault)),
                },
                State::First | State::InTls => match sniff(&self.seen) {
                    None => return Ok(Step::More),
                    Some(Kind::Ssh) => return Ok(self.ssh()),
                    Some(Kind::Proxy) => return Err(self.second_header()),
                    Some(Kind::Tls) if !self.greeted => self.before_tls()?,
                    Some(Kind::Http) if !self.greeted => self.state = State::Head,
                    Some(_) => return Err(self.not_ssh()),
                },
                State::BeforeTls => return Ok(Step::Tls),
                State::Head => match self.head.read(&self.seen) {
                    http::Head::NeedMore => return Ok(Step::More),
                    http::Head::Whole { request, consumed } => {
                        self.seen.drain(..consumed);
                        self.answer(&Ok(request))?;
                    }
                    http::Head::Refused(refusal) => self.answer(&Err(refusal))?,
                },
                State::InWebSocket => match sniff(&self.seen) {
                    None => return Ok(Step::More),
                    Some(Kind::Ssh) => return Ok(self.ssh()),
                    Some(_) => {
                        let sentence = "what the peer sends inside the WebSocket is not SSH";
                        return Err(Closed::Refused(Fault::new(sentence)));
                    }
                },
                State::Done => return Ok(Step::More),
            }
        }
    }

    fn ssh(&mut self) -> Step {
        self.state = State::Done;
        Step::Ssh
    }

    /// One line, where lines are read.
    fn say(&mut self, line: &str) {
        // It is short, and in front of it there are a few KiB at most.
        let _ = self.stack.send(line.as_bytes());
        let _ = self.stack.send(b"\r\n");
    }

    fn refuse(&mut self, fault: Fault) -> Closed {
        self.say(&format!("This is a Tidegate relay: {fault}."));
        Closed::Refused(fault)
    }

    fn not_ssh(&mut self) -> Closed {
        self.say(NOT_SSH);
        Closed::Refused(Fault::new("the peer speaks neither SSH, TLS nor HTTP"))
    }

    fn second_header(&mut self) -> Closed {
        self.refuse(Fault::new(if self.proxied.is_some() {
            "a second PROXY protocol header follows the first; let one proxy alone send one"
        } else if self.state == State::InTls {
            "a PROXY protocol header comes inside TLS, where none is read; let the proxy send it first"
        } else {
            "a PROXY protocol header comes from outside of the declared source ranges; declare the \
             proxy's range, or let it send none"
        }))
    }

    fn before_tls(&mut self) -> Result<(), Closed> {
        if self.state == State::InTls {
            let sentence = "the peer speaks TLS inside TLS; connect with one of them";
            return Err(self.refuse(Fault::new(sentence)));
        }
        if self.offer.tls.is_none() {
            return Err(self.no_tls());
        }
        self.state = State::BeforeTls;
        Ok(())
    }

    fn no_tls(&mut self) -> Closed {
        let _ = self.stack.send(&NO_TLS);
        Closed::Refused(Fault::new("the peer speaks TLS, which this relay has not"))
    }

    fn tls(&mut self) -> Result<(), Closed> {
        let Some(config) = self.offer.tls.take() else { return Err(self.no_tls()) };
        self.stack.tls = Some(Box::new(Tls::new(config).map_err(Closed::Refused)?));
        self.state = State::InTls;
        let raw = std::mem::take(&mut self.seen);
        self.pass(&raw)
    }

    fn answer(&mut self, request: &Result<http::Request, http::Refusal>) -> Result<(), Closed> {
        let answer = http::answer(request);
        self.stack.send(&answer.bytes).map_err(Closed::Refused)?;
        answer.then.map_err(Closed::Answered)?;
        self.state = State::InWebSocket;
        let got = self.stack.upgrade(&mut self.seen).map_err(Closed::Refused)?;
        if got.ended { Err(Closed::Peer) } else { Ok(()) }
    }

    /// Whether the peer may be waiting for our banner: it said nothing of SSH's, or the beginning of it,
    /// where SSH may begin. The caller knows how long it has been silent.
    pub fn may_greet(&self) -> bool {
        let open = match (self.state, &self.stack.tls) {
            (State::InTls, Some(tls)) => !tls.is_handshaking(),
            (State::First | State::InWebSocket, _) => true,
            _ => false,
        };
        open && !self.greeted && sniff::may_wait_for_banner(&self.seen)
    }

    /// Our banner goes out by [`Stack::send`]; from now on the peer can speak SSH alone.
    pub fn greet(&mut self) {
        self.greeted = true;
    }

    /// Who is behind the proxy, once its header was read.
    pub fn proxied(&self) -> Option<Proxied> {
        self.proxied
    }

    /// The layers that there are so far.
    pub fn stack(&mut self) -> &mut Stack {
        &mut self.stack
    }

    /// The layers, and the first bytes of SSH.
    pub fn finish(self) -> (Stack, Vec<u8>) {
        (self.stack, self.seen)
    }
}
