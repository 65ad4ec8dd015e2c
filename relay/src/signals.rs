//! What the process is told by signals.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::source::Reload;

/// SIGTERM drains, a second one or SIGINT ends now; SIGHUP has the policy source look again.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    reload: Reload,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Drain,
    EndNow,
}

impl Signals {
    pub fn new(reload: Reload) -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            reload,
        })
    }

    pub async fn next(&mut self) -> Told {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Told::EndNow,
                _ = self.terminate.recv() => return Told::Drain,
                _ = self.hangup.recv() => self.reload.now(),
            }
        }
    }
}
