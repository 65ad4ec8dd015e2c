//! Whether this replica should get new connections: what its gate says, and what its policy source
//! does. The admin port asks from before there is a policy.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::admin::{Attached, Health};
use crate::gate::Gate;
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::source::kube::Status;

/// Of a relay in a cluster.
#[derive(Debug)]
pub struct Readiness {
    source: Arc<Status>,
    gate: OnceLock<Weak<Gate>>,
    /// What it waits for beside a policy, in one sentence.
    waits: Mutex<Option<String>>,
}

impl Readiness {
    pub fn new(source: Arc<Status>) -> Self {
        Self { source, gate: OnceLock::new(), waits: Mutex::default() }
    }

    /// There is a policy, and this has to come before the gate opens.
    pub fn waits_for(&self, why: String) {
        let mut waits = lock(&self.waits);
        if waits.as_ref() != Some(&why) {
            tracing::warn!(%why, "waiting");
            *waits = Some(why);
        }
    }

    /// The gate listens.
    pub fn opened(&self, gate: &Arc<Gate>) {
        let _ = self.gate.set(Arc::downgrade(gate));
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.get()?.upgrade()
    }
}

impl Health for Readiness {
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = self.source.incomplete();
        match self.gate() {
            Some(gate) => reasons.append(&mut gate.not_ready()),
            None if reasons.is_empty() => {
                let waits = lock(&self.waits).clone();
                reasons.push(waits.unwrap_or_else(|| "the relay is opening its ports".into()));
            }
            None => {}
        }
        reasons
    }

    fn attached(&self) -> Vec<Attached> {
        self.gate().map(|gate| gate.attached()).unwrap_or_default()
    }

    fn refresh(&self, metrics: &Metrics) {
        if let Some(gate) = self.gate() {
            gate.refresh(metrics);
        }
        metrics.set_ready(self.not_ready().is_empty());
    }
}
