//! A TCP server of the test's own on a loopback port: a thread that accepts, and the end of it and of
//! every connection when it is dropped.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What a panic of another thread left is used all the same: the test says what went wrong.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads of the connections share with the listener.
#[derive(Default)]
pub(crate) struct Open {
    stop: AtomicBool,
    /// By their descriptors.
    sockets: Mutex<HashMap<RawFd, TcpStream>>,
}

impl Open {
    /// Whether the server is being dropped.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Holds a second descriptor of a socket, by which it is shut down at the end, until it is let go.
    pub(crate) fn hold(&self, socket: TcpStream) -> RawFd {
        let held = socket.as_raw_fd();
        lock(&self.sockets).insert(held, socket);
        held
    }

    pub(crate) fn let_go(&self, held: RawFd) {
        lock(&self.sockets).remove(&held);
    }
}

pub(crate) struct Listener {
    addr: SocketAddr,
    open: Arc<Open>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Gives each connection to `take`, which must not wait for it, in the order in which they come.
    pub(crate) fn start(open: Arc<Open>, take: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let thread = std::thread::spawn({
            let open = Arc::clone(&open);
            move || {
                for socket in listener.incoming() {
                    if open.stopped() {
                        return;
                    }
                    let Ok(socket) = socket else { continue };
                    take(socket);
                }
            }
        });
        Self { addr, open, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Tells the threads of the connections that the end has come; `drop` waits for the listener's own.
    pub(crate) fn stop(&self) {
        self.open.stop.store(true, Ordering::Release);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for (_, socket) in lock(&self.open.sockets).drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
