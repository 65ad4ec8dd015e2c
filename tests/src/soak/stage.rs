//! What is declared: terminals over sites, staff, one user who may nothing, and one who never reads.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tidegate_ssh_client::{Key, Offer};

use crate::gate::{Gate, Setup};
use crate::manifest::{DOMAIN, LoginUser, Terminal};

use super::Plan;
use super::lag::Lag;
use super::tally::Tally;
use super::windows::Site;

/// The port of the one service on each terminal.
pub const SERVICE: u32 = 443;
/// The group that every window admits.
pub const GROUP: &str = "support";
/// In that group; begins sessions and reads nothing.
pub const SLOTH: &str = "sloth";
/// In no group.
pub const MALLORY: &str = "mallory";
/// Sessions that one login user has at once: half of what `sessionsPerUser` is unless it is set, so
/// that a new one fits in while its predecessor's end is still under way.
const SESSIONS_EACH: usize = 4;
/// Peers of one /24, which is what the relay takes for one source: a site or an office.
const EACH_SOURCE: usize = 50;

/// First numbers of the keys of `Key::numbered`, by whose they are.
const STAFF_KEYS: u32 = 1_000_000;
const OTHER_KEYS: u32 = 2_000_000;
/// First port that terminals ask for.
const FIRST_LISTEN: u16 = 20_000;
/// First source networks, 127.0.x.0/24.
const TERMINAL_NETWORKS: usize = 1;
const STAFF_NETWORKS: usize = 150;
const HOSTILE_NETWORKS: usize = 200;

/// What all parts of the load share.
pub struct Stage {
    pub plan: Plan,
    pub gate: Gate,
    pub sites: Vec<Site>,
    pub tally: Tally,
    pub lag: Lag,
    pub offer: Arc<Offer>,
}

/// The `n`th address of networks from `first` on.
fn address(first: usize, n: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number).expect("fewer networks than there are");
    Ipv4Addr::new(127, 0, part(first + n / EACH_SOURCE), part(1 + n % EACH_SOURCE))
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 4 billion")
}

/// A terminal that is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine(pub usize);

impl Machine {
    pub fn name(self) -> String {
        format!("kiosk-{}", self.0)
    }

    pub fn host(self) -> String {
        format!("{}.{DOMAIN}", self.name())
    }

    pub fn key(self) -> Key {
        Key::numbered(number(self.0))
    }

    pub fn listen(self) -> u16 {
        FIRST_LISTEN + u16::try_from(self.0).expect("fewer terminals than ports")
    }

    pub fn source(self) -> Ipv4Addr {
        address(TERMINAL_NETWORKS, self.0)
    }
}

/// A place for one session of staff at a time.
#[derive(Clone, Copy, Debug)]
pub struct Slot(pub usize);

impl Slot {
    pub fn login(self) -> String {
        format!("staff-{}", self.0 / SESSIONS_EACH)
    }

    pub fn key(self) -> Key {
        Key::numbered(STAFF_KEYS + number(self.0 / SESSIONS_EACH))
    }

    pub fn source(self) -> Ipv4Addr {
        address(STAFF_NETWORKS, self.0)
    }
}

/// The key of [`SLOTH`] or [`MALLORY`].
pub fn key_of(login: &str) -> Key {
    Key::numbered(OTHER_KEYS + u32::from(login == MALLORY))
}

/// A network for each kind of hostile peer.
pub fn hostile_source(kind: usize, worker: usize) -> Ipv4Addr {
    address(HOSTILE_NETWORKS + kind, worker % EACH_SOURCE)
}

impl Stage {
    /// Declares all of it and starts the relay.
    pub fn set(plan: &Plan) -> Self {
        let mut setup =
            Setup::new().build(plan.build).relay_spec("  limits: {connectionsPerUser: 10000}\n");
        for first in (0..plan.staff).step_by(SESSIONS_EACH) {
            let slot = Slot(first);
            setup = setup.user(user(&slot.login(), &slot.key()).group(GROUP));
        }
        setup = setup.user(user(SLOTH, &key_of(SLOTH)).group(GROUP));
        setup = setup.user(user(MALLORY, &key_of(MALLORY)));
        let mut sites: Vec<Site> = (0..plan.sites).map(Site::new).collect();
        for n in 0..plan.terminals + plan.restless() {
            let (machine, site) = (Machine(n), n % plan.sites);
            let mut terminal = Terminal::new(&machine.name())
                .service("web", 443, Some(machine.listen()))
                .label("site", &sites[site].name());
            terminal.keys.push(machine.key().public());
            setup = setup.terminal(terminal);
            if n < plan.terminals {
                sites[site].terminals.push(machine);
            }
        }
        let mut gate = setup.start();
        if let Some(process) = &mut gate.process {
            // Its log of some thousand sessions explains nothing.
            process.quiet = true;
        }
        let offer = Arc::new(Offer::default());
        Self {
            plan: plan.clone(),
            gate,
            sites,
            tally: Tally::default(),
            lag: Lag::default(),
            offer,
        }
    }

    /// What this part of the load draws from.
    pub fn draws(&self, part: u64, n: usize) -> StdRng {
        let mixed = self.plan.seed ^ (part << 56) ^ (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        StdRng::seed_from_u64(mixed)
    }

    /// Takes away what the load left declared.
    pub fn remove_windows(&self) {
        let _ = std::fs::remove_dir_all(self.gate.manifests.join("windows"));
    }
}

impl Plan {
    /// Terminals that dial again and again, and that no staff ask for.
    pub fn restless(&self) -> usize {
        self.terminals / 20
    }
}

fn user(name: &str, key: &Key) -> LoginUser {
    let mut user = LoginUser::new(name);
    user.keys.push(key.public());
    user
}
