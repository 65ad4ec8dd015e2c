//! Everything that the parts of one relay process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::claim::Claims;
use crate::locate::Registry;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::settings::Settings;
use crate::source::PolicyHandle;
use crate::staff::StaffLinks;
use crate::supervisor::Supervisor;
use crate::trail::Trail;

/// One relay replica.
pub struct Gate {
    /// The replica's name, as sessions and claims carry it in `relayPod`.
    pub name: String,
    pub policy: PolicyHandle,
    pub registry: Registry,
    pub staff: StaffLinks,
    pub sessions: Sessions,
    pub claims: Claims,
    pub trail: Trail,
    pub metrics: Metrics,
    pub tasks: Supervisor,
    pub settings: ArcSwap<Settings>,
    draining: AtomicBool,
}

impl Gate {
    #[expect(clippy::too_many_arguments, reason = "each part is made where its errors are told")]
    pub fn new(
        name: String,
        policy: PolicyHandle,
        claims: Claims,
        trail: Trail,
        metrics: Metrics,
        tasks: Supervisor,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            policy,
            registry: Registry::default(),
            staff: StaffLinks::default(),
            sessions: Sessions::default(),
            claims,
            trail,
            metrics,
            tasks,
            settings: ArcSwap::from_pointee(settings),
            draining: AtomicBool::new(false),
        })
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// From now on nobody is admitted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
