//! The soak: a relay under many terminals, staff that come and go, windows that open and close, and
//! hostile peers beside them, for long; what the relay's process holds meanwhile, and a verdict.
//!
//! Everything that is drawn at random hangs on the plan's seed; what the machine's scheduler makes of
//! it does not.

mod hostile;
mod lag;
pub mod plot;
mod sample;
pub mod slope;
mod staff;
mod stage;
mod tally;
mod terminals;
mod verdict;
mod windows;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::programs::Build;
pub use sample::Sample;
use sample::Sampler;
use stage::Stage;
pub use tally::{Cut, Totals};
pub use verdict::{Growth, Verdict};

/// How long the relay has to come to rest: what has not proved a key lives 20 s (DESIGN.md section 6,
/// Caps), and a key that may not enter 30 s.
const REST: Duration = Duration::from_secs(45);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub build: Build,
    pub seed: u64,
    /// Terminals that stay; one for each twenty of them dials again and again beside them.
    pub terminals: usize,
    /// Sessions of staff at once.
    pub staff: usize,
    /// Hostile peers of each kind at once.
    pub hostile: usize,
    /// Terminals are spread over as many sites, each with windows of its own.
    pub sites: usize,
    /// Seconds that a window is declared to be open.
    pub windows: RangeInclusive<u64>,
    /// Of the load, without the terminals' attaching and the rest at the end.
    pub lasting: Duration,
    /// Between two samples.
    pub every: Duration,
    /// Whether growth is judged: it takes minutes to tell one from noise, and a machine that does
    /// nothing else.
    pub slopes: bool,
}

impl Plan {
    /// A thousand terminals and two hundred sessions; looked at sixty times at least.
    pub fn long(seed: u64, lasting: Duration) -> Self {
        Self {
            build: Build::Release,
            seed,
            terminals: 1000,
            staff: 200,
            hostile: 3,
            sites: 20,
            windows: 20..=60,
            lasting,
            every: (lasting / 60).min(Duration::from_secs(2)),
            slopes: true,
        }
    }

    /// What CI has time for.
    pub fn short(seed: u64) -> Self {
        Self {
            build: Build::Debug,
            terminals: 100,
            staff: 20,
            hostile: 1,
            sites: 5,
            windows: 6..=12,
            every: Duration::from_secs(1),
            slopes: false,
            ..Self::long(seed, Duration::from_secs(25))
        }
    }
}

/// What came of it.
pub struct Outcome {
    pub samples: Vec<Sample>,
    /// With the terminals attached, before and after the load.
    pub start: Sample,
    pub end: Sample,
    pub cuts: Vec<Cut>,
    pub totals: Totals,
    pub verdict: Verdict,
}

/// Runs the plan; what is done meanwhile goes to standard error.
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.spawn(crate::interrupt::end_all_when_asked());
    let stage = Arc::new(Stage::set(plan));
    let sampler = Sampler::of(&stage);
    let bare = sampler.settled();
    let begun = Instant::now();
    runtime.spawn(lag::watch(Arc::clone(&stage)));
    let attached = runtime.block_on(terminals::attach(&stage));
    eprintln!("soak: {} terminals attached in {:.1?}", attached.len(), begun.elapsed());
    let start = sampler.settled();

    let (samples, taken) = sampler.run(plan.every);
    let mut load = JoinSet::new();
    {
        let _within = runtime.enter();
        windows::begin(&stage, &mut load);
        staff::begin(&stage, &mut load);
        hostile::begin(&stage, &mut load);
        terminals::begin_restless(&stage, &mut load);
    }
    runtime.block_on(async {
        let over = tokio::time::sleep(plan.lasting);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                Some(ended) = load.join_next() => {
                    // Each goes on until it is told to stop: what ends earlier has failed.
                    let why = ended.err().map_or("it returned".to_owned(), |it| it.to_string());
                    stage.tally.wrong(format!("a part of the load ended by itself: {why}"));
                }
            }
        }
        load.shutdown().await;
    });
    samples.stop();
    let samples = taken.join().expect("the sampler");
    stage.remove_windows();
    let end = sampler.rested(&start, REST);
    let cuts = stage.tally.cuts();
    drop(attached);
    let gone = sampler.rested(&bare, REST);
    let rests = [("the load", &start, &end), ("all", &bare, &gone)];
    let verdict = verdict::judge(plan, &stage, &samples, &cuts, &rests);
    let totals = stage.tally.totals();
    // Before the relay, so that nobody finds it gone.
    drop(runtime);
    Outcome { samples, start, end, cuts, totals, verdict }
}

impl Outcome {
    /// For people: counts, what was looked at, and the verdict.
    pub fn report(&self, plan: &Plan) -> String {
        let mut lines = vec![format!(
            "{} terminals, {} sessions of staff at once, {:?}, seed {}",
            plan.terminals, plan.staff, plan.lasting, plan.seed
        )];
        let counts = self.totals.counts.iter();
        lines.extend(counts.map(|(what, count)| format!("  {count:>10} {what}")));
        lines.extend(self.verdict.looked.iter().cloned());
        let broken = &self.verdict.broken;
        lines.extend(broken.iter().map(|sentence| format!("BROKEN: {sentence}")));
        lines.push(match broken.len() {
            0 if self.verdict.growth.iter().any(|it| it.what == verdict::MEMORY_IS) => {
                "The soak held: no growth, no lost byte, no late cut.".to_owned()
            }
            0 => "The soak held: no lost byte, no late cut; growth of memory was not judged."
                .to_owned(),
            count => format!("The soak did not hold: {count} thresholds are broken."),
        });
        lines.join("\n") + "\n"
    }
}
