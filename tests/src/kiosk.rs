//! The scene of most tests: a relay, the login users alice and bob, and the terminal kiosk-17 with
//! a real sshd and a few instrumented services behind one `ssh -N -R`.

use jiff::Timestamp;

use crate::clients::{Forward, Program};
use crate::gate::{Gate, Setup};
use crate::manifest::{LoginUser, SupportWindow, Terminal, in_seconds};
use crate::process::Proc;
use crate::servers::Sshd;
use crate::services::{Echo, Service, Sink, Source};

/// The services of kiosk-17: name, port, port on the relay.
pub const SERVICES: [(&str, u16, u16); 4] =
    [("ssh", 22, 20_017), ("web", 443, 20_018), ("log", 514, 20_019), ("feed", 873, 20_020)];

/// Fields are dropped in this order.
pub struct Kiosk {
    /// The terminal's own client.
    pub client: Option<Proc>,
    /// Behind the service `ssh`.
    pub sshd: Sshd,
    /// Behind `web`: returns what it gets.
    pub echo: Service,
    /// Behind `log`: takes all.
    pub sink: Service,
    /// Behind `feed`: writes without end.
    pub source: Service,
    pub gate: Gate,
}

impl Kiosk {
    /// With these windows, attached and ready.
    pub fn open(windows: &[SupportWindow]) -> Self {
        Self::with(|setup| windows.iter().cloned().fold(setup, Setup::window))
    }

    /// With whatever else a test declares, attached and ready.
    pub fn with(declare: impl FnOnce(Setup) -> Setup) -> Self {
        let mut kiosk = Self::detached(declare);
        kiosk.attach();
        kiosk
    }

    /// The same before the terminal's client has connected.
    pub fn detached(declare: impl FnOnce(Setup) -> Setup) -> Self {
        let mut kiosk = Self::declared(declare);
        kiosk.gate.start();
        kiosk
    }

    /// The same before the relay was started.
    pub fn declared(declare: impl FnOnce(Setup) -> Setup) -> Self {
        let setup = Setup::new();
        let (alice, bob) = (setup.key("alice"), setup.key("bob"));
        let sshd = Sshd::start(&setup.dir().join("sshd"), &[&alice.public, &bob.public]);
        let mut terminal = Terminal::new("kiosk-17").host_key(&sshd.host_key.public);
        for (name, port, listen) in SERVICES {
            terminal = terminal.service(name, port, Some(listen));
        }
        let setup =
            setup.user(LoginUser::new("alice")).user(LoginUser::new("bob")).terminal(terminal);
        let gate = declare(setup).write();
        Self {
            client: None,
            sshd,
            echo: Echo::start(),
            sink: Sink::start(),
            source: Source::start(),
            gate,
        }
    }

    /// The `-R` of each service.
    pub fn forwards(&self) -> Vec<Forward> {
        let to = [self.sshd.port, self.echo.port(), self.sink.port(), self.source.port()];
        SERVICES.iter().zip(to).map(|((_, _, listen), to)| Forward::port(*listen, to)).collect()
    }

    /// Connects the terminal's client and waits until all of its services are offered.
    pub fn attach(&mut self) {
        self.client = None;
        let client = self.gate.clients_of("kiosk-17").start(Program::OpenSsh, &self.forwards());
        for (service, _, _) in SERVICES {
            self.gate.await_offer("kiosk-17", service);
        }
        self.client = Some(client);
    }

    /// Declares [`alice_everywhere`] until so many seconds from now, waits until it is in force, and says
    /// when it closes. On a slow machine the start of a kiosk may take longer than such a window is open.
    #[track_caller]
    pub fn open_for(&self, seconds: i64) -> Timestamp {
        let closes = in_seconds(seconds);
        self.gate.put(&alice_everywhere("berlin").closing_at(closes));
        self.gate.await_why("alice", "kiosk-17", true);
        closes
    }
}

/// A window that is open, for alice on every service of kiosk-17.
pub fn alice_everywhere(name: &str) -> SupportWindow {
    SupportWindow::open(name, "alice", "kiosk-17").services(&["ssh", "web", "log", "feed"])
}
