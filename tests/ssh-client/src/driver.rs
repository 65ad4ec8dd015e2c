//! Clients on sockets: one task each, which holds no buffer while nothing comes. For many clients in
//! one process, each of which takes a few KiB.
//!
//! Forwarded channels are confirmed, served as [`Serve`] says and closed by whoever opened them.

mod channel;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use tidegate_ssh::random::System;

use crate::{Event, Key, Offer, Session};

pub use channel::Channel;

/// For a login, an answer or an open.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read at once; on the stack of a task only while it reads.
const READ: usize = 16 << 10;

/// What is done on channels that are opened to this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// All that comes is taken.
    Nothing,
    /// Likewise, after this byte has been sent.
    Greeting(u8),
    /// What comes goes back, and no more is taken than has gone.
    Echo,
}

enum Command {
    /// A port that is asked for, and where the one that was granted goes.
    Forward(u32, oneshot::Sender<Result<u32>>),
    /// A keepalive as OpenSSH sends it, and where it is told that it was answered.
    Keepalive(oneshot::Sender<Result<()>>),
    /// A channel, and where its first bytes go.
    Open(Wanted, oneshot::Sender<Result<Vec<u8>>>),
    /// A channel to a host and port, and where it goes once it is open.
    Channel(String, u32, oneshot::Sender<Result<channel::Ends>>),
    /// On a channel.
    Data(u32, Vec<u8>),
    /// As many bytes of a channel were taken.
    Taken(u32, u32),
    /// No more data on a channel.
    Eof(u32),
    /// A channel was let go of.
    Close(u32),
    Rekey,
    /// As many keepalives of which no answer is awaited.
    Flood(u32),
    /// Nothing is read any more.
    StopReading,
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

/// A request whose answer is awaited.
enum Asked {
    Forward(u32, oneshot::Sender<Result<u32>>),
    Keepalive(oneshot::Sender<Result<()>>),
    Nobody,
}

/// A connection that is logged in; dropping it ends it.
pub struct Connection {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    end: Arc<OnceLock<(Instant, String)>>,
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
        serve: Serve,
    ) -> Result<Self> {
        Self::login_from(Ipv4Addr::LOCALHOST, port, offer, user, key, serve).await
    }

    /// The same from another address of this machine.
    pub async fn login_from(
        source: Ipv4Addr,
        port: u16,
        offer: impl Into<Arc<Offer>>,
        user: &str,
        key: Key,
        serve: Serve,
    ) -> Result<Self> {
        let login = async {
            let socket = dial(source, port).await?;
            socket.set_nodelay(true)?;
            let mut session = Session::new(offer, Box::new(System), user, key);
            // An idle client is not worth more.
            session.gives = (64 << 10, 32 << 10);
            let mut one = Box::new(One {
                socket,
                session,
                serve,
                reads: true,
                goodbye: String::new(),
                events: VecDeque::new(),
                asked: VecDeque::new(),
                opens: BTreeMap::new(),
                opening: BTreeMap::new(),
                channels: BTreeMap::new(),
                echoes: BTreeMap::new(),
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
        let (commands, mut receiver) = mpsc::channel(1);
        let end = Arc::new(OnceLock::new());
        let task = tokio::spawn({
            let end = Arc::clone(&end);
            async move {
                // Whoever waits for an answer learns that it is over as its sender goes.
                let served = one.serve(&mut receiver).await;
                let why =
                    served.err().map_or_else(|| one.goodbye.clone(), |error| error.to_string());
                // Before the receiver goes, which is what `closed` waits for.
                end.get_or_init(|| (Instant::now(), why));
                drop(receiver);
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
            tokio::select! {
                biased;
                answer = wait => answer.map_err(|_| ended())?,
                // What is sent while the receiver goes may stay in the channel, with its answer's sender.
                () = self.commands.closed() => Err(ended()),
            }
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

    /// Opens a channel whose bytes go to and fro.
    pub async fn channel(&self, host: &str, port: u32) -> Result<Channel> {
        let ends = self.ask(|answer| Command::Channel(host.to_owned(), port, answer)).await?;
        Ok(Channel::new(self.commands.clone(), ends))
    }

    /// Asks whether the other side is there, as OpenSSH's ServerAliveInterval does.
    pub async fn keepalive(&self) -> Result<()> {
        self.ask(Command::Keepalive).await
    }

    /// Asks for new keys.
    pub async fn rekey(&self) -> Result<()> {
        self.commands.send(Command::Rekey).await.map_err(|_| ended())
    }

    /// Sends as many keepalives without waiting for an answer.
    pub async fn flood(&self, count: u32) -> Result<()> {
        self.commands.send(Command::Flood(count)).await.map_err(|_| ended())
    }

    /// Reads nothing any more, and so learns of no end but by a write that fails.
    pub async fn stop_reading(&self) -> Result<()> {
        self.commands.send(Command::StopReading).await.map_err(|_| ended())
    }

    /// Waits for its end.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }

    /// When its end was read, as a DISCONNECT, EOF or RST.
    pub fn ended(&self) -> Option<Instant> {
        self.end.get().map(|(at, _)| *at)
    }

    /// Why it ended: the text of a DISCONNECT, or what failed.
    pub fn why(&self) -> Option<&str> {
        self.end.get().map(|(_, why)| why.as_str())
    }
}

/// A connection from an address of this machine to a port of 127.0.0.1.
pub async fn dial(source: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

struct One {
    socket: TcpStream,
    session: Session,
    serve: Serve,
    /// Whether it still reads.
    reads: bool,
    /// What a DISCONNECT said.
    goodbye: String,
    events: VecDeque<Event>,
    asked: VecDeque<Asked>,
    opens: BTreeMap<u32, Opening>,
    /// Channels that are not open yet.
    opening: BTreeMap<u32, oneshot::Sender<Result<channel::Ends>>>,
    /// Where the data of channels goes.
    channels: BTreeMap<u32, mpsc::UnboundedSender<channel::Came>>,
    /// Channels that echo, with bytes that came and whose like has not gone yet.
    echoes: BTreeMap<u32, u32>,
}

impl One {
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<()> {
        while !self.session.is_over() {
            self.flush().await?;
            tokio::select! {
                ready = self.socket.readable(), if self.reads => {
                    ready?;
                    self.read()?;
                    while let Some(event) = self.events.pop_front() {
                        self.event(event);
                    }
                    self.events = VecDeque::new();
                }
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Forward(port, answer) => {
                self.session.forward("localhost", port);
                self.asked.push_back(Asked::Forward(port, answer));
            }
            Command::Keepalive(answer) => {
                self.session.ask("keepalive@openssh.com", true, &[]);
                self.asked.push_back(Asked::Keepalive(answer));
            }
            Command::Open(wanted, answer) => {
                let channel = self.session.open_direct(&wanted.host, wanted.port);
                self.session.send(channel, &wanted.say);
                self.opens.insert(channel, Opening { keep: wanted.keep, answer });
            }
            Command::Channel(host, port, answer) => {
                let channel = self.session.open_direct(&host, port);
                self.opening.insert(channel, answer);
            }
            Command::Data(channel, bytes) => {
                self.session.send(channel, &bytes);
            }
            Command::Taken(channel, count) => self.session.consumed(channel, count),
            Command::Eof(channel) => self.session.eof(channel),
            Command::Close(channel) => {
                // The number is another's once both have closed it.
                if self.channels.remove(&channel).is_some() {
                    self.session.close(channel);
                }
            }
            Command::Rekey => self.session.rekey(),
            Command::Flood(count) => {
                for _ in 0..count {
                    self.session.ask("keepalive@openssh.com", true, &[]);
                    self.asked.push_back(Asked::Nobody);
                }
            }
            Command::StopReading => self.reads = false,
        }
    }

    async fn flush(&mut self) -> Result<()> {
        loop {
            let bytes = self.session.take();
            let session = &mut self.session;
            for (channel, owed) in self.echoes.iter_mut().filter(|(_, owed)| **owed > 0) {
                if session.queued(*channel) == 0 {
                    session.consumed(*channel, std::mem::take(owed));
                }
            }
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
                match self.asked.pop_front() {
                    Some(Asked::Forward(port, answer)) => {
                        let said = body.first_chunk().map_or(port, |it| u32::from_be_bytes(*it));
                        let refused =
                            Error::new(ErrorKind::PermissionDenied, "the port was refused");
                        let _ = answer.send(if granted { Ok(said) } else { Err(refused) });
                    }
                    // Any answer shows that somebody is there.
                    Some(Asked::Keepalive(answer)) => {
                        let _ = answer.send(Ok(()));
                    }
                    Some(Asked::Nobody) | None => {}
                }
            }
            Event::Asked { channel, .. } => {
                self.session.confirm(channel);
                match self.serve {
                    Serve::Nothing => {}
                    Serve::Greeting(byte) => {
                        self.session.send(channel, &[byte]);
                    }
                    Serve::Echo => {
                        self.echoes.insert(channel, 0);
                    }
                }
            }
            Event::Opened { channel } => {
                if let Some(opening) = self.opening.remove(&channel) {
                    let (sender, came) = mpsc::unbounded_channel();
                    if opening.send(Ok(channel::Ends { number: channel, came })).is_ok() {
                        self.channels.insert(channel, sender);
                    } else {
                        self.session.close(channel);
                    }
                }
            }
            Event::OpenFailed { channel, text, .. } => {
                let refused = Error::new(ErrorKind::ConnectionRefused, text);
                if let Some(opening) = self.opens.remove(&channel) {
                    let _ = opening.answer.send(Err(refused));
                } else if let Some(opening) = self.opening.remove(&channel) {
                    let _ = opening.send(Err(refused));
                }
            }
            Event::Data { channel, bytes } | Event::Extended { channel, bytes, .. } => {
                let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if let Some(came) = self.channels.get(&channel) {
                    // Counted as taken once it is.
                    let _ = came.send(channel::Came::Data(bytes));
                    return;
                }
                if let Some(owed) = self.echoes.get_mut(&channel) {
                    *owed = owed.saturating_add(count);
                    self.session.send(channel, &bytes);
                    return;
                }
                self.session.consumed(channel, count);
                if let Some(opening) = self.opens.remove(&channel) {
                    let _ = opening.answer.send(Ok(bytes));
                    if !opening.keep {
                        self.session.finish(channel);
                    }
                }
            }
            Event::Eof { channel } => {
                if let Some(came) = self.channels.get(&channel) {
                    let _ = came.send(channel::Came::Eof);
                }
                self.session.eof(channel);
                self.session.finish(channel);
            }
            Event::Closed { channel } => {
                if let Some(came) = self.channels.remove(&channel) {
                    // A CLOSE need not have an EOF before it (RFC 4254 section 5.3).
                    let _ = came.send(channel::Came::Eof);
                }
                self.echoes.remove(&channel);
                if let Some(opening) = self.opens.remove(&channel) {
                    let _ = opening.answer.send(Err(ended()));
                }
            }
            Event::Ended { text, .. } => {
                self.goodbye.clone_from(&text);
                for opening in std::mem::take(&mut self.opens).into_values() {
                    let told = Error::new(ErrorKind::ConnectionAborted, text.as_str());
                    let _ = opening.answer.send(Err(told));
                }
            }
            _ => {}
        }
    }
}
