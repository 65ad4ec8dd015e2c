//! Gathers one instant's facts for people: for the view over SSH, the control socket, and the admin
//! port. Nothing here decides or changes anything but `cut`, which the control socket asks for.

use std::sync::Arc;
use std::time::Duration;

use tidegate_crds::manifest::Severity;
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Label, Window};

use crate::admin::{Attached, Health};
use crate::admission::claim_refused;
use crate::claim::Claims as _;
use crate::clock;
use crate::connection::reply;
use crate::control::{
    AuditStatus, Controlled, Cut, FindingView, HostKeyStatus, PolicyStatus, Status, TerminalStatus,
};
use crate::end;
use crate::gate::Gate;
use crate::hostkeys::Count;
use crate::metrics::{Metrics, ObjectKind, Sources};
use crate::sentences;
use crate::session::{EndedBy, Session};
use crate::source::Policy;
use crate::ssh::{SessionKind, SessionRequest};
use crate::staff::StaffLink;
use crate::view::{Asked, Flaw, Input, Presence, SessionView, WindowRef, answer};

impl Gate {
    /// Answers a login user's session channel with the view.
    pub async fn show(&self, staff: &StaffLink, request: SessionRequest, port: u16) {
        let history = self.trail.history.of(&staff.who.login).await;
        // A large policy takes its time: the runtime's other tasks must not wait for it.
        let output = tokio::task::block_in_place(|| {
            let now = clock::now();
            let policy = self.policy();
            let sessions = self.session_views();
            let findings = flaws(&policy);
            let closed = self.closed(&policy);
            let asked = match &request.kind {
                SessionKind::Shell => Asked::shell(request.pty),
                SessionKind::Exec(line) => Asked::exec(line, request.pty),
                SessionKind::Subsystem(_) => Asked::subsystem(request.pty),
            };
            answer(
                &Input {
                    snapshot: &policy.snapshot,
                    staff: &staff.who,
                    now: now.wall,
                    relay: &self.settings().name,
                    port,
                    presence: &|terminal| self.presence(terminal),
                    claimable: &|candidate| self.claimable(candidate),
                    sessions: &sessions,
                    history: &history,
                    findings: &findings,
                    policy_age: clock::signed(policy.age(now).unwrap_or_default()),
                    closed: closed.as_deref(),
                },
                &asked,
            )
        });
        reply(request.channel, output).await;
    }

    /// Why nobody at all is let in now; `None` while they are.
    fn closed(&self, policy: &Policy) -> Option<String> {
        if self.is_draining() {
            return Some(sentences::draining());
        }
        if self.trail.audit.healthy().is_err() {
            return Some(sentences::audit_unavailable());
        }
        policy.fresh(clock::now()).err().map(|stale| stale.to_string())
    }

    fn claimable(&self, candidate: &Candidate) -> Result<(), String> {
        let claimed = self.claims.look(candidate);
        match claimed.and_then(|claimed| claim_refused(candidate, &claimed)) {
            Some(refused) => Err(refused.sentence),
            None => Ok(()),
        }
    }

    fn presence(&self, terminal: &Label) -> Presence {
        let links = self.registry.links(terminal);
        let Some(newest) = links.last() else {
            return match self.registry.last_seen(terminal) {
                Some(seen) => Presence::LastSeen { at: seen.at, from: seen.from },
                None => Presence::Never,
            };
        };
        let mut services: Vec<_> =
            links.iter().flat_map(|link| link.forwards()).map(|f| f.service).collect();
        services.sort();
        Presence::Connected {
            since: newest.peer.since,
            from: newest.peer.from,
            services,
            client: newest.peer.client.clone(),
            contended: self.registry.is_contended(terminal, clock::now()),
        }
    }

    fn session_views(&self) -> Vec<SessionView> {
        let mut sessions: Vec<_> = self
            .sessions
            .all()
            .iter()
            .filter(|s| s.is_live())
            .map(|s| self.session_view(s))
            .collect();
        sessions.sort_by(|a, b| a.name.cmp(&b.name));
        sessions
    }

    fn session_view(&self, session: &Session) -> SessionView {
        let admission = &session.admission;
        let (bytes_in, bytes_out) = session.bytes();
        let window = &admission.window.meta;
        SessionView {
            name: session.id.to_string(),
            window: WindowRef {
                namespace: window.key.namespace.to_string(),
                name: window.key.name.to_string(),
                uid: window.uid.to_string(),
            },
            opens_at: admission.occurrence.opens,
            user: session.login().to_string(),
            terminal: admission.terminal.meta.key.name.to_string(),
            service: admission.service.name.to_string(),
            case: admission.window.case.as_ref().map(|case| case.number.to_string()),
            relay_pod: self.name.clone(),
            opened_at: admission.opened_at,
            deadline: session.deadline().wall(),
            source: admission.staff.source,
            bytes_in,
            bytes_out,
        }
    }

    fn terminal_statuses(&self, policy: &Policy) -> Vec<TerminalStatus> {
        let mut statuses: Vec<_> = policy
            .snapshot
            .terminals()
            .map(|terminal| {
                let key = &terminal.meta.key;
                let mut status = TerminalStatus {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    connected: false,
                    contended: false,
                    services: Vec::new(),
                    connected_since: None,
                    last_seen: None,
                    source: None,
                    client: None,
                };
                match self.presence(&key.name) {
                    Presence::Connected { since, from, services, client, contended } => {
                        status.connected = true;
                        status.contended = contended;
                        status.services = services.iter().map(ToString::to_string).collect();
                        status.connected_since = Some(since);
                        status.source = Some(from.ip());
                        status.client = Some(client);
                    }
                    Presence::LastSeen { at, from } => {
                        status.last_seen = Some(at);
                        status.source = Some(from.ip());
                    }
                    Presence::Never => {}
                }
                status
            })
            .collect();
        statuses.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        statuses
    }
}

/// One line for each key, the one that serves first.
fn host_keys(counts: &[Count]) -> Vec<HostKeyStatus> {
    let mut keys: Vec<HostKeyStatus> = Vec::new();
    for count in counts {
        let place = keys.iter().position(|key| key.fingerprint == count.fingerprint);
        let place = place.unwrap_or_else(|| {
            let (fingerprint, serves) = (count.fingerprint.clone(), count.serves);
            keys.push(HostKeyStatus { fingerprint, serves, accepted: 0, not_accepted: 0 });
            keys.len().saturating_sub(1)
        });
        if let Some(key) = keys.get_mut(place) {
            let sum = if count.accepted { &mut key.accepted } else { &mut key.not_accepted };
            *sum = sum.saturating_add(count.clients);
        }
    }
    keys.sort_by_key(|key| !key.serves);
    keys
}

fn policy_status(policy: &Policy, now: clock::Now) -> PolicyStatus {
    let snapshot = &policy.snapshot;
    let open =
        |window: &&Arc<Window>| !window.suspended && window.schedule.open_at(now.wall).is_some();
    PolicyStatus {
        as_of: policy.as_of.wall,
        age_seconds: seconds(policy.age(now)),
        stale: policy.fresh(now).err().map(|stale| stale.to_string()),
        login_users: snapshot.users().count(),
        terminals: snapshot.terminals().count(),
        support_windows: snapshot.windows().count(),
        open_windows: snapshot.windows().filter(open).count(),
    }
}

impl Controlled for Gate {
    fn status(&self) -> Status {
        let now = clock::now();
        let policy = self.policy();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: Some(policy.snapshot.mesh().domain.to_string()),
            relay: self.settings().name.clone(),
            relay_pod: self.name.clone(),
            since: self.since,
            listeners: self.listeners.iter().map(ToString::to_string).collect(),
            admin: self.admin.map(|address| address.to_string()),
            host_keys: host_keys(&self.host_key_counts()),
            policy: policy_status(&policy, now),
            findings: policy.findings.iter().map(FindingView::from).collect(),
            terminals: self.terminal_statuses(&policy),
            sessions: self.session_views(),
            audit: AuditStatus {
                problem: self.trail.audit.healthy().err(),
                seq: self.trail.audit.last_seq(),
            },
            draining: self.is_draining(),
            not_ready: self.not_ready(),
        }
    }

    fn sessions(&self) -> Vec<SessionView> {
        self.session_views()
    }

    async fn cut(&self, name: &str) -> Result<Cut, String> {
        let session = name.parse().ok().and_then(|id| self.sessions.get(id));
        let session = session
            .filter(|session| session.is_live())
            .ok_or_else(|| sentences::no_such_session(name))?;
        // The cut does not wait for the disk; the record of who asked does.
        let Some(gate) = self.me() else { return Err(sentences::drained()) };
        end::end(&gate, &session, EndedBy::Cut, sentences::cut());
        self.trail.cut(&session).await;
        let admission = &session.admission;
        Ok(Cut {
            session: session.id.to_string(),
            ended_at: session.end().map_or_else(|| clock::now().wall, |end| end.at),
            user: session.login().to_string(),
            terminal: admission.terminal.meta.key.name.to_string(),
            service: admission.service.name.to_string(),
        })
    }
}

impl Health for Gate {
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push(sentences::draining());
        }
        if let Err(problem) = self.trail.audit.healthy() {
            reasons.push(problem);
        }
        if let Err(stale) = self.policy().fresh(clock::now()) {
            reasons.push(stale.to_string());
        }
        reasons
    }

    fn attached(&self) -> Vec<Attached> {
        let policy = self.policy();
        let mut attached: Vec<_> = policy
            .snapshot
            .terminals()
            .filter_map(|terminal| {
                let name = &terminal.meta.key.name;
                let connected_since = self.registry.links(name).last()?.peer.since;
                Some(Attached { name: name.to_string(), connected_since })
            })
            .collect();
        attached.sort_by(|a, b| a.name.cmp(&b.name));
        attached
    }

    fn refresh(&self, metrics: &Metrics) {
        let now = clock::now();
        let policy = self.policy();
        let snapshot = &policy.snapshot;
        metrics.set_unauthenticated(self.budget.open());
        metrics.evicted(self.budget.take_gave_way());
        metrics.set_sources(Sources::Exchanges, self.exchanges.len());
        metrics.set_sources(Sources::KeyProbes, self.probes.len());
        metrics.set_sources(Sources::Refusals, self.refusals.len());
        metrics.set_sources(Sources::AtTheDoor, self.trail.at_the_door.len());
        metrics.set_barred(self.barred.len());
        metrics.set_terminals(self.registry.connected(), self.registry.contended(now));
        metrics.set_host_key_clients(&self.host_key_counts());
        metrics.set_sessions(self.sessions.len());
        metrics.set_unpublished(self.trail.records.unpublished());
        for session in self.sessions.all() {
            self.trail.count_bytes(&session);
        }
        metrics.set_policy_age(seconds(policy.age(now)));
        metrics.set_policy_objects(ObjectKind::LoginUser, snapshot.users().count());
        metrics.set_policy_objects(ObjectKind::Terminal, snapshot.terminals().count());
        metrics.set_policy_objects(ObjectKind::SupportWindow, snapshot.windows().count());
        for severity in [Severity::Error, Severity::Note] {
            let count = policy.findings.iter().filter(|f| f.severity == severity).count();
            metrics.set_findings(severity.into(), count);
        }
        metrics.set_audit_healthy(self.trail.audit.healthy().is_ok());
        metrics.set_ready(self.not_ready().is_empty());
        metrics.set_supervisor(self.tasks.tasks(), self.tasks.panics());
    }
}

/// Whole seconds; -1 where the age is not known.
fn seconds(age: Option<Duration>) -> i64 {
    age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

/// What is wrong with objects that can be named.
fn flaws(policy: &Arc<Policy>) -> Vec<Flaw> {
    let flaw = |finding: &tidegate_crds::manifest::Finding| {
        let object = finding.object.as_ref()?;
        Some(Flaw {
            kind: object.kind.to_string(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            message: finding.message.clone(),
        })
    };
    policy.findings.iter().filter(|f| f.severity == Severity::Error).filter_map(flaw).collect()
}
