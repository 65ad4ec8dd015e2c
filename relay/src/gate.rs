//! Everything that the parts of one relay process share.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tidegate_crds::compile::RelaySettings;
use tidegate_policy::model::KeyBlob;
use tidegate_policy::snapshot::Snapshot;
use tokio_util::sync::CancellationToken;

use crate::accept::{Budget, Prefix};
use crate::barred::Barred;
use crate::claim::AnyClaims;
use crate::clock;
use crate::hostkeys::{Clients, Count};
use crate::locate::Registry;
use crate::metrics::{Metrics, Role, Unproven};
use crate::refusals::Refusals;
use crate::session::Sessions;
use crate::settings::Settings;
use crate::source::{self, Feed, Policy};
use crate::sources::Sources;
use crate::staff::StaffLinks;
use crate::supervisor::Supervisor;
use crate::terminal::TerminalLinks;
use crate::trail::Trail;
use crate::warden::LastLook;

/// What a gate is made of; each part is made where its errors are told.
pub struct Parts {
    pub name: String,
    pub policy: Feed,
    pub claims: AnyClaims,
    pub trail: Arc<Trail>,
    pub metrics: Arc<Metrics>,
    pub tasks: Supervisor,
    pub since: Timestamp,
    pub listeners: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub host_keys: Clients,
}

/// One relay replica.
pub struct Gate {
    me: Weak<Self>,
    /// The replica's name, as sessions and claims carry it in `relayPod`.
    pub name: String,
    feed: Feed,
    pub registry: Registry,
    pub staff: StaffLinks,
    pub terminals: TerminalLinks,
    pub sessions: Sessions,
    pub claims: AnyClaims,
    pub trail: Arc<Trail>,
    pub metrics: Arc<Metrics>,
    pub tasks: Supervisor,
    /// Of the connections that have not proved a key.
    pub budget: Budget,
    pub last_look: LastLook,
    pub since: Timestamp,
    pub listeners: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    /// Which clients have accepted which.
    pub host_keys: Clients,
    settings: ArcSwap<Settings>,
    /// Key exchanges, and offers of unknown keys, by source prefix.
    pub exchanges: Sources,
    pub probes: Sources,
    /// Connections that ended without a proven key, as far as they are not written down.
    pub refusals: Refusals,
    pub barred: Barred,
    draining: CancellationToken,
    closing: CancellationToken,
}

impl Gate {
    pub fn new(parts: Parts) -> Arc<Self> {
        let settings = Settings::from(&*source::current(&parts.policy).relay);
        let gate = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            name: parts.name,
            feed: parts.policy,
            registry: Registry::default(),
            staff: StaffLinks::default(),
            terminals: TerminalLinks::default(),
            sessions: Sessions::default(),
            claims: parts.claims,
            trail: parts.trail,
            metrics: parts.metrics,
            tasks: parts.tasks,
            budget: Budget::new(settings.caps),
            last_look: LastLook::default(),
            since: parts.since,
            listeners: parts.listeners,
            admin: parts.admin,
            host_keys: parts.host_keys,
            settings: ArcSwap::from_pointee(settings),
            exchanges: Sources::default(),
            probes: Sources::default(),
            refusals: Refusals::default(),
            barred: Barred::default(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        gate.last_look.begin();
        gate
    }

    /// This gate, to be kept by a task.
    pub fn me(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// The policy in force now.
    pub fn policy(&self) -> Arc<Policy> {
        source::current(&self.feed)
    }

    /// The policies to come.
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Takes over what the Relay resource asks for now. Listeners stay as they were bound.
    pub fn apply(&self, relay: &RelaySettings) {
        let settings = Settings::from(relay);
        self.budget.set_caps(settings.caps);
        self.settings.store(Arc::new(settings));
    }

    /// Forgets what clients have accepted that the policy does not know. One that is empty is a slip.
    pub fn forget_host_key_clients(&self, snapshot: &Snapshot) {
        if snapshot.users().next().is_some() || snapshot.terminals().next().is_some() {
            self.host_keys.retain(|key| role(snapshot, key).is_some());
        }
    }

    /// How many clients have accepted each host key that is offered, and how many have not.
    pub fn host_key_counts(&self) -> Vec<Count> {
        let policy = self.policy();
        let staff = self.staff.all().into_iter().map(|link| link.who.key.clone());
        let terminals = self.registry.all().into_iter().map(|link| link.key.clone());
        let connected: HashSet<_> = staff.chain(terminals).collect();
        self.host_keys.counts(|key| Some((role(&policy.snapshot, key)?, connected.contains(key))))
    }

    /// A connection ended without a proven key.
    pub fn unproven(&self, source: Prefix, why: Unproven) {
        self.metrics.unproven(why);
        self.refusals.note(source, why, clock::boot());
    }

    /// From now on nobody is admitted and nothing is accepted.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// From now on connections end, and whoever proves a key is sent away without a line.
    pub fn close(&self) {
        self.drain();
        self.closing.cancel();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Cancelled when the gate drains.
    pub fn drained(&self) -> CancellationToken {
        self.draining.clone()
    }
}

/// Whose a client's key is.
fn role(snapshot: &Snapshot, key: &KeyBlob) -> Option<Role> {
    if snapshot.user_by_key(key).is_some() {
        return Some(Role::Staff);
    }
    snapshot.terminal_by_key(key).map(|_| Role::Terminal)
}
