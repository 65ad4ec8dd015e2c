//! A long line on one machine: a TCP proxy on a loopback port that hands on each byte half a round
//! trip after it came, in each direction. Neither loses nor limits: what a sender has under way is
//! bounded by its own window, and by [`IN_FLIGHT`].
//!
//! What it does not show: TCP at both ends sees a loopback, so there is no slow start and no loss.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes under way in one direction of one connection, beyond which the sender has to wait: a
/// second's worth at the 100 MB/s that a path of 200 ms is to carry, and more.
const IN_FLIGHT: usize = 128 << 20;
/// Taken from the socket at once.
const PIECE: usize = 256 << 10;

/// The proxy, ended with all of its connections when dropped.
pub struct DelayLine {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Held by their threads alone: a socket is closed with the last of them.
    sockets: Arc<Mutex<Vec<Weak<TcpStream>>>>,
    thread: Option<JoinHandle<()>>,
}

impl DelayLine {
    /// Listens on a free loopback port in front of `to`.
    pub fn start(to: SocketAddr, round_trip: Duration) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), to, round_trip)
    }

    /// The same on an address of the caller's choice.
    pub fn listen(at: SocketAddr, to: SocketAddr, round_trip: Duration) -> Self {
        let listener = TcpListener::bind(at).expect("a port to listen on");
        let addr = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let sockets: Arc<Mutex<Vec<Weak<TcpStream>>>> = Arc::default();
        let thread = std::thread::spawn({
            let (stop, sockets) = (Arc::clone(&stop), Arc::clone(&sockets));
            move || {
                for near in listener.incoming() {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(near) = near else { continue };
                    let Ok(far) = TcpStream::connect(to) else { continue };
                    let (near, far) = (Arc::new(near), Arc::new(far));
                    sockets
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend([&near, &far].map(Arc::downgrade));
                    for (from, to) in [(&near, &far), (&far, &near)] {
                        let _ = from.set_nodelay(true);
                        carry(Arc::clone(from), Arc::clone(to), round_trip / 2);
                    }
                }
            }
        });
        Self { addr, stop, sockets, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for socket in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(socket) = socket.upgrade() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

/// What is under way in one direction.
#[derive(Default)]
struct Line {
    /// Each piece and when it arrives; an empty one is the end.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// The receiver takes no more.
    broken: bool,
}

/// Starts one direction.
fn carry(from: Arc<TcpStream>, to: Arc<TcpStream>, delay: Duration) {
    let line: Arc<(Mutex<Line>, Condvar)> = Arc::default();
    let far_end = Arc::clone(&line);
    std::thread::spawn(move || {
        let (line, changed) = &*line;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = (&*from).read(&mut buffer).unwrap_or(0);
            let piece = buffer[..count].to_vec();
            let mut held = line.lock().unwrap_or_else(PoisonError::into_inner);
            held = changed
                .wait_while(held, |line| line.bytes >= IN_FLIGHT && !line.broken)
                .unwrap_or_else(PoisonError::into_inner);
            held.bytes += count;
            held.pieces.push_back((Instant::now() + delay, piece));
            changed.notify_all();
            if count == 0 || held.broken {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let (line, changed) = &*far_end;
        loop {
            let held = line.lock().unwrap_or_else(PoisonError::into_inner);
            let mut held = changed
                .wait_while(held, |line| line.pieces.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let Some((due, piece)) = held.pieces.pop_front() else { continue };
            drop(held);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = !piece.is_empty() && (&*to).write_all(&piece).is_ok();
            let mut held = line.lock().unwrap_or_else(PoisonError::into_inner);
            held.bytes -= piece.len();
            held.broken = !sent;
            changed.notify_all();
            if !sent {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{Echo, Sink, Source};

    const ROUND_TRIP: Duration = Duration::from_millis(80);

    fn connect(line: &DelayLine) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", line.port())).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        socket
    }

    #[test]
    fn an_answer_takes_a_round_trip_and_every_byte_arrives_in_order() {
        let echo = Echo::start();
        let line = DelayLine::start(([127, 0, 0, 1], echo.port()).into(), ROUND_TRIP);
        let mut socket = connect(&line);
        for _ in 0..3 {
            let begun = Instant::now();
            socket.write_all(b"ping").expect("a write");
            socket.read_exact(&mut [0; 4]).expect("an answer");
            let took = begun.elapsed();
            assert!(took >= ROUND_TRIP && took < ROUND_TRIP * 4, "{took:?}");
        }
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut writer = socket.try_clone().expect("a socket");
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).expect("a write");
            writer.shutdown(Shutdown::Write).expect("an end");
        });
        let mut told = Vec::new();
        socket.read_to_end(&mut told).expect("an answer and its end");
        writing.join().expect("the writer");
        assert!(told == sent, "{} bytes came back of {}", told.len(), sent.len());
    }

    #[test]
    fn many_bytes_are_under_way_at_once() {
        let sink = Sink::start();
        let line = DelayLine::start(([127, 0, 0, 1], sink.port()).into(), Duration::from_secs(2));
        let mut socket = connect(&line);
        let begun = Instant::now();
        for _ in 0..20 {
            socket.write_all(&vec![0; 1 << 20]).expect("a write");
        }
        // 20 MiB are taken before the first of them has arrived.
        assert_eq!(sink.bytes(), 0);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        crate::eventually("all of it", crate::SOON, || sink.bytes() == 20 << 20);
    }

    #[test]
    fn a_reader_that_goes_ends_the_sender() {
        let source = Source::start();
        let line = DelayLine::start(([127, 0, 0, 1], source.port()).into(), ROUND_TRIP);
        let mut socket = connect(&line);
        socket.read_exact(&mut [0; 1000]).expect("bytes");
        drop(socket);
        crate::eventually("the source's end", crate::SOON, || source.all_ended());
    }
}
