//! One relay against the other: samples in turn, the median of each, and whether that says anything.

use crate::metric::{Metric, Wanted};

/// Where sshd's own samples lie further apart than this, by their median, the machine was not quiet.
pub const SPREAD: f64 = 0.15;

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Samples of each relay, of which the median counts.
    pub rounds: usize,
    /// How often all rounds are run while sshd's spread is above [`SPREAD`].
    pub repeats: usize,
}

/// One figure of both relays. `sshd` is empty where sshd has nothing like it.
#[derive(Clone, Debug)]
pub struct Row {
    pub part: String,
    pub setting: String,
    pub metric: Metric,
    pub relay: Vec<f64>,
    pub sshd: Vec<f64>,
    /// How often the rounds were run.
    pub attempts: usize,
    pub wanted: Option<Wanted>,
    pub note: String,
}

impl Row {
    /// Of this relay alone.
    pub fn alone(part: &str, setting: &str, metric: Metric, relay: Vec<f64>) -> Self {
        Self {
            part: part.to_owned(),
            setting: setting.to_owned(),
            metric,
            relay,
            sshd: Vec::new(),
            attempts: 1,
            wanted: None,
            note: String::new(),
        }
    }

    /// This relay's median by sshd's, where sshd's is something.
    pub fn ratio(&self) -> Option<f64> {
        let ratio = median(self.relay.clone()) / median(self.sshd.clone());
        ratio.is_finite().then_some(ratio)
    }

    pub fn conclusive(&self) -> bool {
        self.sshd.is_empty() || spread(&self.sshd) <= SPREAD
    }

    /// What came of what is wanted, if anything is.
    pub fn verdict(&self) -> Option<&'static str> {
        let relay = median(self.relay.clone());
        Some(self.wanted?.verdict(relay, self.ratio(), self.conclusive()))
    }
}

/// The middle one, or the mean of both.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The value that `part` of all are not above, by nearest rank.
pub fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among a few thousand"
    )]
    let rank = (values.len() as f64 * part).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// How far apart the values lie, by their median.
pub fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    if most > least { (most - least) / median(values.to_vec()) } else { 0.0 }
}

/// Takes samples of both relays in turn; `sample` gives one value for each metric, of the relay 0
/// (this one) or 1 (sshd). Repeats all rounds while any of sshd's figures scatters, and keeps of each
/// metric the rounds in which it scattered least.
pub fn compare(
    plan: &Plan,
    part: &str,
    setting: &str,
    metrics: &[Metric],
    mut sample: impl FnMut(usize) -> Vec<f64>,
) -> Vec<Row> {
    let mut kept: Vec<Option<Row>> = vec![None; metrics.len()];
    let mut attempts = 0;
    for attempt in 1..=plan.repeats.max(1) {
        attempts = attempt;
        let mut samples = [vec![Vec::new(); metrics.len()], vec![Vec::new(); metrics.len()]];
        for round in 0..plan.rounds.max(1) {
            // Neither always comes after the other.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                let values = sample(which);
                eprintln!("{part}: {setting}: {} {values:.2?}", ["tidegate", "sshd"][which]);
                for (into, value) in samples[which].iter_mut().zip(values) {
                    into.push(value);
                }
            }
        }
        let [relay, sshd] = samples;
        for (index, (relay, sshd)) in relay.into_iter().zip(sshd).enumerate() {
            let better = kept[index].as_ref().is_none_or(|row| spread(&sshd) < spread(&row.sshd));
            if better {
                kept[index] =
                    Some(Row { sshd, ..Row::alone(part, setting, metrics[index], relay) });
            }
        }
        if kept.iter().flatten().all(Row::conclusive) {
            break;
        }
    }
    kept.into_iter().flatten().map(|row| Row { attempts, ..row }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { rounds: 3, repeats: 5 };

    fn run(sshd: impl Fn(u32) -> f64) -> (Row, [u32; 2]) {
        let mut asked = [0; 2];
        let rows = compare(&PLAN, "part", "setting", &[Metric::Throughput], |which| {
            asked[which] += 1;
            vec![if which == 0 { 30.0 } else { sshd(asked[1]) }]
        });
        (rows.into_iter().next().expect("one row"), asked)
    }

    #[test]
    fn a_quiet_machine_is_asked_once() {
        let (row, asked) = run(|n| [9.5, 10.0, 10.5][n as usize - 1]);
        assert_eq!((row.attempts, asked, row.conclusive()), (1, [3, 3], true));
        assert_eq!(row.ratio(), Some(3.0));
    }

    #[test]
    fn a_noisy_start_is_measured_again_and_forgotten() {
        let (row, asked) = run(|n| if n <= 3 { 10.0 * f64::from(n) } else { 20.0 });
        assert_eq!((row.attempts, asked, row.conclusive()), (2, [6, 6], true));
        assert_eq!(row.ratio(), Some(1.5));
    }

    #[test]
    fn a_machine_that_stays_noisy_says_nothing() {
        let (mut row, asked) = run(|n| if n % 2 == 0 { 10.0 } else { 20.0 });
        assert_eq!((row.attempts, asked, row.conclusive()), (5, [15, 15], false));
        row.wanted = Some(Wanted::ratio_at_least(1.0, 1.0));
        assert_eq!(row.verdict(), Some("inconclusive"));
    }

    #[test]
    fn verdicts_know_limit_and_goal() {
        let most = Wanted::ratio_at_most(0.4, 0.25);
        let told = [0.2, 0.3, 0.5].map(|ratio| most.verdict(0.0, Some(ratio), true));
        assert_eq!(told, ["goal met", "met", "missed"]);
        let least = Wanted::ratio_at_least(1.3, 1.5);
        let told = [1.6, 1.4, 1.2].map(|ratio| least.verdict(0.0, Some(ratio), true));
        assert_eq!(told, ["goal met", "met", "missed"]);
        let value = Wanted::at_most(24.0, 12.0);
        let told = [11.0, 20.0, 46.0].map(|value_| value.verdict(value_, None, false));
        assert_eq!(told, ["goal met", "met", "missed"]);
        assert_eq!(most.to_string(), "ratio <= 0.4 (goal 0.25)");
    }

    #[test]
    fn medians_and_percentiles() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(hundred.clone(), 0.99) - 99.0).abs() < 1e-9);
        assert!((percentile(hundred, 0.5) - 50.0).abs() < 1e-9);
        assert!((spread(&[9.0, 10.0, 11.0]) - 0.2).abs() < 1e-9);
    }
}
