//! A client of SSH that says what a test wants, when it wants it, from whichever loopback address.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use tidegate_ssh_client::{Client, Key, Offer};

use crate::gate::Gate;

pub const DISCONNECT: u8 = 1;
pub const AUTH_FAILURE: u8 = 51;
pub const AUTH_SUCCESS: u8 = 52;
pub const AUTH_PK_OK: u8 = 60;
pub const OPEN_CONFIRMATION: u8 = 91;
pub const OPEN_FAILURE: u8 = 92;

/// A connection from a chosen loopback address.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0)).expect("a loopback address");
    connect(&socket, &to).expect("a connection");
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket
}

/// A client that drives `tidegate_ssh_client` by hand.
pub struct Hand {
    socket: TcpStream,
    pub client: Client,
    seen: usize,
    pub over: bool,
}

impl Hand {
    /// Through the first key exchange, or until it is over.
    pub fn new(source: Ipv4Addr, gate: &Gate) -> Self {
        Self::on(connect_from(source, gate.addr()))
    }

    /// The same on a socket on which SSH is to begin.
    pub fn on(socket: TcpStream) -> Self {
        let client = Client::new(Offer::default());
        let mut hand = Self { socket, client, seen: 0, over: false };
        while !hand.client.is_open() && !hand.over {
            hand.turn();
        }
        // SERVICE_REQUEST (RFC 4253 section 10).
        hand.client.say(b"\x05\0\0\0\x0cssh-userauth");
        hand
    }

    /// Sends what waits, and takes what comes next.
    pub fn turn(&mut self) {
        self.flush();
        let mut bytes = vec![0; 64 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(count) if count > 0 => self.client.receive(&bytes[..count]),
            _ => self.over = true,
        }
    }

    pub fn flush(&mut self) {
        let bytes = self.client.take();
        self.over |= self.socket.write_all(&bytes).is_err();
    }

    /// The next message that is one of `kinds`; `None` once the connection is over.
    pub fn next(&mut self, kinds: &[u8]) -> Option<Vec<u8>> {
        loop {
            while let Some(message) = self.client.got.get(self.seen).cloned() {
                self.seen += 1;
                if kinds.contains(&message[0]) {
                    return Some(message);
                }
            }
            if self.over {
                return None;
            }
            self.turn();
        }
    }

    #[must_use]
    pub fn login(mut self, user: &str, key: &Key) -> Self {
        let session = self.client.session.expect("a session");
        self.client.say(&key.request(user, Some(&session), None));
        self.next(&[AUTH_SUCCESS]).expect("a login");
        self
    }
}
