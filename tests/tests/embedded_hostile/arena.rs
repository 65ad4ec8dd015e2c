//! The relay that is attacked: alice's two sessions on kiosk-17, and mallory, who may reach kiosk-17
//! and terminals of his own. All that is hostile has an address of its own, so that the caps of one
//! source hide no figure.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use tidegate_ssh_client::hand::Hand;
use tidegate_ssh_client::{Key, Offer};
use tidegate_tests::clients::{Forward, Program};
use tidegate_tests::manifest::{LoginUser, SupportWindow, Terminal};
use tidegate_tests::programs::Build;
use tidegate_tests::services::Service;
use tidegate_tests::{Echo, Gate, Proc, Setup, Source};

use crate::beside::Beside;
use crate::feed::Feed;
use crate::lab::apart;

/// Terminals whose keys mallory has, and peers of an attack that are one each, at most.
pub const TERMINALS: u16 = 32;
/// The services of kiosk-17: ports as staff name them.
pub const WEB: u32 = 443;
pub const FLOOD: u32 = 514;
const FEED: u32 = 873;
/// The first port that a hostile terminal asks for; the others follow.
const HOSTILE: u16 = 21_000;
/// Where load balancers are declared to be.
pub const BALANCERS: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 1);

/// Whether the long form was asked for: more peers, more seconds, an optimised relay.
pub fn long() -> bool {
    std::env::var("TIDEGATE_HOSTILE_LONG").is_ok_and(|value| value == "1")
}

/// Fields are dropped in this order.
pub struct Arena {
    _client: Proc,
    _echo: Service,
    _source: Service,
    pub mallory: Key,
    terminals: Vec<Key>,
    pub gate: Gate,
}

pub fn hostile_terminal(number: u16) -> (String, u16) {
    let number = number % TERMINALS;
    (format!("hostile-{number}"), HOSTILE + number)
}

impl Arena {
    /// With the sessions beside what is to come.
    pub fn open() -> (Self, Beside) {
        let build = if long() { Build::Release } else { Build::Debug };
        let kiosk = Terminal::new("kiosk-17")
            .service("web", 443, Some(20_018))
            .service("log", 514, Some(20_019))
            .service("feed", 873, Some(20_020));
        let services = ["web", "log", "feed"];
        let mut storm = SupportWindow::open("storm", "mallory", "kiosk-17").services(&services);
        let mut setup = Setup::new()
            .build(build)
            .relay_spec("  limits: {sessionsPerUser: 1000, connectionsPerUser: 10000}\n")
            .relay_spec("  exposure: {type: NodePort, proxyProtocol: {from: [127.0.9.0/24]}}\n")
            .user(LoginUser::new("alice"))
            .user(LoginUser::new("mallory"))
            .terminal(kiosk)
            .window(SupportWindow::open("calm", "alice", "kiosk-17").services(&services));
        let mut terminals = Vec::new();
        for number in 0..TERMINALS {
            let (name, port) = hostile_terminal(number);
            let key = Key::numbered(1_000_000 + u32::from(number));
            let mut terminal = Terminal::new(&name).service("web", 443, Some(port));
            terminal.keys.push(key.public());
            terminals.push(key);
            setup = setup.terminal(terminal);
            storm = storm.terminal(&name);
        }
        let gate = apart(|| setup.window(storm).start());
        let (feed, echo, source) = (Feed::start(), Echo::start(), Source::start());
        let forwards = [(20_018, echo.port()), (20_019, source.port()), (20_020, feed.port())];
        let forwards = forwards.map(|(listen, to)| Forward::port(listen, to));
        let client = gate.clients_of("kiosk-17").start(Program::OpenSsh, &forwards);
        for service in services {
            gate.await_offer("kiosk-17", service);
        }
        let alice = Key::read(&gate.key("alice").path);
        let beside = Beside::start(gate.addr(), &alice, feed, [FEED, WEB]);
        let mallory = Key::read(&gate.key("mallory").path);
        let arena =
            Self { _client: client, _echo: echo, _source: source, mallory, terminals, gate };
        (arena, beside)
    }

    pub fn pid(&self) -> i32 {
        self.gate.relay().pid()
    }
}

/// One hostile peer.
pub struct Peer<'a> {
    pub arena: &'a Arena,
    /// Of the attack, and of the peer within it.
    pub row: u8,
    pub number: u16,
    /// How often it has attacked before.
    pub round: u32,
    /// When it is to end what has no end.
    pub until: Instant,
}

impl Peer<'_> {
    /// Its own network.
    pub fn source(&self) -> Ipv4Addr {
        let number = u8::try_from(self.number % 250).expect("a byte");
        Ipv4Addr::new(127, 16 + self.row, number, 1)
    }

    pub fn connect(&self) -> io::Result<TcpStream> {
        self.connect_from(self.source())
    }

    pub fn connect_from(&self, source: Ipv4Addr) -> io::Result<TcpStream> {
        // No program that is started meanwhile keeps it open.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
        connect(&socket, &self.arena.gate.addr())?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(socket)
    }

    /// One that has sent its version line and KEXINIT.
    pub fn hand(&self) -> io::Result<Hand> {
        Hand::new(self.connect()?, Offer::default())
    }

    /// One with keys, that has asked for the service of logins.
    pub fn stranger(&self) -> io::Result<Hand> {
        self.hand()?.exchange()?.service()
    }

    /// Mallory, logged in.
    pub fn staff(&self) -> io::Result<Hand> {
        self.hand()?.log_in("mallory", &self.arena.mallory)
    }

    /// A terminal of this peer's own, logged in, with its name and its port.
    pub fn terminal(&self) -> io::Result<(Hand, String, u16)> {
        let (name, port) = hostile_terminal(self.number);
        let key = &self.arena.terminals[usize::from(self.number % TERMINALS)];
        Ok((self.hand()?.log_in("terminal", key)?, name, port))
    }
}
