//! The core of one connection: hands each message to the file that knows it (the table is in the
//! crate's docs) and keeps what all of them share.

use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::Negotiated;
use crate::auth::{Auth, Door};
use crate::budget::Share;
use crate::channel::opens::Opens;
use crate::channel::receive::IDLE;
use crate::channel::table::Table;
use crate::config::Config;
use crate::event::Event;
use crate::global::Globals;
use crate::message::{DisconnectCode, Fatal, number, printable};
use crate::output::Output;
use crate::random::Random;
use crate::transport::{Handled, Transport};
use crate::wire::Writer;

/// How far a connection has come. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The first key exchange.
    Keys,
    /// RFC 4253 section 10: the peer is to ask for ssh-userauth.
    Service,
    /// RFC 4252: no key is proven yet.
    Auth,
    /// RFC 4254.
    Connection,
    /// DISCONNECT was sent or came: nothing is read or sealed any more.
    Over,
}

/// One connection, server role: messages in, events and bytes out. Time is what each call is given:
/// durations since any fixed instant, never going back.
pub struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) transport: Transport,
    phase: Phase,
    pub(crate) auth: Auth,
    pub(crate) globals: Globals,
    pub(crate) channels: Table,
    pub(crate) opens: Opens,
    /// What the windows of this connection are taken from.
    pub(crate) share: Arc<Share>,
    /// When windows were last looked at that nobody uses.
    rested: Duration,
    /// The host key that signed the first exchange, by its place in `Config::host_keys`.
    host_key: Option<usize>,
    peer_version: String,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Core {
    /// Puts our version line and KEXINIT into the output.
    pub fn new(config: Arc<Config>, random: Box<dyn Random + Send>, now: Duration) -> Self {
        let share = Share::new(&config.budget);
        Self {
            transport: Transport::new(Arc::clone(&config), random, now),
            config,
            phase: Phase::Keys,
            auth: Auth::default(),
            globals: Globals::default(),
            channels: Table::default(),
            opens: Opens::default(),
            share,
            rested: now,
            host_key: None,
            peer_version: String::new(),
        }
    }

    /// The peer's version line, as [`Next::Version`](crate::Next::Version) gave it.
    pub fn version(&mut self, line: &[u8]) {
        self.peer_version = clean(line, 255);
        self.transport.version(line);
    }

    /// The peer's version line as far as it is printable ASCII, at most 255 bytes; empty before.
    pub fn peer_version(&self) -> &str {
        &self.peer_version
    }

    /// One message and the number of its packet, as [`Next::Message`](crate::Next::Message) gave
    /// them. On an error DISCONNECT is in the output and the core is dead: what is left is to write
    /// the output, and to close the socket. A dead core takes no message and yields nothing.
    pub fn handle(
        &mut self,
        message: &[u8],
        sequence: u32,
        door: &mut dyn Door,
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        if self.phase == Phase::Over {
            return Ok(None);
        }
        let done = self.check_output().and_then(|()| self.dispatch(message, sequence, door, now));
        self.or_die(done)
    }

    /// A peer that goes on asking though it does not read what it gets is sent away.
    fn check_output(&self) -> Result<(), Fatal> {
        let limits = self.config.limits;
        let within = self.phase == Phase::Connection;
        let most = if within { limits.output } else { limits.output_before_login };
        if self.transport.waiting() > most {
            let text = "the peer asks for more than it reads";
            return Err(Fatal::new(DisconnectCode::ByApplication, text));
        }
        Ok(())
    }

    /// To whom a message goes in which state. The transport's come first in each (RFC 4253); what may
    /// come before a login, RFC 4252 section 6 says; what nobody knows is answered UNIMPLEMENTED (RFC
    /// 4253 section 11.4).
    fn dispatch(
        &mut self,
        message: &[u8],
        sequence: u32,
        door: &mut dyn Door,
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        let Some(kind) = message.first().copied() else {
            return Err(Fatal::protocol("a packet without a message came"));
        };
        // The path of data, first of all.
        if kind == number::CHANNEL_DATA && self.phase == Phase::Connection {
            self.transport.moved(message.len());
            return self.channel_data(message, now);
        }
        let unknown = matches!(self.phase, Phase::Service | Phase::Auth);
        if unknown
            && kind == number::KEXINIT
            && let Some(text) = door.turned_away()
        {
            return Err(Fatal::new(DisconnectCode::TooManyConnections, text));
        }
        match self.transport.handle(message, now)? {
            Handled::Nothing => return Ok(None),
            Handled::Keys { opener, reset } => return self.keys(opener, reset),
            Handled::Disconnected { code, text } => {
                self.over();
                return Ok(Some(Event::Disconnected { code, text }));
            }
            Handled::Other => {}
        }
        match (self.phase, kind) {
            (Phase::Service | Phase::Auth, number::SERVICE_REQUEST) => {
                self.service_request(message)?;
                Ok(None)
            }
            (Phase::Service, number::USERAUTH_REQUEST) => {
                Err(Fatal::protocol("authentication was asked for before the service ssh-userauth"))
            }
            (Phase::Auth, number::USERAUTH_REQUEST) => self.userauth_request(message, door, now),
            // RFC 4252 section 6.
            (Phase::Service | Phase::Auth, 80..=127) => {
                Err(Fatal::protocol("a message of the connection came before a login"))
            }
            // RFC 4252 section 5.1: what comes after SUCCESS is ignored in silence.
            (Phase::Connection, number::USERAUTH_REQUEST) => Ok(None),
            (Phase::Connection, number::SERVICE_REQUEST) => Err(Fatal::new(
                DisconnectCode::ServiceNotAvailable,
                "no other service is to be had after a login",
            )),
            (Phase::Connection, 80..=127) => self.connection(kind, message, sequence, now),
            _ => {
                self.transport.unimplemented(sequence);
                Ok(None)
            }
        }
    }

    /// The messages of RFC 4254.
    fn connection(
        &mut self,
        kind: u8,
        message: &[u8],
        sequence: u32,
        now: Duration,
    ) -> Result<Option<Event>, Fatal> {
        match kind {
            number::GLOBAL_REQUEST => self.global_request(message),
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => Ok(self.global_reply()),
            number::CHANNEL_OPEN => self.channel_open(message, now),
            number::CHANNEL_OPEN_CONFIRMATION => self.channel_confirmed(message),
            number::CHANNEL_OPEN_FAILURE => self.channel_failed(message),
            number::CHANNEL_WINDOW_ADJUST => self.channel_adjust(message),
            number::CHANNEL_DATA => self.channel_data(message, now),
            number::CHANNEL_EXTENDED_DATA => self.channel_extended(message, now),
            number::CHANNEL_EOF => self.channel_eof(message),
            number::CHANNEL_CLOSE => self.channel_close(message),
            number::CHANNEL_REQUEST => self.channel_request(message),
            number::CHANNEL_SUCCESS | number::CHANNEL_FAILURE => self.channel_reply(message),
            _ => {
                self.transport.unimplemented(sequence);
                Ok(None)
            }
        }
    }

    /// The peer's NEWKEYS (RFC 4253 section 7.3); after the first it is to ask for a service (section
    /// 10).
    fn keys(
        &mut self,
        opener: crate::cipher::Opener,
        reset_sequence: bool,
    ) -> Result<Option<Event>, Fatal> {
        let Some(negotiated) = self.transport.negotiated().cloned() else {
            return Err(Fatal::key_exchange("keys came without an agreement"));
        };
        let first = self.phase == Phase::Keys;
        if first {
            self.phase = Phase::Service;
            let ours = &self.config.host_keys;
            self.host_key = ours.iter().position(|key| key.algorithm() == negotiated.host_key);
        }
        Ok(Some(Event::Keys { opener, reset_sequence, negotiated, first }))
    }

    /// The blob of the host key that signed the first exchange, as every later one; empty before.
    pub fn host_key_blob(&self) -> &[u8] {
        self.host_key
            .and_then(|index| self.config.host_keys.get(index))
            .map(crate::hostkey::HostKey::blob)
            .unwrap_or_default()
    }

    /// The host keys that this connection knows of: those of its beginning.
    pub fn host_keys(&self) -> &[crate::hostkey::HostKey] {
        &self.config.host_keys
    }

    /// The place in `Config::host_keys` of the one that signed the first exchange, and that the peer
    /// has accepted if it has logged in.
    pub fn host_key(&self) -> Option<usize> {
        self.host_key
    }

    /// RFC 4253 section 10: from now on a login is what is waited for.
    pub(crate) fn service_accepted(&mut self) {
        self.phase = self.phase.max(Phase::Auth);
    }

    /// RFC 4252 section 5.1: SUCCESS was sent, and the service that was asked for begins.
    pub(crate) fn authenticated(&mut self, now: Duration) {
        self.phase = Phase::Connection;
        self.transport.logged_in(now);
    }

    /// Whether a key was proven, and the connection is not over.
    pub fn is_authenticated(&self) -> bool {
        self.phase == Phase::Connection
    }

    /// Whether nothing is read or sealed any more.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// What the latest key exchange agreed on.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.transport.negotiated()
    }

    /// One message of ours; none once the connection is over.
    pub(crate) fn write(&mut self, build: impl FnOnce(&mut Writer<'_>)) {
        if self.phase != Phase::Over {
            self.transport.write(build);
        }
    }

    /// Says goodbye (RFC 4253 section 11.1), in front of everything that is not sealed yet, which is
    /// dropped. No CLOSE comes before it: one would make `ssh -W` exit 0 in silence. `text`: of it
    /// what is printable ASCII, at most 300 bytes.
    pub fn disconnect(&mut self, code: DisconnectCode, text: &str) {
        if self.phase != Phase::Over {
            self.transport.disconnect(code, &printable(text, Fatal::TEXT));
            self.over();
        }
    }

    /// To be called after a panic in the midst of a change, where nothing in here can be relied upon any
    /// more: all of it is forgotten, and what it held given back. It is over, and has nothing to send.
    pub fn bury(&mut self) {
        let config = Arc::clone(&self.config);
        let random = Box::new(crate::random::System);
        let mut dead = Self { phase: Phase::Over, ..Self::new(config, random, Duration::ZERO) };
        dead.output().consume(usize::MAX);
        *self = dead;
    }

    /// Nothing is read or sealed from now on (RFC 4253 section 11.1). What channels hold is given back,
    /// but for what came in and may still wait at another leg: that counts until it is consumed, or
    /// its channel closed by the relay.
    fn over(&mut self) {
        self.phase = Phase::Over;
        self.channels.leave_all();
        self.globals = Globals::default();
        self.auth = Auth::default();
    }

    fn or_die<T>(&mut self, done: Result<T, Fatal>) -> Result<T, Fatal> {
        if let Err(fatal) = &done {
            self.disconnect(fatal.code, &fatal.text);
        }
        done
    }

    /// [`Next::Exhausted`](crate::Next::Exhausted) came: it is time for new keys (RFC 4253 section 9).
    pub fn rekey(&mut self, now: Duration) {
        if self.phase != Phase::Over {
            self.transport.rekey(now);
        }
    }

    /// To be called at [`Core::deadline`], and now and then where nothing happens: windows that nobody
    /// uses shrink then. An error is as one of [`Core::handle`].
    pub fn tick(&mut self, now: Duration) -> Result<(), Fatal> {
        if self.phase == Phase::Over {
            return Ok(());
        }
        if now.saturating_sub(self.rested) >= IDLE {
            self.rested = now;
            self.channels.rest(now);
        }
        let done = self.transport.tick(now);
        self.or_die(done)
    }

    /// When [`Core::tick`] wants to be called; a call too many does no harm.
    pub fn deadline(&self) -> Option<Duration> {
        if self.phase == Phase::Over { None } else { self.transport.deadline() }
    }

    /// Bytes for the socket, in order.
    pub fn output(&mut self) -> &mut Output {
        self.transport.output()
    }

    /// Channels that are open, asked for, or gone with something of them not consumed.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Bytes that wait in the queues of channels, not sealed yet.
    pub fn queued(&self) -> usize {
        self.channels.queued
    }
}

/// `bytes` with everything but printable ASCII as '?', at most `most` of them.
pub(crate) fn clean(bytes: &[u8], most: usize) -> String {
    let shown = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    bytes.iter().take(most).map(shown).collect()
}

#[cfg(any(test, feature = "testing"))]
impl Core {
    /// As after the first key exchange of a [`Transport::plain`].
    pub(crate) fn after_keys(config: Arc<Config>, transport: Transport) -> Self {
        Self {
            transport,
            phase: Phase::Service,
            host_key: Some(0),
            ..Self::new(config, Box::new(crate::random::System), Duration::ZERO)
        }
    }
}
