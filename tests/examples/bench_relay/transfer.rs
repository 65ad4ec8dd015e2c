//! Bytes through a relay: how fast, and how much of the processor the relay took for it; and how
//! long staff wait for the first of them.

use std::time::Duration;

use tidegate_tests::usage::{self, cpu_seconds};
use tidegate_tests::{DelayLine, Proc};

use crate::compare::{Plan, Row, compare, median};
use crate::metric::{Metric, Wanted};
use crate::relays::{Relay, both};
use crate::service::{Direction, Service, give, take};
use crate::session::{PATIENCE, Session};

/// The ciphers by the names that ssh takes.
pub const CIPHERS: [&str; 3] =
    ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];

/// What OpenSSH lets a peer send before it has said that it has read: CHAN_TCP_WINDOW_DEFAULT, 64
/// packets of 32 KiB.
const OPENSSH_WINDOW: f64 = 2_097_152.0;

/// Processor time is told in steps; where one is more than this part of the figure, that is said.
const COARSE: f64 = 0.1;

/// Dials of which one sample is the median; over a long line each takes a second and varies little.
const DIALS: usize = 9;
const FAR_DIALS: usize = 3;

/// `aes128-gcm` of `aes128-gcm@openssh.com`.
pub fn short(cipher: &str) -> &str {
    cipher.split('@').next().unwrap_or(cipher)
}

/// Which leg a long line lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Leg {
    Staff,
    Terminal,
    Both,
}

/// How far apart the relay and its peers are.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    pub round_trip: Duration,
    pub leg: Leg,
}

/// Both relays with a terminal attached for each cipher. Fields are dropped in this order: an sshd
/// ends with its clients, and whoever ends it waits for that.
pub struct Paths {
    _clients: Vec<Proc>,
    relays: [Relay; 2],
    service: Service,
    ciphers: Vec<String>,
    /// The port that staff dial, of each relay.
    ports: [u16; 2],
    lines: Vec<DelayLine>,
}

impl Paths {
    pub fn open(ciphers: &[String], distance: Option<Distance>) -> Self {
        let relays = both(ciphers.len());
        let service = Service::start();
        let mut lines = Vec::new();
        let mut clients = Vec::new();
        let mut ports = [0; 2];
        for (relay, port) in relays.iter().zip(&mut ports) {
            let mut terminal = relay.port;
            *port = relay.port;
            if let Some(Distance { round_trip, leg }) = distance {
                let line = DelayLine::start(([127, 0, 0, 1], relay.port).into(), round_trip);
                if leg != Leg::Terminal {
                    *port = line.port();
                }
                if leg != Leg::Staff {
                    terminal = line.port();
                }
                lines.push(line);
            }
            for (place, cipher) in ciphers.iter().enumerate() {
                clients.push(relay.attach(terminal, cipher, place, service.port()));
            }
        }
        let ciphers = ciphers.to_vec();
        Self { _clients: clients, relays, service, ciphers, ports, lines }
    }

    fn dial(&self, which: usize, cipher: usize) -> Session {
        let name = &self.ciphers[cipher];
        Session::dial(&mut self.relays[which].staff(self.ports[which], name, cipher))
    }

    /// MB/s, and CPU-seconds of the relay per GB.
    fn transfer(&self, which: usize, cipher: usize, direction: Direction, bytes: u64) -> Vec<f64> {
        let relay = &self.relays[which];
        let mut session = self.dial(which, cipher);
        let before = cpu_seconds(relay.pid());
        let order = direction.order(bytes);
        std::io::Write::write_all(&mut session.socket, &order).expect("a write to ssh");
        let begun = std::time::Instant::now();
        let took = match direction {
            Direction::Up => {
                give(&mut session.socket, bytes).expect("all bytes taken by ssh");
                self.service.await_served(PATIENCE).last.saturating_duration_since(begun)
            }
            Direction::Down => {
                let taken = take(&mut session.socket, bytes);
                let ended = std::time::Instant::now();
                if let Err(wrong) = taken {
                    panic!("staff got {wrong}");
                }
                ended.saturating_duration_since(self.service.await_served(PATIENCE).first)
            }
        };
        let cpu = cpu_seconds(relay.pid()) - before;
        #[expect(clippy::cast_precision_loss, reason = "a few GB fit an f64")]
        let bytes = bytes as f64;
        vec![bytes / 1e6 / took.as_secs_f64(), cpu / (bytes / 1e9)]
    }

    /// All ciphers and directions.
    pub fn transfers(&self, plan: &Plan, part: &str, suffix: &str, bytes: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for (cipher, name) in self.ciphers.iter().enumerate() {
            for direction in Direction::BOTH {
                let setting = format!("{} {}{suffix}", short(name), direction.name());
                let metrics = [Metric::Throughput, Metric::Cpu];
                let sample = |which| self.transfer(which, cipher, direction, bytes);
                rows.extend(compare(plan, part, &setting, &metrics, sample));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a few GB fit an f64")]
        let step = usage::RESOLUTION / (bytes as f64 / 1e9);
        for row in rows.iter_mut().filter(|row| row.metric == Metric::Cpu) {
            if step > median(row.relay.clone()) * COARSE {
                row.note = format!("in steps of {step:.2}; too few bytes");
            }
        }
        rows
    }

    /// The first cipher alone: a dial is all key exchange and logins.
    pub fn dials(&self, plan: &Plan, part: &str, suffix: &str) -> Vec<Row> {
        let setting = format!("ssh -W{suffix}");
        let dials = if self.lines.is_empty() { DIALS } else { FAR_DIALS };
        let sample = |which| {
            let times = (0..dials).map(|_| self.dial(which, 0).dial.as_secs_f64() * 1e3).collect();
            vec![median(times)]
        };
        compare(plan, part, &setting, &[Metric::Dial], sample)
    }
}

/// Whose window bounds a transfer over a long line. Toward a peer it is the peer's, whatever the
/// relay does; where the relay receives, its own.
fn limit(distance: Distance, direction: Direction) -> String {
    let to_peer = match direction {
        Direction::Up => distance.leg != Leg::Staff,
        Direction::Down => distance.leg != Leg::Terminal,
    };
    if !to_peer {
        return "bounded by the relay's own window".to_owned();
    }
    let most = OPENSSH_WINDOW / 1e6 / distance.round_trip.as_secs_f64();
    format!("ssh's window of 2 MiB allows {most:.1} MB/s")
}

/// On loopback.
pub fn near(plan: &Plan, ciphers: &[String], bytes: u64) -> Vec<Row> {
    let mut rows = Paths::open(ciphers, None).transfers(plan, "transfer", "", bytes);
    for row in rows.iter_mut().filter(|row| row.setting.starts_with("aes128-gcm")) {
        row.wanted = match row.metric {
            Metric::Throughput => Some(Wanted::ratio_at_least(1.3, 1.5)),
            Metric::Cpu => Some(Wanted::ratio_at_most(0.4, 0.25)),
            _ => None,
        };
    }
    rows
}

pub fn dial(plan: &Plan, ciphers: &[String]) -> Vec<Row> {
    Paths::open(&ciphers[..1], None).dials(plan, "dial", "")
}

/// Over a long line, with the first cipher.
pub fn far(plan: &Plan, ciphers: &[String], distance: Distance, bytes: u64) -> Vec<Row> {
    let paths = Paths::open(&ciphers[..1], Some(distance));
    let leg = match distance.leg {
        Leg::Staff => "staff",
        Leg::Terminal => "terminal",
        Leg::Both => "both legs",
    };
    let suffix = format!(", {} ms to {leg}", distance.round_trip.as_millis());
    let mut rows = paths.transfers(plan, "far", &suffix, bytes);
    for row in rows.iter_mut().filter(|row| row.metric == Metric::Throughput) {
        row.wanted = Some(Wanted::ratio_at_least(1.0, 1.0));
        row.note = limit(
            distance,
            if row.setting.contains(" up") { Direction::Up } else { Direction::Down },
        );
    }
    rows.extend(paths.dials(plan, "far", &suffix));
    rows
}
