//! How late this program's own tasks are woken: what a cut that it reads late may owe to the machine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::listener::lock;

use super::stage::Stage;

const STEP: Duration = Duration::from_millis(10);
/// What is kept; less is what a machine that idles has, too.
const WORTH: Duration = Duration::from_millis(5);
/// Lags that are kept.
const KEPT: usize = 100_000;
/// How far from an instant a lag still counts for it.
const NEAR: Duration = Duration::from_secs(1);

/// Lags, and when they ended.
#[derive(Default)]
pub struct Lag(Mutex<VecDeque<(Instant, Duration)>>);

impl Lag {
    /// The longest that ended around an instant, in milliseconds.
    pub fn around(&self, at: Instant) -> f64 {
        let lags = lock(&self.0);
        let near = lags.iter().filter(|(ended, _)| {
            at.saturating_duration_since(*ended) <= NEAR
                && ended.saturating_duration_since(at) <= NEAR
        });
        near.map(|(_, lag)| lag.as_secs_f64() * 1e3).fold(0.0, f64::max)
    }
}

pub async fn watch(stage: Arc<Stage>) {
    loop {
        let due = Instant::now() + STEP;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let lag = now.saturating_duration_since(due);
        if lag >= WORTH {
            let mut lags = lock(&stage.lag.0);
            lags.push_back((now, lag));
            if lags.len() > KEPT {
                lags.pop_front();
            }
        }
    }
}
