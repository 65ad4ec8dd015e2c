//! The relays under test, this one and OpenSSH's sshd, so that nothing but the relay differs: the
//! same clients with the same options, the same service behind the same number of legs.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_tests::manifest::{DOMAIN, LoginUser, SupportWindow, Terminal};
use tidegate_tests::programs::Build;
use tidegate_tests::servers::me;
use tidegate_tests::{Gate, Proc, SOON, Setup, Sshd, eventually, ports};

/// The same for both, or a dial would compare key exchanges: OpenSSH 9.2 and this relay share this
/// one, and each would choose a slower one of its own.
pub const KEY_EXCHANGE: &str = "curve25519-sha256";
/// The service's port on a terminal of this relay.
const SERVICE: u16 = 443;

/// Whom a client logs in as.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub key: PathBuf,
}

/// A terminal that may attach.
pub struct Place {
    pub name: String,
    pub login: Login,
    /// The port that it asks for with `-R`.
    pub listen: u16,
    /// What staff ask for with `-W`.
    pub target: (String, u16),
}

enum Server {
    Tidegate(Box<Gate>),
    OpenSsh { sshd: Box<Sshd>, _dir: tempfile::TempDir },
}

/// A relay that runs, ended when dropped.
pub struct Relay {
    pub name: &'static str,
    pub port: u16,
    pub staff: Login,
    pub places: Vec<Place>,
    /// Over all places; sshd has none.
    pub window: Option<SupportWindow>,
    known_hosts: PathBuf,
    server: Server,
}

/// This relay and sshd with as many places each; always in this order.
pub fn both(places: usize) -> [Relay; 2] {
    [Relay::tidegate(places), Relay::openssh(places)]
}

impl Relay {
    /// The release build with one user and one open window over all places.
    pub fn tidegate(places: usize) -> Self {
        Self::tidegate_with(places, |setup| setup)
    }

    /// The same with whatever else is declared.
    pub fn tidegate_with(places: usize, declare: impl FnOnce(Setup) -> Setup) -> Self {
        let names: Vec<String> = (0..places).map(|n| format!("kiosk-{n}")).collect();
        let mut setup = Setup::new()
            .build(Build::Release)
            .relay_spec("  limits: {sessionsPerUser: 1000, connectionsPerUser: 10000, handshakesPerSource: 65536}\n")
            .user(LoginUser::new("alice"));
        let mut listens = Vec::new();
        for name in &names {
            let listen = ports::free();
            listens.push(listen);
            setup = setup.terminal(Terminal::new(name).service("web", SERVICE, Some(listen)));
        }
        let window = (!names.is_empty()).then(|| {
            let mut window = SupportWindow::open("bench", "alice", "").services(&["web"]);
            window.terminals.clone_from(&names);
            window
        });
        setup = window.iter().cloned().fold(setup, Setup::window);
        let mut gate = declare(setup).start();
        if let Some(process) = &mut gate.process {
            // Its log of some thousand sessions explains nothing.
            process.quiet = true;
        }
        let place = |(name, listen): (&String, u16)| Place {
            name: name.clone(),
            login: Login { user: "terminal".to_owned(), key: gate.key(name).path },
            listen,
            target: (format!("{name}.{DOMAIN}"), SERVICE),
        };
        Self {
            name: "tidegate",
            port: gate.port,
            staff: Login { user: "alice".to_owned(), key: gate.key("alice").path },
            places: names.iter().zip(listens).map(place).collect(),
            window,
            known_hosts: known_hosts(gate.dir(), &gate.host_key()),
            server: Server::Tidegate(Box::new(gate)),
        }
    }

    /// sshd as people run it, with `-R` and `-W` allowed, and one account for all.
    pub fn openssh(places: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-").tempdir().expect("a directory");
        let key = tidegate_tests::keys::Key::kept(dir.path(), "all");
        let extra = ["AllowTcpForwarding yes", "ClientAliveInterval 25"];
        let sshd = Sshd::with(&dir.path().join("sshd"), &[&key.public], &extra);
        let login = Login { user: me(), key: key.path };
        let place = |n: usize| {
            let listen = ports::free();
            Place {
                name: format!("kiosk-{n}"),
                login: login.clone(),
                listen,
                target: ("127.0.0.1".to_owned(), listen),
            }
        };
        Self {
            name: "sshd",
            port: sshd.port,
            staff: login.clone(),
            places: (0..places).map(place).collect(),
            window: None,
            known_hosts: known_hosts(dir.path(), &sshd.host_key.public),
            server: Server::OpenSsh { sshd: Box::new(sshd), _dir: dir },
        }
    }

    /// This relay's gate; sshd has none.
    pub fn gate(&self) -> Option<&Gate> {
        match &self.server {
            Server::Tidegate(gate) => Some(gate),
            Server::OpenSsh { .. } => None,
        }
    }

    /// The process whose descendants, itself included, are all of the relay.
    pub fn pid(&self) -> i32 {
        match &self.server {
            Server::Tidegate(gate) => gate.relay().pid(),
            Server::OpenSsh { sshd, .. } => sshd.process.pid(),
        }
    }

    /// `ssh -W` to a place, through another port where a line lies in between.
    pub fn staff(&self, port: u16, cipher: &str, place: usize) -> Command {
        let (host, service) = &self.places[place].target;
        let mut command = self.ssh(&self.staff, port, cipher);
        command.args(["-W", &format!("{host}:{service}")]).arg(address(&self.staff));
        command
    }

    /// A place's `ssh -N -R` to a loopback port, once it is attached.
    pub fn attach(&self, port: u16, cipher: &str, place: usize, to: u16) -> Proc {
        let place = &self.places[place];
        let mut command = self.ssh(&place.login, port, cipher);
        let forward = format!("{}:127.0.0.1:{to}", place.listen);
        command.args(["-N", "-o", "ExitOnForwardFailure=yes", "-R", &forward]);
        let client = Proc::start("ssh -R", command.arg(address(&place.login)));
        self.await_offer(place);
        client
    }

    /// Waits until what a place's client offers can be reached.
    pub fn await_offer(&self, place: &Place) {
        match &self.server {
            Server::Tidegate(gate) => gate.await_offer(&place.name, "web"),
            Server::OpenSsh { .. } => eventually("sshd listens for the terminal", SOON, || {
                std::net::TcpStream::connect(("127.0.0.1", place.listen)).is_ok()
            }),
        }
    }

    fn ssh(&self, login: &Login, port: u16, cipher: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .env_remove("SSH_AUTH_SOCK")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null"])
            .args(["-o", "UpdateHostKeys=no", "-o", "ConnectTimeout=20"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.known_hosts.display()))
            .arg("-o")
            .arg(format!("KexAlgorithms={KEY_EXCHANGE}"))
            .args(["-c", cipher, "-p", &port.to_string(), "-i"])
            .arg(&login.key);
        command
    }
}

fn address(login: &Login) -> String {
    format!("{}@127.0.0.1", login.user)
}

fn known_hosts(dir: &Path, key: &str) -> PathBuf {
    let path = dir.join("bench_known_hosts");
    std::fs::write(&path, format!("[127.0.0.1]:* {key}\n")).expect("known_hosts");
    path
}
