//! Whether a clock was stepped, or the process stood still. Pure: it is told the time.

use std::time::Duration;

use crate::clock::{Now, signed};

/// The difference between the clocks' advances that counts as a step.
const STEP: Duration = Duration::from_millis(500);
/// The process stood still for so long: connections may be dead, and timers are late.
const STOOD: Duration = Duration::from_secs(5);

/// The clocks as they were read last.
#[derive(Debug)]
pub struct Clocks(Now);

impl Clocks {
    pub fn new(now: Now) -> Self {
        Self(now)
    }

    /// Whether something other than time has passed since the last call, which was shortly before.
    pub fn moved(&mut self, now: Now) -> bool {
        let wall = now.wall.duration_since(self.0.wall);
        let boot = now.boot.since(self.0.boot);
        self.0 = now;
        wall.saturating_sub(signed(boot)).unsigned_abs() > STEP || boot > STOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Boot;

    fn at(wall: i64, boot: u64) -> Now {
        Now {
            wall: jiff::Timestamp::from_millisecond(wall).unwrap(),
            boot: Boot::from_start(Duration::from_millis(boot)),
        }
    }

    #[test]
    fn a_step_either_way_and_a_suspend_are_noticed_once() {
        let mut clocks = Clocks::new(at(0, 0));
        assert!(!clocks.moved(at(250, 250)));
        assert!(!clocks.moved(at(900, 500)), "slewed");
        assert!(clocks.moved(at(3_600_900, 750)), "an hour forward");
        assert!(!clocks.moved(at(3_601_150, 1_000)));
        assert!(clocks.moved(at(0, 1_250)), "and back");
        assert!(clocks.moved(at(60_000, 61_250)), "asleep for a minute");
        assert!(!clocks.moved(at(60_250, 61_500)));
    }
}
