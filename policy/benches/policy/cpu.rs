//! Time of the processor that this thread had, rather than time that went by: other processes on the
//! machine are no part of it.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = i64;
    /// Nanoseconds.
    type Value = i64;

    fn start(&self) -> i64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }

    fn end(&self, start: i64) -> i64 {
        self.start() - start
    }

    fn add(&self, one: &i64, other: &i64) -> i64 {
        one + other
    }

    fn zero(&self) -> i64 {
        0
    }

    #[expect(clippy::cast_precision_loss, reason = "a bench of less than 100 days")]
    fn to_f64(&self, value: &i64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}
