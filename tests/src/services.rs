//! Services of a terminal that note what they saw, and when.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::listener::{Listener, Open, lock};

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

type All = Mutex<Vec<Served>>;

/// A TCP server on a loopback port, stopped when dropped.
pub struct Service {
    listener: Listener,
    all: Arc<All>,
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
        let (open, all) = (Arc::new(Open::default()), Arc::new(All::default()));
        let listener = Listener::start(Arc::clone(&open), {
            let all = Arc::clone(&all);
            move |socket| {
                let Ok(held) = socket.try_clone() else { return };
                let held = open.hold(held);
                let index = {
                    let mut served = lock(&all);
                    served.push(Served::default());
                    served.len() - 1
                };
                let (all, open) = (Arc::clone(&all), Arc::clone(&open));
                std::thread::spawn(move || {
                    serve(kind, socket, &all, index);
                    open.let_go(held);
                });
            }
        });
        Self { listener, all }
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Each connection so far, in the order in which they came.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.all).clone()
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

fn serve(kind: Kind, mut socket: TcpStream, all: &All, index: usize) {
    let note = |change: &dyn Fn(&mut Served)| {
        if let Some(served) = lock(all).get_mut(index) {
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
