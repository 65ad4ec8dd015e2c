//! A terminal's service that writes the pattern at a steady pace, and counts what it wrote.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_tests::pattern::{PIECE, piece};

/// Bytes a second.
pub const PACE: u64 = 10_000_000;
/// Between two writes.
const BEAT: Duration = Duration::from_millis(10);
/// The most that it makes good after it was held up, in bytes: a tenth of a second's.
const BEHIND: u64 = PACE / 10;

/// Serves one peer; stopped when dropped.
pub struct Feed {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Feed {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (socket, _) = listener.accept().expect("a connection");
                serve(socket, &stop)
            }
        });
        Self { addr, stop, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Ends what it says, in good order; the bytes that it has written in all.
    pub fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take();
        thread.map(|thread| thread.join().expect("the feed")).unwrap_or_default()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes it where nobody came.
        let _ = TcpStream::connect(self.addr);
    }
}

/// The bytes that it wrote.
fn serve(mut socket: TcpStream, stop: &AtomicBool) -> u64 {
    let _ = socket.set_nodelay(true);
    let begun = Instant::now();
    let mut at = 0;
    // What it does without, since it was held up for so long.
    let mut skipped = 0;
    while !stop.load(Ordering::Acquire) {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = (micros * PACE / 1_000_000).saturating_sub(skipped);
        let behind = due.saturating_sub(at);
        skipped += behind.saturating_sub(BEHIND);
        let length = usize::try_from(behind.min(BEHIND)).unwrap_or(PIECE).min(PIECE);
        if length > 0 && socket.write_all(piece(at, length)).is_err() {
            break;
        }
        at += length as u64;
        std::thread::sleep(BEAT);
    }
    // The rest is with the terminal's client, which reads until this end of it.
    let _ = socket.shutdown(Shutdown::Write);
    // A peer that goes with bytes unread would have lost them.
    let _ = socket.set_read_timeout(Some(Duration::from_secs(20)));
    let _ = std::io::Read::read(&mut socket, &mut [0]);
    at
}
