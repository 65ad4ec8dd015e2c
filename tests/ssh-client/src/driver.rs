//! Clients on sockets: one task each, which holds no buffer while nothing comes. For many clients in
//! one process, each of which takes a few KiB.
//!
//! Forwarded channels are confirmed, greeted on with one byte and closed by whoever opened them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use tidegate_ssh::random::System;

use crate::{Event, Key, Offer, Session};

/// For a login, an answer or an open.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read at once; on the stack of a task only while it reads.
const READ: usize = 16 << 10;

enum Command {
    /// A port that is asked for, and where the one that was granted goes.
    Forward(u32, oneshot::Sender<Result<u32>>),
    /// A channel, and where its first bytes go.
    Open(Wanted, oneshot::Sender<Result<Vec<u8>>>),
}

/// A channel to a host and port.
struct Wanted {
    host: String,
    port: u32,
    /// What is sent once it is open.
    say: Vec<u8>,
    /// Whether it stays open after its first bytes.
    keep: bool,
}

/// A channel whose first bytes are awaited.
struct Opening {
    keep: bool,
    answer: oneshot::Sender<Result<Vec<u8>>>,
}

/// A connection that is logged in; dropping it ends it.
pub struct Connection {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    end: Arc<OnceLock<Instant>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::ConnectionAborted, "the connection has ended")
}

fn late() -> Error {
    Error::new(ErrorKind::TimedOut, format!("nothing came within {PATIENCE:?}"))
}

impl Connection {
    /// Connects to a port of this machine and logs in. Whatever host key the server has, it is taken
    /// for its own.
    pub async fn login(
        port: u16,
        offer: impl Into<Arc<Offer>>,
        user: &str,
        key: Key,
        greeting: Option<u8>,
    ) -> Result<Self> {
        let login = async {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            socket.set_nodelay(true)?;
            let mut session = Session::new(offer, Box::new(System), user, key);
            // An idle client is not worth more.
            session.gives = (64 << 10, 32 << 10);
            let mut one = Box::new(One {
                socket,
                session,
                greeting,
                events: VecDeque::new(),
                forwards: VecDeque::new(),
                opens: BTreeMap::new(),
            });
            while !one.session.is_within() {
                one.flush().await?;
                one.socket.readable().await?;
                one.read()?;
                if one.events.contains(&Event::Denied) {
                    return Err(Error::new(ErrorKind::PermissionDenied, "the key was refused"));
                }
            }
            one.events = VecDeque::new();
            Ok::<_, Error>(one)
        };
        let mut one = timeout(PATIENCE, login).await.map_err(|_| late())??;
        let (commands, receiver) = mpsc::channel(1);
        let end = Arc::new(OnceLock::new());
        let task = tokio::spawn({
            let end = Arc::clone(&end);
            async move {
                // Whoever waits for an answer learns that it is over as its sender goes.
                let _ = one.serve(receiver).await;
                end.get_or_init(Instant::now);
            }
        });
        Ok(Self { commands, task, end })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (answer, wait) = oneshot::channel();
        let asked = async {
            self.commands.send(command(answer)).await.map_err(|_| ended())?;
            wait.await.map_err(|_| ended())?
        };
        timeout(PATIENCE, asked).await.map_err(|_| late())?
    }

    /// Asks for a port, as `ssh -R` does; 0 leaves it to the relay. The port that was granted.
    pub async fn forward(&self, port: u32) -> Result<u32> {
        self.ask(|answer| Command::Forward(port, answer)).await
    }

    /// Opens a channel, takes what comes first and closes it.
    pub async fn open(&self, host: &str, port: u32) -> Result<Vec<u8>> {
        let wanted = Wanted { host: host.to_owned(), port, say: Vec::new(), keep: false };
        self.ask(|answer| Command::Open(wanted, answer)).await
    }

    /// Opens a channel, sends `say`, takes what comes first and leaves the channel open.
    pub async fn hold(&self, host: &str, port: u32, say: &[u8]) -> Result<Vec<u8>> {
        let wanted = Wanted { host: host.to_owned(), port, say: say.to_vec(), keep: true };
        self.ask(|answer| Command::Open(wanted, answer)).await
    }

    /// When its end was read, as a DISCONNECT, EOF or RST.
    pub fn ended(&self) -> Option<Instant> {
        self.end.get().copied()
    }
}

struct One {
    socket: TcpStream,
    session: Session,
    /// What is written on channels that are opened to this side.
    greeting: Option<u8>,
    events: VecDeque<Event>,
    forwards: VecDeque<(u32, oneshot::Sender<Result<u32>>)>,
    opens: BTreeMap<u32, Opening>,
}

impl One {
    async fn serve(&mut self, mut commands: mpsc::Receiver<Command>) -> Result<()> {
        while !self.session.is_over() {
            self.flush().await?;
            tokio::select! {
                ready = self.socket.readable() => {
                    ready?;
                    self.read()?;
                    while let Some(event) = self.events.pop_front() {
                        self.event(event);
                    }
                    self.events = VecDeque::new();
                }
                command = commands.recv() => match command {
                    Some(Command::Forward(port, answer)) => {
                        self.session.forward("localhost", port);
                        self.forwards.push_back((port, answer));
                    }
                    Some(Command::Open(wanted, answer)) => {
                        let channel = self.session.open_direct(&wanted.host, wanted.port);
                        self.session.send(channel, &wanted.say);
                        self.opens.insert(channel, Opening { keep: wanted.keep, answer });
                    }
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        loop {
            let bytes = self.session.take();
            if bytes.is_empty() {
                return Ok(());
            }
            self.socket.write_all(&bytes).await?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut bytes = [0; READ];
        match self.socket.try_read(&mut bytes) {
            Ok(0) => Err(ended()),
            Ok(count) => {
                let received = self.session.receive(&bytes[..count], &mut self.events);
                received.map_err(|fault| Error::new(ErrorKind::InvalidData, fault))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Answered { granted, body } => {
                let Some((port, answer)) = self.forwards.pop_front() else { return };
                let said = body.first_chunk().map_or(port, |port| u32::from_be_bytes(*port));
                let refused = || Error::new(ErrorKind::PermissionDenied, "the port was refused");
                let _ = answer.send(if granted { Ok(said) } else { Err(refused()) });
            }
            Event::Asked { channel, .. } => {
                self.session.confirm(channel);
                if let Some(greeting) = self.greeting {
                    self.session.send(channel, &[greeting]);
                }
            }
            Event::OpenFailed { channel, text, .. } => {
                if let Some(opening) = self.opens.remove(&channel) {
                    let _ =
                        opening.answer.send(Err(Error::new(ErrorKind::ConnectionRefused, text)));
                }
            }
            Event::Data { channel, bytes } | Event::Extended { channel, bytes, .. } => {
                self.session.consumed(channel, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                if let Some(opening) = self.opens.remove(&channel) {
                    let _ = opening.answer.send(Ok(bytes));
                    if !opening.keep {
                        self.session.finish(channel);
                    }
                }
            }
            Event::Eof { channel } => {
                self.session.eof(channel);
                self.session.finish(channel);
            }
            Event::Closed { channel } => {
                if let Some(opening) = self.opens.remove(&channel) {
                    let _ = opening.answer.send(Err(ended()));
                }
            }
            Event::Ended { text, .. } => {
                for opening in std::mem::take(&mut self.opens).into_values() {
                    let told = Error::new(ErrorKind::ConnectionAborted, text.as_str());
                    let _ = opening.answer.send(Err(told));
                }
            }
            _ => {}
        }
    }
}
