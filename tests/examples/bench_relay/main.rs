//! This relay against OpenSSH's sshd as the relay, in one run, and both against the floor of the
//! machine. `scripts/bench-relay.sh` builds what this needs.
//!
//! Samples of the two alternate; the median counts. Where sshd's own samples scatter too much, the
//! machine was not quiet: they are taken again, and at last called inconclusive. A table goes to
//! standard output, what is done meanwhile to standard error.

mod client;
mod compare;
mod cut;
mod floor;
mod idle;
mod metric;
mod opens;
mod relays;
mod service;
mod session;
mod table;
mod transfer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::runtime::Runtime;

use crate::compare::{Plan, Row};
use crate::idle::Counts;
use crate::opens::Load;
use crate::table::Report;
use crate::transfer::{CIPHERS, Distance, Leg, short};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Open and seal, and a TCP copy: what no relay can do without
    Floor,
    /// Throughput and the relay's processor time, for each cipher and direction
    Transfer,
    /// From starting ssh -W to the first byte
    Dial,
    /// Transfer and dial over a long line
    Far,
    /// Private memory of an idle terminal
    Idle,
    /// Channel opens at a steady rate
    Opens,
    /// Sessions that share one deadline
    Cut,
}

/// This relay against sshd as the relay, and both against the floor of the machine
#[derive(Debug, Parser)]
struct Args {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Two minutes instead of twenty; what is given beside it holds
    #[arg(long)]
    short: bool,
    /// Samples of each relay, of which the median counts [default: 5, short: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// How often rounds are run while sshd's samples scatter [default: 5, short: 1]
    #[arg(long)]
    repeats: Option<usize>,
    /// Of one transfer [default: 1024, short: 128]
    #[arg(long)]
    megabytes: Option<u64>,
    /// Of one transfer over a long line [default: 128, short: 8]
    #[arg(long)]
    far_megabytes: Option<u64>,
    /// Round trips of the long line, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [50, 200])]
    round_trips: Vec<u64>,
    /// Where the long line lies
    #[arg(long, value_enum, default_value = "staff")]
    leg: Leg,
    /// Ciphers, as aes128-gcm; the first alone where the cipher does not matter
    #[arg(long, value_delimiter = ',', default_values_t = CIPHERS.map(|it| short(it).to_owned()))]
    ciphers: Vec<String>,
    /// Idle terminals on this relay [default: 10000, short: 1000]
    #[arg(long)]
    idle: Option<u32>,
    /// Idle terminals on sshd [default: 200, short: 50]
    #[arg(long)]
    idle_sshd: Option<u32>,
    /// Channel opens each second
    #[arg(long, default_value_t = 1000)]
    opens: u32,
    /// For how many seconds [default: 5, short: 2]
    #[arg(long)]
    seconds: Option<u32>,
    /// Sessions that share one deadline [default: 1000, short: 200]
    #[arg(long)]
    sessions: Option<usize>,
    /// The table as JSON, with every sample
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Plan {
        let (rounds, repeats) = if self.short { (3, 1) } else { (5, 5) };
        Plan { rounds: self.rounds.unwrap_or(rounds), repeats: self.repeats.unwrap_or(repeats) }
    }

    /// The option as given, else by the form of the run.
    fn pick<T>(&self, given: Option<T>, long: T, short: T) -> T {
        given.unwrap_or(if self.short { short } else { long })
    }

    fn bytes(&self) -> u64 {
        self.pick(self.megabytes, 1024, 128) * 1_000_000
    }

    /// The full names of the ciphers.
    fn ciphers(&self) -> Vec<String> {
        let full = |name: &String| {
            let found = CIPHERS.into_iter().find(|cipher| short(cipher) == short(name));
            found.unwrap_or_else(|| panic!("no cipher {name}; there are {CIPHERS:?}")).to_owned()
        };
        self.ciphers.iter().map(full).collect()
    }
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.spawn(tidegate_tests::interrupt::end_all_when_asked());
    let mut report = Report { about: table::machine(), ..Report::default() };
    let plan = args.plan();
    report.about.push((
        "run",
        format!(
            "median of {}, up to {} times; {} MB a transfer; {}",
            plan.rounds,
            plan.repeats,
            args.bytes() / 1_000_000,
            tidegate_tests::programs::relay(tidegate_tests::programs::Build::Release).display()
        ),
    ));
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        // What one part meets does not lose the figures of the others.
        let ran = catch_unwind(AssertUnwindSafe(|| run(*part, &args, &runtime, &mut report)));
        if let Err(panic) = ran {
            let why = panic.downcast_ref::<String>().map(String::as_str);
            let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
            report.failed.push(format!("{part:?}: {why}"));
        }
    }
    print!("{}", report.markdown());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.json()).expect("JSON");
        std::fs::write(path, text + "\n").expect("the JSON file is written");
    }
    if report.failed.is_empty() {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}

fn run(part: Part, args: &Args, runtime: &Runtime, report: &mut Report) {
    let (plan, ciphers) = (args.plan(), args.ciphers());
    let rows: Vec<Row> = match part {
        Part::Floor => {
            report.floors = floor::floors(&ciphers, plan.rounds, args.bytes());
            Vec::new()
        }
        Part::Transfer => transfer::near(&plan, &ciphers, args.bytes()),
        Part::Dial => transfer::dial(&plan, &ciphers),
        Part::Far => {
            let bytes = args.pick(args.far_megabytes, 128, 8) * 1_000_000;
            let lines = args
                .round_trips
                .iter()
                .map(|ms| Distance { round_trip: Duration::from_millis(*ms), leg: args.leg });
            lines.flat_map(|line| transfer::far(&plan, &ciphers, line, bytes)).collect()
        }
        Part::Idle => {
            let counts = Counts {
                tidegate: args.pick(args.idle, 10_000, 1000),
                sshd: args.pick(args.idle_sshd, 200, 50),
            };
            idle::memory(&plan, counts, runtime)
        }
        Part::Opens => {
            let load = Load { per_second: args.opens, seconds: args.pick(args.seconds, 5, 2) };
            opens::opens(&plan, load, runtime)
        }
        Part::Cut => cut::cut(&plan, args.pick(args.sessions, 1000, 200)),
    };
    report.rows.extend(rows);
}
