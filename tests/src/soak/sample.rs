//! What the relay's process holds: by /proc, and by its own metrics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::Metrics;
use crate::procfs::{descriptors, threads};
use crate::usage::{cpu_seconds, private_kib};

use super::stage::Stage;

/// Two looks at a process that is at rest differ by no more than this much memory, in KiB.
const STILL: f64 = 256.0;
/// How long it is waited for that rest.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);

/// One look. Counts are `f64`, as they are plotted; NaN where the metrics did not answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Seconds since the load began.
    pub at: f64,
    /// `Private_*` of smaps_rollup.
    pub memory_kib: f64,
    pub descriptors: f64,
    pub threads: f64,
    /// `tidegate_supervisor_tasks`.
    pub tasks: f64,
    pub sessions: f64,
    pub terminals: f64,
    pub unauthenticated: f64,
    /// Windows in force.
    pub windows: f64,
    /// Seconds of the processors since the relay began.
    pub cpu: f64,
    /// Sessions that ran over by more than 1 s, by the relay's own clock.
    pub overran: f64,
    /// The latest cut since the sample before, in milliseconds as its client saw it; NaN without one.
    pub latest_cut: f64,
}

impl Sample {
    /// The columns of [`Sample::row`], for the head of a CSV file.
    pub const COLUMNS: &str = "seconds,private_kib,descriptors,threads,tasks,sessions,terminals,\
                               unauthenticated,windows,cpu_seconds,overran,latest_cut_ms";

    pub fn row(&self) -> String {
        let values = [
            self.at,
            self.memory_kib,
            self.descriptors,
            self.threads,
            self.tasks,
            self.sessions,
            self.terminals,
            self.unauthenticated,
            self.windows,
            self.cpu,
            self.overran,
            self.latest_cut,
        ];
        let cell = |value: f64| if value.is_nan() { String::new() } else { format!("{value:.3}") };
        values.map(cell).join(",")
    }

    /// Whether the relay holds no more than at another time at which it did nothing.
    pub fn is_back_to(&self, rest: &Self) -> bool {
        self.sessions <= rest.sessions
            && self.unauthenticated <= rest.unauthenticated
            && self.terminals <= rest.terminals
            && self.descriptors <= rest.descriptors
            && self.tasks <= rest.tasks
    }
}

#[derive(Clone)]
pub struct Sampler {
    stage: Arc<Stage>,
    pid: i32,
}

/// Ends the sampler's thread.
pub struct Stop(Sender<()>);

impl Stop {
    pub fn stop(self) {
        let _ = self.0.send(());
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and KiB fit an f64")]
impl Sampler {
    pub fn of(stage: &Arc<Stage>) -> Self {
        Self { stage: Arc::clone(stage), pid: stage.gate.relay().pid() }
    }

    pub fn look(&self) -> Sample {
        // Before the relay has a connection of this very look.
        let descriptors = descriptors(self.pid) as f64;
        let metrics = Metrics::read(self.stage.gate.admin);
        let metric = |name: &str| metrics.as_ref().and_then(|it| it.get(name)).unwrap_or(f64::NAN);
        let overrun = |bucket: &str| metric(&format!("tidegate_cut_overrun_milliseconds_{bucket}"));
        Sample {
            at: 0.0,
            memory_kib: private_kib(&BTreeSet::from([self.pid])) as f64,
            descriptors,
            threads: threads(self.pid) as f64,
            tasks: metric("tidegate_supervisor_tasks"),
            sessions: metric("tidegate_sessions_current"),
            terminals: metric("tidegate_terminals_connected"),
            unauthenticated: metric("tidegate_connections_unauthenticated"),
            windows: metric("tidegate_policy_objects{kind=\"SupportWindow\"}"),
            cpu: cpu_seconds(self.pid),
            overran: overrun("count") - overrun("bucket{le=\"1000\"}"),
            latest_cut: f64::NAN,
        }
    }

    /// A look once its memory stands still.
    pub fn settled(&self) -> Sample {
        let until = Instant::now() + PATIENCE;
        let (mut last, mut still) = (self.look(), 0);
        while still < 3 && Instant::now() < until {
            std::thread::sleep(LOOK);
            let now = self.look();
            let same = (now.memory_kib - last.memory_kib).abs() <= STILL;
            still = if same { still + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// A look once it holds no more than at `before`, or when `within` has passed.
    pub fn rested(&self, before: &Sample, within: Duration) -> Sample {
        let until = Instant::now() + within;
        loop {
            let now = self.settled();
            if now.is_back_to(before) || Instant::now() >= until {
                return now;
            }
        }
    }

    /// Looks again and again in a thread of its own.
    pub fn run(&self, every: Duration) -> (Stop, JoinHandle<Vec<Sample>>) {
        let (sender, stop) = channel();
        let sampler = self.clone();
        let thread = std::thread::spawn(move || {
            let (begun, mut seen, mut samples) = (Instant::now(), 0, Vec::new());
            let mut due = begun + every;
            while let Err(RecvTimeoutError::Timeout) =
                stop.recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                due += every;
                let mut sample = Sample { at: begun.elapsed().as_secs_f64(), ..sampler.look() };
                let (latest, now) = sampler.stage.tally.latest_cut(seen);
                sample.latest_cut = latest.unwrap_or(f64::NAN);
                seen = now;
                tell(&sample, samples.len());
                samples.push(sample);
            }
            samples
        });
        (Stop(sender), thread)
    }
}

/// A line now and then.
fn tell(sample: &Sample, count: usize) {
    if count.is_multiple_of(15) {
        let Sample { at, memory_kib, descriptors, threads, tasks, sessions, windows, cpu, .. } =
            sample;
        eprintln!(
            "soak: {at:.0} s: {:.1} MiB, {descriptors} descriptors, {threads} threads, {tasks} tasks, \
             {sessions} sessions, {windows} windows, {cpu:.1} s of the processors",
            memory_kib / 1024.0
        );
    }
}
