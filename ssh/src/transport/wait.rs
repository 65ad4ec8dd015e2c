//! How long a key exchange may take. The peer is waited for from when the last byte of what it is to
//! answer has left the output, since what is stuck there no peer can answer.

use std::time::Duration;

use crate::config::Config;
use crate::message::Fatal;
use crate::output::Output;

/// Where the exchange that is under way stands in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// When the exchange began.
    began: Duration,
    /// When our latest message of it was seen to have left.
    since: Duration,
    /// Where that message ends in the output, as [`Output::end`] tells, while it has not left.
    leaving: Option<u64>,
}

impl Wait {
    pub fn new(now: Duration) -> Self {
        Self { began: now, since: now, leaving: None }
    }

    /// A message of ours that the peer is to answer is the last in the output.
    pub fn sent(&mut self, output: &Output) {
        self.leaving = Some(output.end());
    }

    /// Looks at what has left the output.
    pub fn look(&mut self, output: &Output, now: Duration) {
        if self.leaving.is_some_and(|end| output.gone() >= end) {
            self.leaving = None;
            self.since = now;
        }
    }

    /// When [`Wait::look`] is wanted, or else the exchange has taken too long; zero is at once.
    pub fn deadline(&self, output: &Output, config: &Config) -> Option<Duration> {
        let all = self.began.checked_add(config.kex_longest);
        match self.leaving {
            None => all.min(self.since.checked_add(config.kex_patience)),
            Some(end) if output.gone() >= end => Some(Duration::ZERO),
            Some(_) => all,
        }
    }

    /// What to say where the deadline is over, at `now`.
    pub fn too_long(&self, config: &Config, now: Duration) -> Fatal {
        let all = config.kex_longest;
        if now.saturating_sub(self.began) >= all {
            return Fatal::key_exchange(format_args!(
                "the key exchange took longer than {} s; connect again",
                all.as_secs()
            ));
        }
        Fatal::key_exchange(format_args!(
            "the key exchange was not answered within {} s; connect again",
            config.kex_patience.as_secs()
        ))
    }
}
