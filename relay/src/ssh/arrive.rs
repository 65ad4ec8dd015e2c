//! A connection from its first byte to SSH: drives `tidegate-transport`'s arrival on a socket. Whoever
//! does not get there is told why in its own protocol, and closed.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tidegate_transport::arrival::{Arrival, Closed, Offer, Step};
use tidegate_transport::stack::Stack;

use super::connection::{Arrived, Ended, Shared};
use super::socket::{Socket, Written};
use super::{Doorkeeper, VERSION, printable};
use crate::clock;

/// Bytes that are read at once.
const READ: usize = 4096;
/// How long one that is not served may take to close.
pub(super) const LEAVING: Duration = Duration::from_secs(1);
/// How often a write is tried again that no event tells of.
const AGAIN: Duration = Duration::from_millis(50);

/// What was there when SSH began.
pub(super) struct Ssh {
    pub stack: Stack,
    /// The first bytes of SSH.
    pub first: Vec<u8>,
    /// The peer has our version line already.
    pub greeted: bool,
    /// It has not begun within the grace: SSH is there to tell it so.
    pub late: bool,
}

/// What came of one read.
enum Came {
    Step(Step),
    /// The peer's end, or an error.
    End,
}

async fn read(socket: &Socket, arrival: &mut Arrival) -> Came {
    poll_fn(|cx| {
        // Only while something is there: a peer that is waited for costs no buffer.
        let mut bytes = [0; READ];
        socket.poll_read(cx, &mut bytes).map(|read| match read {
            Ok(came) if came.bytes > 0 => {
                Came::Step(arrival.receive(bytes.get(..came.bytes).unwrap_or_default()))
            }
            _ => Came::End,
        })
    })
    .await
}

/// Writes what the arrival has to say; `false`: it cannot be written.
async fn write(socket: &Socket, arrival: &mut Arrival) -> bool {
    loop {
        let output = arrival.stack().output();
        if output.is_empty() {
            return true;
        }
        match socket.write(socket.sweep(), output.as_slice()) {
            Written::Some(count) => output.consume(count),
            Written::Full => {
                let writable = poll_fn(|cx| socket.poll_writable(cx));
                let _ = tokio::time::timeout(AGAIN, writable).await;
            }
            Written::Broken => return false,
        }
    }
}

/// What it still sends would turn our close into a reset that may overtake our last word.
async fn leave(socket: &Socket) {
    if !socket.finish(socket.sweep()) {
        return;
    }
    let drain = poll_fn(|cx| {
        let mut rest = [0; READ];
        loop {
            match socket.poll_read(cx, &mut rest) {
                Poll::Ready(Ok(came)) if came.bytes > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let _ = tokio::time::timeout(LEAVING, drain).await;
}

/// Takes bytes off the socket until SSH begins; else why it never does. All of it has the login grace, and
/// one that has our banner by then hears the rest by SSH.
pub(super) async fn arrive(
    shared: &Shared,
    door: &dyn Doorkeeper,
    offer: Offer,
) -> Result<Ssh, Ended> {
    let socket = &shared.socket;
    let mut arrival = Arrival::new(offer);
    let mut source = None;
    let mut greeted = false;
    let grace = clock::boot().plus(shared.settings.login_grace);
    loop {
        let left = grace.since(clock::boot());
        let reading = read(socket, &mut arrival);
        let came = tokio::time::timeout(left.min(shared.settings.sniff_silence), reading).await;
        if came.is_err() && clock::boot() >= grace {
            if !greeted {
                shared.kill(Ended::Grace);
                return Err(Ended::Grace);
            }
            let (stack, first) = arrival.finish();
            return Ok(Ssh { stack, first, greeted, late: true });
        }
        if source.is_none()
            && let Some(proxied) = arrival.proxied()
        {
            source = Some(proxied.source);
            door.came_from(proxied.source);
        }
        let step = match came {
            Err(_) if arrival.may_greet() => {
                arrival.greet();
                greeted = true;
                // It is short, and nothing else waits.
                let _ = arrival.stack().send(format!("{VERSION}\r\n").as_bytes());
                Step::More
            }
            Err(_) => continue,
            Ok(Came::End) => return Err(Ended::NotSsh),
            // A handshake of TLS costs a signature, as a key exchange of SSH does.
            Ok(Came::Step(Step::Tls)) => match door.turned_away() {
                None => arrival.begin_tls(),
                Some(sentence) => arrival.turn_away(sentence),
            },
            Ok(Came::Step(step)) => step,
        };
        if !write(socket, &mut arrival).await {
            return Err(Ended::NotSsh);
        }
        match step {
            Step::More | Step::Tls => {}
            Step::Ssh => {
                let (stack, first) = arrival.finish();
                let source = source.unwrap_or(shared.peer);
                shared.arrive(Arrived { source, transport: stack.transport() });
                return Ok(Ssh { stack, first, greeted, late: false });
            }
            Step::Closed(closed) => {
                let (ended, why) = match closed {
                    Closed::HealthCheck => (Ended::HealthCheck, None),
                    Closed::Peer => (Ended::NotSsh, None),
                    Closed::Answered(fault) => (Ended::Answered, Some(fault)),
                    Closed::Refused(fault) => (Ended::NotSsh, Some(fault)),
                };
                if let Some(fault) = why {
                    let why = printable(&fault.to_string(), 300);
                    tracing::debug!(connection = shared.id, why, "a peer is not served");
                }
                leave(socket).await;
                return Err(ended);
            }
        }
    }
}
