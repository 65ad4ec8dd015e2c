//! A client that sends and reads what a test wants and when, and what a peer meets that asks too much.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tidegate_ssh::random::System;
use tidegate_ssh_client::{Event, Key, Offer, Session};

use crate::gate::{Gate, RAW};

/// For anything that is to come.
const PATIENCE: Duration = Duration::from_mins(1);
/// Bytes that the kernel may keep for it unread: no more than one look at the socket.
const UNREAD: usize = 64 * 1024;

pub struct Raw {
    pub session: Session,
    pub socket: TcpStream,
    events: VecDeque<Event>,
}

impl Raw {
    /// Logs in.
    pub fn login(gate: &Gate) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(UNREAD).unwrap();
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], gate.port)).into()).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let key = Key::ed25519(RAW);
        let session = Session::new(Offer::default(), Box::new(System), "alice", key);
        let mut raw = Self { session, socket, events: VecDeque::new() };
        raw.await_event(|event| *event == Event::LoggedIn);
        raw
    }

    pub fn flush(&mut self) {
        let bytes = self.session.take();
        self.socket.write_all(&bytes).unwrap();
    }

    /// The next event that is wanted.
    pub fn await_event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let mut bytes = vec![0; UNREAD];
        loop {
            while let Some(event) = self.events.pop_front() {
                if wanted(&event) {
                    return event;
                }
            }
            self.flush();
            let count = self.socket.read(&mut bytes).unwrap();
            assert!(count > 0, "the relay has closed the connection");
            self.session.receive(&bytes[..count], &mut self.events).unwrap();
        }
    }

    /// Sends and reads until nothing has come for `quiet`; what did come waits for
    /// [`Raw::await_event`].
    pub fn settle(&mut self, quiet: Duration) {
        let mut bytes = vec![0; UNREAD];
        self.socket.set_read_timeout(Some(quiet)).unwrap();
        loop {
            self.flush();
            match self.socket.read(&mut bytes) {
                Ok(count) => {
                    assert!(count > 0, "the relay has closed the connection");
                    self.session.receive(&bytes[..count], &mut self.events).unwrap();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// The data that has come.
    pub fn data(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.events.retain(|event| match event {
            Event::Data { bytes, .. } => {
                all.extend(bytes);
                false
            }
            _ => true,
        });
        all
    }

    pub fn opened(&mut self, channel: u32) {
        self.await_event(|event| *event == Event::Opened { channel });
    }
}

#[test]
fn events_that_nobody_takes_end_the_connection() {
    let gate = Gate::new();
    let mut raw = Raw::login(&gate);
    let session = raw.session.open_session();
    raw.opened(session);
    // From here on the gate stands still.
    raw.session.open_direct("stall", 22);
    for _ in 0..600 {
        raw.session.request(session, "x11-req", false, &[]);
    }
    raw.flush();
    let ended = raw.await_event(|event| matches!(event, Event::Ended { .. }));
    let Event::Ended { code, text } = ended else { panic!("{ended:?}") };
    assert_eq!(code, 11);
    assert_eq!(text, "too many requests wait for their answers on this connection");
}

#[test]
fn a_peer_that_reads_no_answers_is_not_read_until_it_does() {
    const PINGS: usize = 20_000;
    let gate = Gate::new();
    let mut raw = Raw::login(&gate);
    let connection = gate.authenticated();
    for _ in 0..PINGS {
        assert!(raw.session.ping(&[b'p'; 1000]));
    }
    let bytes = raw.session.take();
    let all = bytes.len() as u64;
    let mut socket = raw.socket.try_clone().unwrap();
    let writer = std::thread::spawn(move || socket.write_all(&bytes));
    gate.until_quiet(&connection, 200_000);
    let (taken, _) = connection.bytes();
    assert!(taken < all / 2, "{taken} of {all} bytes were read of a peer that reads nothing");
    assert!(!writer.is_finished() && !connection.is_closed());
    for _ in 0..PINGS {
        raw.await_event(|event| matches!(event, Event::Pong(_)));
    }
    writer.join().unwrap().unwrap();
    assert!(connection.bytes().0 >= all);
}
