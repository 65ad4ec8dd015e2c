//! A client that is led by hand, on a blocking socket: its owner says what is sent and when, be it what
//! no client may send, and looks at each message that comes.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_ssh::message::number;
use tidegate_ssh::random::System;
use tidegate_ssh::wire::{Reader, Writer};

use crate::{Client, Key, Offer};

/// For an answer and for a write.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is read at once.
const READ: usize = 16 << 10;

/// How a server parted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parting {
    /// It said why.
    Told { code: u32, text: String },
    /// It closed without a word that is SSH.
    Closed,
    /// It did not close within the time.
    Stayed,
}

/// A connection and what was seen on it.
pub struct Hand {
    pub socket: TcpStream,
    pub client: Client,
    /// Messages of `client.got` that were looked at.
    seen: usize,
    /// Nothing more comes.
    over: bool,
    patience: Duration,
}

fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::ConnectionAborted, what.into())
}

impl Hand {
    /// One that has sent its version line and its KEXINIT.
    pub fn new(socket: TcpStream, offer: impl Into<Arc<Offer>>) -> Result<Self> {
        Self::of(socket, Client::with(offer, Box::new(System)))
    }

    /// One that has sent nothing.
    pub fn silent(socket: TcpStream, offer: impl Into<Arc<Offer>>) -> Result<Self> {
        Self::of(socket, Client::silent(offer))
    }

    fn of(socket: TcpStream, client: Client) -> Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, client, seen: 0, over: false, patience: PATIENCE })
    }

    /// How long [`Hand::next`] waits, in place of 20 s.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Takes what comes within this time, if anything does. An error: nothing more comes.
    pub fn turn(&mut self, within: Duration) -> Result<()> {
        let mut bytes = [0; READ];
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        match self.socket.read(&mut bytes) {
            Ok(0) => {
                self.over = true;
                Err(broken("the server has closed"))
            }
            Ok(count) => match self.client.try_receive(&bytes[..count]) {
                Ok(()) => Ok(()),
                Err(fault) => {
                    self.over = true;
                    Err(broken(fault.to_string()))
                }
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => {
                self.over = true;
                Err(error)
            }
        }
    }

    /// Sends what the client has to say.
    pub fn flush(&mut self) -> Result<()> {
        let bytes = self.client.take();
        self.socket.write_all(&bytes)
    }

    /// A message, whenever it may be sent.
    pub fn say(&mut self, message: &[u8]) -> Result<()> {
        self.client.say(message);
        self.flush()
    }

    /// A message now, whatever the state.
    pub fn force(&mut self, message: &[u8]) -> Result<()> {
        self.client.send(message);
        self.flush()
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.socket.write_all(bytes)
    }

    /// Until keys are there.
    pub fn exchange(mut self) -> Result<Self> {
        let until = Instant::now() + self.patience;
        while !self.client.is_open() {
            self.flush()?;
            if Instant::now() >= until {
                return Err(broken("no keys within the time"));
            }
            if let Err(error) = self.turn(self.patience) {
                return Err(self.why(error));
            }
        }
        self.flush()?;
        Ok(self)
    }

    /// The goodbye that came, in place of a bare error.
    fn why(&mut self, error: Error) -> Error {
        match self.goodbye() {
            Some(Parting::Told { code, text }) => broken(format!("{code}: {text}")),
            _ => error,
        }
    }

    /// Asks for the service of logins, after keys.
    pub fn service(mut self) -> Result<Self> {
        let mut message = Vec::new();
        Writer::new(&mut message).u8(number::SERVICE_REQUEST).string("ssh-userauth");
        self.say(&message)?;
        Ok(self)
    }

    /// Keys, the service and a login.
    pub fn log_in(self, user: &str, key: &Key) -> Result<Self> {
        let mut hand = self.exchange()?.service()?;
        let session = hand.client.session.unwrap_or_default();
        hand.say(&key.request(user, Some(&session), None))?;
        hand.next(&[number::USERAUTH_SUCCESS])?;
        Ok(hand)
    }

    /// The next message that is one of `kinds`; a DISCONNECT that is none of them is an error.
    pub fn next(&mut self, kinds: &[u8]) -> Result<Vec<u8>> {
        let until = Instant::now() + self.patience;
        loop {
            while let Some(message) = self.client.got.get(self.seen).cloned() {
                self.seen += 1;
                let kind = message.first().copied().unwrap_or_default();
                if kinds.contains(&kind) {
                    return Ok(message);
                }
                if kind == number::DISCONNECT {
                    self.over = true;
                    self.seen -= 1;
                    let error = broken("the server said goodbye");
                    return Err(self.why(error));
                }
            }
            if self.seen > 256 {
                self.client.got.drain(..self.seen);
                self.seen = 0;
            }
            let left = until.saturating_duration_since(Instant::now());
            if self.over || left.is_zero() {
                return Err(broken(format!("none of {kinds:?} came")));
            }
            self.flush()?;
            self.turn(left)?;
        }
    }

    fn goodbye(&self) -> Option<Parting> {
        let message = self.client.got.iter().find(|it| it.first() == Some(&number::DISCONNECT))?;
        let mut r = Reader::new(message.get(1..)?);
        let (code, text) = (r.u32().ok()?, r.text().ok()?.to_owned());
        Some(Parting::Told { code, text })
    }

    /// Reads until the server has closed, and says how it parted.
    pub fn parting(&mut self, within: Duration) -> Parting {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.over || left.is_zero() || self.turn(left).is_err() {
                let stayed = || if self.over { Parting::Closed } else { Parting::Stayed };
                return self.goodbye().unwrap_or_else(stayed);
            }
            if let Some(told) = self.goodbye() {
                return told;
            }
        }
    }

    /// Reads and drops until the server has closed: whether it has within this time.
    pub fn is_closed(&mut self, within: Duration) -> bool {
        closed(&self.socket, within)
    }
}

/// Reads and drops until the other side has closed: whether it has within this time.
pub fn closed(mut socket: &TcpStream, within: Duration) -> bool {
    let until = Instant::now() + within;
    let mut bytes = [0; READ];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let _ = socket.set_read_timeout(Some(left.max(Duration::from_millis(1))));
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}
