//! Services of a terminal that note what they saw, and when.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a service saw on one of its connections.
#[derive(Clone, Debug, Default)]
pub struct Served {
    pub bytes: u64,
    pub last_byte: Option<Instant>,
    /// When the other side's end was seen, as EOF, RST or a failed write.
    pub ended: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Kind {
    Echo,
    Sink,
    Source,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    served: Mutex<Vec<Served>>,
    sockets: Mutex<Vec<TcpStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A TCP server on a loopback port, stopped when dropped.
pub struct Service {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Returns what it gets; on EOF it finishes what it has to say and closes.
pub struct Echo;
/// Takes all and says nothing.
pub struct Sink;
/// Writes for as long as somebody reads.
pub struct Source;

impl Echo {
    pub fn start() -> Service {
        Service::start(Kind::Echo)
    }
}

impl Sink {
    pub fn start() -> Service {
        Service::start(Kind::Sink)
    }
}

impl Source {
    pub fn start() -> Service {
        Service::start(Kind::Source)
    }
}

impl Service {
    fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for socket in listener.incoming() {
                    if shared.stop.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(socket) = socket else { continue };
                    let Ok(held) = socket.try_clone() else { continue };
                    lock(&shared.sockets).push(held);
                    let index = {
                        let mut served = lock(&shared.served);
                        served.push(Served::default());
                        served.len() - 1
                    };
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || serve(kind, socket, &shared, index));
                }
            }
        });
        Self { addr, shared, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Each connection so far, in the order in which they came.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.shared.served).clone()
    }

    pub fn bytes(&self) -> u64 {
        self.served().iter().map(|served| served.bytes).sum()
    }

    /// The last byte that any connection brought.
    pub fn last_byte(&self) -> Option<Instant> {
        self.served().iter().filter_map(|served| served.last_byte).max()
    }

    /// Whether connections have come and all of them have ended.
    pub fn all_ended(&self) -> bool {
        let served = self.served();
        !served.is_empty() && served.iter().all(|served| served.ended.is_some())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for socket in lock(&self.shared.sockets).drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn serve(kind: Kind, mut socket: TcpStream, shared: &Shared, index: usize) {
    let note = |change: &dyn Fn(&mut Served)| {
        if let Some(served) = lock(&shared.served).get_mut(index) {
            change(served);
        }
    };
    let mut buffer = vec![b'~'; 64 << 10];
    loop {
        let count = match kind {
            Kind::Source => match socket.write(&buffer) {
                Ok(count) => count,
                Err(_) => break,
            },
            Kind::Echo | Kind::Sink => match socket.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            },
        };
        let now = Instant::now();
        note(&|served| {
            served.bytes += count as u64;
            served.last_byte = Some(now);
        });
        if matches!(kind, Kind::Echo) && socket.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let now = Instant::now();
    note(&|served| served.ended = Some(now));
    let _ = socket.shutdown(Shutdown::Both);
}
