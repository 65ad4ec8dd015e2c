//! The sessions beside an attack: one that moves 10 MB/s and compares each byte, and one that echoes
//! and times it. Each is a login of its own, on a thread of its own.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_ssh_client::{Event, Key, Offer, Session};
use tidegate_tests::pattern::Check;
use tidegate_tests::{SOON, eventually};

use crate::feed::Feed;

/// Between an echo and the next byte.
const BEAT: Duration = Duration::from_millis(2);
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A channel of a login user's, on a blocking socket.
struct Channel {
    socket: TcpStream,
    session: Session,
    events: VecDeque<Event>,
    number: u32,
}

impl Channel {
    fn open(relay: SocketAddr, login: &str, key: Key, port: u32) -> Self {
        let socket = TcpStream::connect(relay).expect("a connection");
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let random = Box::new(tidegate_ssh_client::System);
        let mut session = Session::new(Offer::default(), random, login, key);
        session.gives = (2 << 20, 32 << 10);
        let mut channel = Self { socket, session, events: VecDeque::new(), number: 0 };
        while !channel.session.is_within() {
            channel.turn();
        }
        channel.number = channel.session.open_direct("kiosk-17", port);
        loop {
            match channel.events.pop_front() {
                Some(Event::Opened { .. }) => return channel,
                Some(Event::OpenFailed { text, .. }) => panic!("{login} was refused: {text}"),
                Some(Event::Ended { text, .. }) => panic!("{login} was sent away: {text}"),
                Some(_) => {}
                None => channel.turn(),
            }
        }
    }

    fn flush(&mut self) {
        loop {
            let bytes = self.session.take();
            if bytes.is_empty() {
                return;
            }
            self.socket.write_all(&bytes).expect("the session beside takes no more");
        }
    }

    /// Sends what waits and takes what comes next.
    fn turn(&mut self) {
        self.flush();
        let mut bytes = [0; 16 << 10];
        match self.socket.read(&mut bytes) {
            Ok(0) => panic!("the session beside was closed"),
            Ok(count) => {
                let taken = self.session.receive(&bytes[..count], &mut self.events);
                taken.unwrap_or_else(|fault| panic!("the session beside: {fault}"));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("the session beside: {error}"),
        }
    }

    /// The next data; `None`: its end.
    fn data(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.events.pop_front() {
                Some(Event::Data { channel, bytes }) => {
                    let count = u32::try_from(bytes.len()).expect("a packet");
                    self.session.consumed(channel, count);
                    return Some(bytes);
                }
                Some(Event::Eof { .. }) => return None,
                Some(Event::Closed { .. }) => panic!("the channel beside was closed"),
                Some(Event::Ended { text, .. }) => panic!("the session beside was cut: {text}"),
                Some(_) => {}
                None => self.turn(),
            }
        }
    }
}

/// What the two have seen so far.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    moved: AtomicU64,
    echoes: Mutex<Vec<Duration>>,
}

/// Both sessions, until they are finished.
pub struct Beside {
    shared: Arc<Shared>,
    feed: Feed,
    mover: JoinHandle<u64>,
    echo: JoinHandle<()>,
}

impl Beside {
    /// `ports`: of kiosk-17's services that feed and that echo.
    pub fn start(relay: SocketAddr, key: &Key, feed: Feed, ports: [u32; 2]) -> Self {
        let shared = Arc::new(Shared::default());
        let mover = {
            let (shared, key) = (Arc::clone(&shared), key.clone());
            let mut channel = Channel::open(relay, "alice", key, ports[0]);
            std::thread::spawn(move || {
                let mut check = Check::default();
                while let Some(bytes) = channel.data() {
                    check.next(&bytes).unwrap_or_else(|wrong| panic!("{wrong}"));
                    shared.moved.store(check.at, Ordering::Release);
                }
                check.at
            })
        };
        let echo = {
            let (shared, key) = (Arc::clone(&shared), key.clone());
            let mut channel = Channel::open(relay, "alice", key, ports[1]);
            std::thread::spawn(move || {
                let mut next = 0_u8;
                while !shared.stop.load(Ordering::Acquire) {
                    next = next.wrapping_add(1);
                    let sent = Instant::now();
                    channel.session.send(channel.number, &[next]);
                    assert_eq!(channel.data().as_deref(), Some(&[next][..]), "another echo");
                    lock(&shared.echoes).push(sent.elapsed());
                    std::thread::sleep(BEAT);
                }
            })
        };
        Self { shared, feed, mover, echo }
    }

    /// Bytes that were moved so far.
    pub fn moved(&self) -> u64 {
        self.shared.moved.load(Ordering::Acquire)
    }

    /// The echoes since this was last called.
    pub fn echoes(&self) -> Vec<Duration> {
        std::mem::take(&mut *lock(&self.shared.echoes))
    }

    /// Whether both go on.
    pub fn lives(&self) -> bool {
        !self.mover.is_finished() && !self.echo.is_finished()
    }

    /// Ends both: not a byte was lost. The bytes that were moved.
    pub fn finish(mut self) -> u64 {
        assert!(self.lives(), "a session beside has ended");
        self.shared.stop.store(true, Ordering::Release);
        self.echo.join().expect("the echo beside");
        let written = self.feed.end();
        eventually("the feed's end", SOON, || self.mover.is_finished());
        let moved = self.mover.join().expect("the transfer beside");
        assert_eq!(moved, written, "bytes that were moved, and that were written");
        moved
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The echo that 99 % are not slower than.
pub fn p99(mut echoes: Vec<Duration>) -> Duration {
    echoes.sort();
    let at = echoes.len() * 99 / 100;
    echoes.get(at.min(echoes.len().saturating_sub(1))).copied().unwrap_or_default()
}
