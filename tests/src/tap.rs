//! A TCP relay of the test's own between a client and the relay under test: it sees when the
//! other side ends a connection, and it can hold bytes back in either direction.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::listener::{Listener, Open, lock};

/// One connection through the tap.
#[derive(Clone, Debug, Default)]
pub struct Tapped {
    /// The tap's own address towards the relay: what the relay sees as its peer.
    pub local: Option<SocketAddr>,
    /// Bytes from the client to the relay, and when the last of them passed.
    pub up: u64,
    pub last_up: Option<Instant>,
    /// Bytes from the relay to the client.
    pub down: u64,
    pub last_down: Option<Instant>,
    /// When the relay's end of the connection was seen: EOF or RST at the socket.
    pub relay_ended: Option<Instant>,
    pub client_ended: Option<Instant>,
}

#[derive(Default)]
struct Held {
    up: bool,
    down: bool,
}

#[derive(Default)]
struct Shared {
    open: Arc<Open>,
    held: Mutex<Held>,
    released: Condvar,
    tapped: Mutex<Vec<Tapped>>,
}

impl Shared {
    fn note(&self, index: usize, change: impl FnOnce(&mut Tapped)) {
        if let Some(tapped) = lock(&self.tapped).get_mut(index) {
            change(tapped);
        }
    }

    /// Waits while `direction` is held back.
    fn pass(&self, direction: fn(&Held) -> bool) {
        let mut held = lock(&self.held);
        while direction(&held) && !self.open.stopped() {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub struct Tap {
    listener: Listener,
    shared: Arc<Shared>,
}

impl Tap {
    /// Listens on a loopback port and passes each connection on to `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = Listener::start(Arc::clone(&shared.open), {
            let shared = Arc::clone(&shared);
            move |client| {
                let Ok(relay) = TcpStream::connect(upstream) else { return };
                join(&shared, client, relay);
            }
        });
        Self { listener, shared }
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    pub fn tapped(&self) -> Vec<Tapped> {
        lock(&self.shared.tapped).clone()
    }

    /// The connection that came last.
    pub fn last(&self) -> Tapped {
        self.tapped().pop().expect("a connection through the tap")
    }

    /// Passes nothing more in either direction and closes nothing: a network gone dark.
    pub fn black_hole(&self) {
        self.hold(true, true);
    }

    /// Reads nothing more from the relay, so that its send window fills up.
    pub fn hold_down(&self) {
        self.hold(false, true);
    }

    pub fn release(&self) {
        self.hold(false, false);
    }

    fn hold(&self, up: bool, down: bool) {
        *lock(&self.shared.held) = Held { up, down };
        self.shared.released.notify_all();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.listener.stop();
        // What is held back would wait for ever.
        self.release();
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, relay: TcpStream) {
    let _ = client.set_nodelay(true);
    let _ = relay.set_nodelay(true);
    let index = {
        let mut tapped = lock(&shared.tapped);
        tapped.push(Tapped { local: relay.local_addr().ok(), ..Tapped::default() });
        tapped.len() - 1
    };
    let copy = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
    shared.open.hold(copy(&client));
    shared.open.hold(copy(&relay));
    watch(shared, copy(&relay), index);
    let (from, to) = (copy(&client), copy(&relay));
    pump(
        shared,
        from,
        to,
        |held| held.up,
        move |shared, count, now| {
            shared.note(index, |tapped| {
                if count == 0 {
                    tapped.client_ended = tapped.client_ended.or(Some(now));
                } else {
                    tapped.up += count;
                    tapped.last_up = Some(now);
                }
            });
        },
    );
    pump(
        shared,
        relay,
        client,
        |held| held.down,
        move |shared, count, now| {
            shared.note(index, |tapped| {
                if count == 0 {
                    tapped.relay_ended = tapped.relay_ended.or(Some(now));
                } else {
                    tapped.down += count;
                    tapped.last_down = Some(now);
                }
            });
        },
    );
}

fn pump(
    shared: &Arc<Shared>,
    mut from: TcpStream,
    mut to: TcpStream,
    direction: fn(&Held) -> bool,
    note: impl Fn(&Shared, u64, Instant) + Send + 'static,
) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            shared.pass(direction);
            let count = from.read(&mut buffer).unwrap_or(0);
            note(&shared, count as u64, Instant::now());
            if count == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            shared.pass(direction);
            if to.write_all(&buffer[..count]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
    });
}

/// Sees the relay's EOF or RST also while nothing is read from it.
fn watch(shared: &Arc<Shared>, relay: TcpStream, index: usize) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let turn = Timespec::try_from(Duration::from_millis(200)).expect("a short time");
        while !shared.open.stopped() {
            let mut fds = [PollFd::new(&relay, PollFlags::RDHUP)];
            if poll(&mut fds, Some(&turn)).is_err() {
                continue;
            }
            let over = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            if fds[0].revents().intersects(over) {
                let now = Instant::now();
                shared.note(index, |tapped| tapped.relay_ended = tapped.relay_ended.or(Some(now)));
                return;
            }
        }
    });
}
