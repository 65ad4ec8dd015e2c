//! The terminal's service: a plain TCP server that sends or takes bytes as its peer asks. No SSH
//! runs inside the session, since that would cost the machine more than the relay does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tidegate_tests::pattern::{Check, PIECE, piece};

/// What it says to everybody who comes: the first byte.
pub const GREETING: u8 = b'!';

/// Which way bytes go; seen from staff, as people say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From staff to the terminal.
    Up,
    Down,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// What staff send first: the direction, and how many bytes follow.
    pub fn order(self, bytes: u64) -> [u8; 9] {
        let mut order = [0; 9];
        order[0] = self.name().as_bytes()[0];
        order[1..].copy_from_slice(&bytes.to_be_bytes());
        order
    }

    fn ordered(order: [u8; 9]) -> Option<(Self, u64)> {
        let [kind, bytes @ ..] = order;
        let direction = Self::BOTH.into_iter().find(|it| it.name().as_bytes()[0] == kind)?;
        Some((direction, u64::from_be_bytes(bytes)))
    }
}

/// The service's end of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Before the first byte was sent or read.
    pub first: Instant,
    /// After the last one.
    pub last: Instant,
}

/// Stopped when dropped.
pub struct Service {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    served: Receiver<Result<Served, String>>,
}

impl Service {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, served) = channel();
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(socket), sender) = (socket, sender.clone()) else { continue };
                std::thread::spawn(move || serve(socket, &sender));
            }
        });
        Self { addr, stop, served }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The next transfer that it has brought to an end.
    pub fn await_served(&self, within: Duration) -> Served {
        let served = self.served.recv_timeout(within).expect("a transfer within its time");
        served.unwrap_or_else(|wrong| panic!("the terminal's service got {wrong}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept loop; connections end with their peers.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut socket: TcpStream, served: &Sender<Result<Served, String>>) {
    let _ = socket.set_nodelay(true);
    let mut order = [0; 9];
    // Whoever only looks whether there is a service goes without an order.
    if socket.write_all(&[GREETING]).is_err() || socket.read_exact(&mut order).is_err() {
        return;
    }
    let first = Instant::now();
    let moved = match Direction::ordered(order) {
        None => Err(format!("the order {order:?}")),
        Some((Direction::Up, bytes)) => take(&mut socket, bytes),
        Some((Direction::Down, bytes)) => give(&mut socket, bytes),
    };
    let _ = served.send(moved.map(|()| Served { first, last: Instant::now() }));
    // Held until the peer goes, so that nothing but the bytes is measured.
    let _ = socket.read(&mut [0]);
    let _ = socket.shutdown(Shutdown::Both);
}

/// Writes the first `bytes` bytes of the pattern.
pub fn give(to: &mut impl Write, bytes: u64) -> Result<(), String> {
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE);
        to.write_all(piece(at, length)).map_err(|error| format!("an error at {at}: {error}"))?;
        at += length as u64;
    }
    to.flush().map_err(|error| format!("an error at {at}: {error}"))
}

/// Reads as many and compares them.
pub fn take(from: &mut impl Read, bytes: u64) -> Result<(), String> {
    let mut check = Check::default();
    let mut buffer = vec![0; PIECE];
    while check.at < bytes {
        match from.read(&mut buffer) {
            Ok(0) => return Err(format!("an end at {} of {bytes}", check.at)),
            Ok(count) => check.next(&buffer[..count])?,
            Err(error) => return Err(format!("an error at {}: {error}", check.at)),
        }
    }
    if check.at == bytes { Ok(()) } else { Err(format!("{} bytes of {bytes}", check.at)) }
}
