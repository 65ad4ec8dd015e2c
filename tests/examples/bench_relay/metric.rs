//! What is measured, and what is wanted of it.

/// A figure; each in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Throughput,
    Cpu,
    Dial,
    Memory,
    OpenRate,
    OpenRefused,
    OpenMedian,
    OpenP99,
    CutMedian,
    CutP99,
    CutWorst,
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Cpu => "relay's processor",
            Self::Dial => "dial to first byte",
            Self::Memory => "private memory per idle terminal",
            Self::OpenRate => "opens answered",
            Self::OpenRefused => "opens refused",
            Self::OpenMedian => "open to first byte, p50",
            Self::OpenP99 => "open to first byte, p99",
            Self::CutMedian => "cut after the deadline, p50",
            Self::CutP99 => "cut after the deadline, p99",
            Self::CutWorst => "cut after the deadline, last",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "MB/s",
            Self::Cpu => "CPU-s/GB",
            Self::Memory => "KiB",
            Self::OpenRate => "/s",
            Self::OpenRefused => "of all",
            _ => "ms",
        }
    }
}

/// What of a row the limit is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// This relay's figure by sshd's.
    Ratio,
    /// This relay's figure.
    Value,
}

/// A limit that has to be kept, and the goal beyond it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    of: Of,
    at_most: bool,
    limit: f64,
    goal: f64,
}

impl Wanted {
    pub fn ratio_at_most(limit: f64, goal: f64) -> Self {
        Self { of: Of::Ratio, at_most: true, limit, goal }
    }

    pub fn ratio_at_least(limit: f64, goal: f64) -> Self {
        Self { of: Of::Ratio, at_most: false, limit, goal }
    }

    pub fn at_most(limit: f64, goal: f64) -> Self {
        Self { of: Of::Value, at_most: true, limit, goal }
    }

    /// `goal met`, `met` or `missed`; `inconclusive` where it hangs on a ratio that is.
    pub fn verdict(&self, relay: f64, ratio: Option<f64>, conclusive: bool) -> &'static str {
        let value = match self.of {
            Of::Value => relay,
            Of::Ratio if !conclusive => return "inconclusive",
            Of::Ratio => match ratio {
                Some(ratio) => ratio,
                None => return "inconclusive",
            },
        };
        let keeps = |bound: f64| if self.at_most { value <= bound } else { value >= bound };
        if keeps(self.goal) {
            "goal met"
        } else if keeps(self.limit) {
            "met"
        } else {
            "missed"
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = if self.of == Of::Ratio { "ratio " } else { "" };
        let sign = if self.at_most { "<=" } else { ">=" };
        write!(f, "{of}{sign} {}", self.limit)?;
        if (self.goal - self.limit).abs() > f64::EPSILON {
            write!(f, " (goal {})", self.goal)?;
        }
        Ok(())
    }
}
