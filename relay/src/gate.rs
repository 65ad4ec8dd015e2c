//! Everything that the parts of one relay process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::claim::FileClaims;
use crate::locate::Registry;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::settings::Settings;
use crate::source::{Feed, Policy};
use crate::staff::StaffLinks;
use crate::supervisor::Supervisor;
use crate::trail::Trail;
use crate::warden::LastLook;

/// One relay replica.
pub struct Gate {
    /// The replica's name, as sessions and claims carry it in `relayPod`.
    pub name: String,
    pub policy: Feed,
    pub registry: Registry,
    pub staff: StaffLinks,
    pub sessions: Sessions,
    pub claims: FileClaims,
    pub trail: Trail,
    pub metrics: Arc<Metrics>,
    pub last_look: LastLook,
    pub tasks: Supervisor,
    pub settings: ArcSwap<Settings>,
    draining: AtomicBool,
}

impl Gate {
    #[expect(clippy::too_many_arguments, reason = "each part is made where its errors are told")]
    pub fn new(
        name: String,
        policy: Feed,
        claims: FileClaims,
        trail: Trail,
        metrics: Arc<Metrics>,
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
            last_look: LastLook::default(),
            tasks,
            settings: ArcSwap::from_pointee(settings),
            draining: AtomicBool::new(false),
        })
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The policy in force now.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// From now on nobody is admitted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
