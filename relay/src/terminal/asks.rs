//! How often a terminal may offer services and take them back on one connection (RFC 4254 section 7.1
//! names no bound). Each costs the relay more than it costs the peer: its forwards are everybody's table.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Boot;
use crate::lock::lock;
use crate::sources::Rate;

/// As of channels. A terminal asks once for each of its services.
const RATE: Rate = Rate { per_second: 32, burst: 256 };

/// When all that one connection asked for will have taken its time.
#[derive(Debug)]
pub struct Asks(Mutex<Boot>);

impl Default for Asks {
    fn default() -> Self {
        Self(Mutex::new(Boot::from_start(Duration::ZERO)))
    }
}

impl Asks {
    /// One more: whether it is within the rate.
    pub fn one_more(&self, now: Boot) -> bool {
        let mut paid = lock(&self.0);
        let Some(next) = RATE.one_more(*paid, now) else { return false };
        *paid = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let asks = Asks::default();
        let allowed = |millis: u64| {
            let now = Boot::from_start(Duration::from_millis(millis));
            (0..1000).filter(|_| asks.one_more(now)).count()
        };
        assert_eq!([allowed(10_000), allowed(11_000), allowed(11_000)], [256, 32, 0]);
        // A rest saves no more than that up.
        assert_eq!(allowed(100_000), 256);
    }
}
