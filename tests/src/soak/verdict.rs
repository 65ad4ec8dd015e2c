//! What the run has to show, each threshold with where it comes from; one sentence for each that is
//! broken.

use std::sync::Arc;

use super::slope::{self, Slope, blocks, theil_sen};
use super::stage::Stage;
use super::{Cut, Plan, Sample};

/// A session is cut at most 1 s late (DESIGN.md section 3, invariant 2). In milliseconds.
pub const LATE: f64 = 1000.0;
/// And within 1 s of when an edit that revokes it can be read (invariant 3): a directory that is edited
/// all along is read 400 ms after the first change at the latest (section 6, Policy source).
const REVOKED: f64 = 1400.0;
/// Growth is judged over this last part of the load: before it, caches fill and allocators learn.
const JUDGED: f64 = 2.0 / 3.0;
/// What memory is called in a verdict.
pub const MEMORY_IS: &str = "private memory";
/// Memory comes back to within 5 % after hostile peers (issue 6): no more may be lost in a run.
const MEMORY: f64 = 0.05;
/// And only from here on, in seconds: in runs of a thousand terminals it rises ever more slowly for some
/// minutes, until each of them has had sessions.
const MEMORY_WARM: f64 = 300.0;
/// An allocator keeps a few pages for each of its arenas; in KiB.
const MEMORY_LEAST: f64 = 1024.0;
/// Tasks of a connection, as measured at rest: 3,008 with 1,000 terminals, 8 with none.
const TASKS_EACH: f64 = 3.0;
/// Of descriptors and tasks beyond those of the connections that are served: hostile peers that hold a
/// key have some at any time. A leak of one for each hostile peer is hundreds a minute.
const COUNT_LEAST: f64 = 12.0;
/// Threads are as many as processors, and those of blocking calls, which come and go.
const THREADS_LEAST: f64 = 4.0;

/// How something grew over the judged part.
#[derive(Clone, Debug)]
pub struct Growth {
    pub what: &'static str,
    pub unit: &'static str,
    /// By second.
    pub slope: Slope,
    /// From and until when, in seconds of the load.
    pub over: (f64, f64),
    pub mean: f64,
    /// What it may have grown by.
    pub bound: f64,
}

impl Growth {
    pub fn grown(&self) -> f64 {
        self.slope.slope * (self.over.1 - self.over.0)
    }

    /// More than its bound, and more than noise: the whole interval of 99 % lies above 0.
    pub fn is_broken(&self) -> bool {
        self.slope.low > 0.0 && self.grown() > self.bound
    }

    fn words(&self) -> String {
        let seconds = self.over.1 - self.over.0;
        let Self { what, unit, slope, mean, bound, .. } = self;
        format!(
            "{what} grew by {:.1} {unit} ({:.1} to {:.1} with 99 % confidence) in the last {seconds:.0} s, \
             around {mean:.1}; {bound:.1} may be",
            self.grown(),
            slope.low * seconds,
            slope.high * seconds,
        )
    }
}

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub growth: Vec<Growth>,
    /// What was looked at, a sentence each.
    pub looked: Vec<String>,
    pub broken: Vec<String>,
}

struct Judged {
    what: &'static str,
    unit: &'static str,
    value: fn(&Sample) -> f64,
    share: f64,
    least: f64,
    /// Seconds of load before which it is not judged.
    warm: f64,
}

const JUDGED_BY_SLOPE: [Judged; 4] = [
    Judged {
        what: MEMORY_IS,
        unit: "KiB",
        value: |it| it.memory_kib,
        share: MEMORY,
        least: MEMORY_LEAST,
        warm: MEMORY_WARM,
    },
    Judged {
        what: "descriptors beyond those of the connections",
        unit: "",
        value: |it| it.descriptors - connections(it),
        share: 0.0,
        least: COUNT_LEAST,
        warm: 0.0,
    },
    Judged {
        what: "tasks beyond those of the connections",
        unit: "",
        value: |it| it.tasks - TASKS_EACH * connections(it),
        share: 0.0,
        least: COUNT_LEAST,
        warm: 0.0,
    },
    Judged {
        what: "threads",
        unit: "",
        value: |it| it.threads,
        share: 0.0,
        least: THREADS_LEAST,
        warm: 0.0,
    },
];

/// Connections that the relay serves: what comes and goes with the load. Each session of this load has
/// one of its own.
fn connections(sample: &Sample) -> f64 {
    sample.terminals + sample.sessions + sample.unauthenticated
}

fn growth(samples: &[Sample], judged: &Judged) -> Option<Growth> {
    let until = samples.last()?.at;
    let from = (until * (1.0 - JUDGED)).max(judged.warm);
    let points = samples.iter().filter(|it| it.at >= from).map(|it| (it.at, (judged.value)(it)));
    let points: Vec<_> = points.filter(|(_, value)| value.is_finite()).collect();
    let slope = theil_sen(&blocks(&points))?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
    let mean = points.iter().map(|(_, value)| value).sum::<f64>() / points.len() as f64;
    let Judged { what, unit, share, least, .. } = *judged;
    Some(Growth { what, unit, slope, over: (from, until), mean, bound: (share * mean).max(least) })
}

pub fn judge(
    plan: &Plan,
    stage: &Arc<Stage>,
    samples: &[Sample],
    cuts: &[Cut],
    rests: &[(&str, &Sample, &Sample)],
) -> Verdict {
    let mut verdict = Verdict::default();
    let totals = stage.tally.totals();
    let times = |(sentence, count): (&String, &u64)| match count {
        1 => sentence.clone(),
        _ => format!("{sentence} ({count} times)"),
    };
    verdict.broken.extend(totals.wrong.iter().map(times));
    if totals.more_wrong > 0 {
        verdict.broken.push(format!("{} more of the like happened", totals.more_wrong));
    }
    for what in ["sessions that staff ended", "sessions that were cut", "bytes that came back"] {
        if totals.counts.get(what).copied().unwrap_or_default() == 0 {
            verdict.broken.push(format!("there were no {what}: the run shows nothing"));
        }
    }
    late(stage, cuts, &mut verdict);
    let overran = samples.last().map_or(0.0, |it| it.overran);
    verdict
        .looked
        .push(format!("by the relay's clock, {overran} sessions ran over by more than 1 s"));
    if overran > 0.0 {
        verdict
            .broken
            .push(format!("{overran} sessions ran over by more than 1 s, by the relay's clock"));
    }
    for (what, before, after) in rests {
        back(what, before, after, &mut verdict);
    }
    if plan.slopes {
        for judged in &JUDGED_BY_SLOPE {
            let Some(growth) = growth(samples, judged) else {
                verdict.looked.push(format!(
                    "growth of {} was not judged: fewer than {} samples came after its first {:.0} s, so let the \
                     run last longer",
                    judged.what,
                    slope::FEWEST,
                    judged.warm
                ));
                continue;
            };
            let words = growth.words();
            if growth.is_broken() {
                verdict.broken.push(words.clone());
            }
            verdict.looked.push(words);
            verdict.growth.push(growth);
        }
    }
    verdict
}

fn late(stage: &Stage, cuts: &[Cut], verdict: &mut Verdict) {
    use super::windows::Why;
    for why in Why::ALL {
        let of: Vec<&Cut> = cuts.iter().filter(|it| it.why == why).collect();
        let bound = if why == Why::Suspended { REVOKED } else { LATE };
        // What this program itself was kept waiting is the machine's, not the relay's.
        let broken: Vec<f64> = of
            .iter()
            .filter(|it| it.late - stage.lag.around(it.at) > bound)
            .map(|it| it.late)
            .collect();
        let mut all: Vec<f64> = of.iter().map(|it| it.late).collect();
        all.sort_by(f64::total_cmp);
        let Some(worst) = all.last() else { continue };
        let (half, most) = (all[all.len() / 2], all[all.len() * 99 / 100]);
        verdict.looked.push(format!(
            "{} sessions were cut {}: {half:.0} ms late by the median, 99 % of them within {most:.0} ms, the \
             last {worst:.0} ms",
            all.len(),
            why.words(),
        ));
        if let Some(worst) = broken.iter().copied().reduce(f64::max) {
            verdict.broken.push(format!(
                "{} sessions were cut {} more than {bound} ms late, the last of them {worst:.0} ms",
                broken.len(),
                why.words(),
            ));
        }
    }
}

fn back(what: &str, before: &Sample, after: &Sample, verdict: &mut Verdict) {
    let memory = after.memory_kib - before.memory_kib;
    verdict.looked.push(format!(
        "after {what}: {} of {} descriptors, {} of {} tasks, {} of {} threads, {} sessions, {memory:.0} KiB \
         more than {:.0}",
        after.descriptors,
        before.descriptors,
        after.tasks,
        before.tasks,
        after.threads,
        before.threads,
        after.sessions,
        before.memory_kib,
    ));
    if !after.is_back_to(before) {
        verdict.broken.push(format!(
            "after {what} the relay did not come back to its start: {} descriptors instead of {}, {} tasks \
             instead of {}, {} sessions, {} terminals, {} unauthenticated connections",
            after.descriptors,
            before.descriptors,
            after.tasks,
            before.tasks,
            after.sessions,
            after.terminals,
            after.unauthenticated,
        ));
    }
}
