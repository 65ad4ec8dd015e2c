//! Records what the gate decides (invariant 7): the audit line first, durable before anything
//! flows; then the SupportSession record, the person's history for `why`, the log and the metrics.

use std::sync::Arc;

use jiff::Timestamp;
use tidegate_policy::decide::Admission;
use tidegate_policy::model::{KeyBlob, Label, Login, ObjectKey};
use tokio_util::task::TaskTracker;

use crate::accept::Prefix;
use crate::admission::Refused;
use crate::audit::{Audit, AuditError, Event, Reason, Verdict, What, WindowRef};
use crate::authorise::Wanted;
use crate::clock;
use crate::denies::{Denies, Noted};
use crate::failpoint::{Point, reach};
use crate::history::{Entry, Histories};
use crate::locate::TerminalLink;
use crate::metrics::{Direction, Metrics};
use crate::peer::Peer;
use crate::record::{Begun, Ended, EndedBy, Records};
use crate::refusals::{self, AtTheDoor, Line};
use crate::sentences;
use crate::session::Session;
use crate::ssh::{Negotiated, RefuseCode};
use crate::staff::StaffLink;
use crate::supervisor::Supervisor;
use crate::view::clean;

/// An authenticated peer that is refused something.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    Staff(&'a StaffLink),
    Terminal(&'a TerminalLink),
}

impl<'a> Who<'a> {
    fn denies(self) -> &'a Denies {
        match self {
            Self::Staff(link) => &link.peer.denies,
            Self::Terminal(link) => &link.peer.denies,
        }
    }
}

/// Where everything that must be remembered goes.
pub struct Trail {
    pub audit: Audit,
    pub records: Records,
    pub history: Histories,
    pub metrics: Arc<Metrics>,
    pub tasks: Supervisor,
    pub relay_pod: String,
    /// Known keys that may not enter, as far as they are not written down.
    pub at_the_door: AtTheDoor,
    /// Lines that are on their way, and connections that have one to come.
    pub to_come: TaskTracker,
}

impl Trail {
    /// A session is admitted; durable when this returns. After an error it is the caller's to settle.
    pub async fn admitted(&self, session: &Session) -> Result<(), AuditError> {
        reach(Point::RecordBegun);
        self.audit.record(self.allow(What::Allow, session)).await?;
        let admission = &session.admission;
        self.records.begin(Begun {
            id: session.id,
            window: admission.window.meta.key.clone(),
            window_uid: admission.window.meta.uid.to_string(),
            opens_at: admission.occurrence.opens,
            user: session.login().clone(),
            terminal: admission.terminal.meta.key.name.clone(),
            service: admission.service.name.clone(),
            case: admission.window.case.as_ref().map(|case| case.number.to_string()),
            opened_at: admission.opened_at,
            deadline: session.deadline().wall(),
        });
        session.settle(true);
        self.metrics.session_opened();
        tracing::info!(
            session = %session.id,
            user = %session.login(),
            terminal = %admission.terminal.meta.key.name,
            service = %admission.service.name,
            window = %admission.window.meta.key,
            deadline = %session.deadline().wall(),
            "session admitted"
        );
        Ok(())
    }

    /// A further channel joins a live session; durable when this returns.
    pub async fn further(&self, session: &Session) -> Result<(), AuditError> {
        self.audit.record(self.allow(What::Channel, session)).await.map(drop)
    }

    /// A session has ended; returns when that is durable, which may take until the disk has room.
    /// One that was never written down has no end to write down; one that is being written down now
    /// has its end behind that.
    pub async fn ended(&self, session: &Session) {
        let Some(end) = session.end() else { return };
        if !session.is_recorded().await {
            return;
        }
        let overrun_ms = u64::try_from(end.overrun.as_millis()).unwrap_or(u64::MAX);
        let (bytes_in, bytes_out) = session.bytes();
        let admission = &session.admission;
        tracing::info!(
            session = %session.id,
            user = %session.login(),
            terminal = %admission.terminal.meta.key.name,
            service = %admission.service.name,
            ended_by = end.by.as_str(),
            overrun_ms,
            reason = %end.reason,
            "session ended"
        );
        self.count_bytes(session);
        self.metrics.session_ended(end.by.as_str(), end.overrun);
        self.history.note(
            session.login(),
            Entry::ended(
                end.at,
                admission.terminal.meta.key.name.as_str(),
                admission.service.name.as_str(),
                end.by,
                &end.reason,
                session.id,
            ),
        );
        let ended =
            Ended { at: end.at, by: end.by, reason: end.reason, overrun_ms, bytes_in, bytes_out };
        let event = end_event(self.allow(What::End, session), &ended);
        if let Err(error) = self.audit.insist(event).await {
            tracing::error!(%error, session = %session.id, "the end of a session is not in the audit log");
        }
        self.records.end(session.id, ended);
    }

    /// Adds what a session has carried since the last call to the metrics.
    pub fn count_bytes(&self, session: &Session) {
        let (bytes_in, bytes_out) = session.uncounted();
        self.metrics.bytes(Direction::In, bytes_in);
        self.metrics.bytes(Direction::Out, bytes_out);
        let (held_in, held_out) = session.take_held_back();
        self.metrics.held_back(Direction::In, held_in);
        self.metrics.held_back(Direction::Out, held_out);
    }

    /// A login user's channel is refused; durable when this returns. Repeats are counted and follow.
    pub async fn deny(&self, staff: &StaffLink, wanted: &Wanted, refused: &Refused) {
        let host: String = wanted.host.chars().take(80).collect();
        let target = clean(&format!("{host}:{}", wanted.port));
        let peer = Who::Staff(staff);
        if refused.why == RefuseCode::Prohibited {
            peer.denies().count();
        }
        let what =
            refused.target.as_ref().map(|(terminal, service)| format!("{terminal} {service}"));
        let what = what.as_deref().unwrap_or(&target);
        if let Some(event) = self.denied(peer, what, &target, refused.code, &refused.sentence)
            && let Err(error) = self.audit.record(event).await
        {
            tracing::error!(%error, "a refusal is not in the audit log");
        }
    }

    /// Something that is no channel to a terminal is refused (X11, an agent, `-R`).
    pub fn refused(self: &Arc<Self>, peer: Who<'_>, what: &str, code: &'static str, why: &str) {
        peer.denies().count();
        if let Some(event) = self.denied(peer, what, what, code, why) {
            self.note(event);
        }
    }

    fn denied(
        &self,
        peer: Who<'_>,
        what: &str,
        target: &str,
        code: &'static str,
        sentence: &str,
    ) -> Option<Event> {
        let now = clock::now();
        self.metrics.denied(code);
        if let Who::Staff(staff) = peer {
            let (terminal, service) = parts(target);
            let entry = Entry::refused(now.wall, terminal, service, code, sentence);
            self.history.note(&staff.who.login, entry);
        }
        if peer.denies().note(what, target, code, sentence, now) == Noted::Again {
            return None;
        }
        match peer {
            Who::Staff(StaffLink { who, peer, .. }) => {
                tracing::info!(user = %who.login, from = %peer.from, target, code, reason = sentence, "refused");
            }
            Who::Terminal(TerminalLink { terminal, peer, .. }) => {
                tracing::info!(terminal = %terminal.name, from = %peer.from, target, code, reason = sentence, "refused");
            }
        }
        Some(self.deny_event(peer, target, code, sentence))
    }

    fn deny_event(&self, peer: Who<'_>, target: &str, code: &str, sentence: &str) -> Event {
        let event = match peer {
            Who::Staff(link) => {
                let (terminal, service) = parts(target);
                Event {
                    terminal: Some(terminal.to_owned()).filter(|terminal| !terminal.is_empty()),
                    service: Some(service.to_owned()).filter(|service| !service.is_empty()),
                    ..self.staff_event(What::Deny, link, clock::now().wall)
                }
            }
            Who::Terminal(link) => {
                let service = Some(target.to_owned()).filter(|target| !target.is_empty());
                Event { service, ..self.terminal_event(What::Deny, link) }
            }
        };
        Event {
            decision: Some(Verdict::Deny),
            reason: Some(Reason { code: code.to_owned(), sentence: sentence.to_owned() }),
            ..event
        }
    }

    /// Writes down refusals that were only counted: all of a connection's that ended.
    pub fn repeats(self: &Arc<Self>, peer: Who<'_>, ended: bool) {
        for repeats in peer.denies().due(clock::now(), ended) {
            let event = self.deny_event(peer, &repeats.target, repeats.code, &repeats.sentence);
            self.note(Event { count: Some(u64::from(repeats.count)), ..event });
        }
    }

    /// A login user proved a key: let in, or kept at the door with `refused`.
    pub fn login(self: &Arc<Self>, staff: &StaffLink, refused: Option<(&'static str, &str)>) {
        let event = self.staff_event(What::Login, staff, clock::now().wall);
        let event = with_exchange(event, &staff.peer);
        if let Some((code, sentence)) = refused {
            let entry = Entry::refused(event.time, "", "", code, sentence);
            self.history.note(&staff.who.login, entry);
        }
        self.arrived(event, &staff.who.key, &staff.peer, refused);
    }

    /// A terminal proved its key: attached, or refused.
    pub fn attached(self: &Arc<Self>, link: &TerminalLink, refused: Option<(&'static str, &str)>) {
        let event = with_exchange(self.terminal_event(What::Attach, link), &link.peer);
        self.arrived(event, &link.key, &link.peer, refused);
    }

    /// A terminal's connection is ended for a newer one's sake.
    pub fn gave_way(self: &Arc<Self>, link: &TerminalLink, why: (&'static str, &str)) {
        self.arrived(self.terminal_event(What::Deny, link), &link.key, &link.peer, Some(why));
    }

    /// Writes down that a peer proved its key, and whether it may enter. Of those that may not, one a
    /// minute for each key, source, transport and reason, and how many more there were.
    fn arrived(
        self: &Arc<Self>,
        event: Event,
        key: &KeyBlob,
        peer: &Peer,
        refused: Option<(&'static str, &str)>,
    ) {
        let Some((code, sentence)) = refused else {
            return self.note(Event { decision: Some(Verdict::Allow), ..event });
        };
        self.metrics.denied(code);
        let source = Prefix::of(peer.from.ip());
        let transport = peer.way.transport.as_str();
        let counted = |sentence: &str| Event {
            decision: Some(Verdict::Deny),
            reason: Some(Reason { code: code.to_owned(), sentence: sentence.to_owned() }),
            relay_pod: Some(self.relay_pod.clone()),
            ..Event::new(What::DenyAggregate, event.time)
        };
        let line = Event {
            user: event.user.clone(),
            key_fingerprint: event.key_fingerprint.clone(),
            terminal: event.terminal.clone(),
            terminal_key_fingerprint: event.terminal_key_fingerprint.clone(),
            source_address: Some(source.to_string()),
            transport: Some(transport.to_owned()),
            ..counted(sentence)
        };
        let others = counted(sentences::MANY_AT_THE_DOOR);
        let reason = line.reason.clone();
        let refused = refusals::Refused { key: key.clone(), source, transport, code };
        if self.at_the_door.note(refused, line, others, clock::boot()) {
            self.note(Event { decision: Some(Verdict::Deny), reason, ..event });
        }
    }

    /// Lines of known keys that were refused more often than it is written down at once: those whose
    /// minute is over, or all.
    pub fn turned_away(&self, all: bool) -> Vec<Event> {
        let time = clock::now().wall;
        let lines = self.at_the_door.due(clock::boot(), all).into_iter();
        lines.map(|line| Event { time, ..line }).collect()
    }

    /// A terminal's connection is gone.
    pub fn detached(self: &Arc<Self>, link: &TerminalLink) {
        self.note(self.terminal_event(What::Detach, link));
    }

    /// The line of refusals before a login. It names the source's network.
    pub fn unauthenticated(&self, line: Line) -> Event {
        let reason = Reason {
            code: line.why.word().to_owned(),
            sentence: sentences::unproven(line.why).to_owned(),
        };
        Event {
            decision: Some(Verdict::Deny),
            reason: Some(reason),
            count: Some(line.count),
            source_address: line.source.map(|source| source.to_string()),
            relay_pod: Some(self.relay_pod.clone()),
            ..Event::new(What::DenyAggregate, clock::now().wall)
        }
    }

    /// A channel was refused, since too many were opened in too short a time.
    pub fn too_fast(self: &Arc<Self>, peer: Who<'_>) {
        let (what, why) = ("a channel", sentences::TOO_MANY_OPENS);
        if let Some(event) = self.denied(peer, what, what, "TooManyOpens", why) {
            self.note(event);
        }
    }

    /// Someone asked for a session to be cut; durable when this returns.
    pub async fn cut(&self, session: &Session) {
        let event = Event { decision: None, ..self.allow(What::Cut, session) };
        if let Err(error) = self.audit.record(event).await {
            tracing::error!(%error, session = %session.id, "a cut is not in the audit log");
        }
    }

    /// Writes an event down without waiting for the disk.
    pub fn note(self: &Arc<Self>, event: Event) {
        let (trail, to_come) = (Arc::clone(self), self.to_come.token());
        self.tasks.spawn("audit line", async move {
            let _to_come = to_come;
            if let Err(error) = trail.audit.record(event).await {
                tracing::error!(%error, "an event is not in the audit log");
            }
        });
    }

    fn allow(&self, what: What, session: &Session) -> Event {
        let Admission { terminal, service, window, occurrence, .. } = &session.admission;
        Event {
            decision: Some(Verdict::Allow),
            window: Some(WindowRef {
                namespace: window.meta.key.namespace.to_string(),
                name: window.meta.key.name.to_string(),
                uid: window.meta.uid.to_string(),
                generation: window.meta.generation,
            }),
            case: window.case.as_ref().map(|case| case.number.to_string()),
            terminal: Some(terminal.meta.key.name.to_string()),
            terminal_key_fingerprint: Some(session.terminal.key.fingerprint()),
            service: Some(service.name.to_string()),
            session: Some(session.id.to_string()),
            opens_at: Some(occurrence.opens),
            deadline: Some(session.deadline().wall()),
            ..self.staff_event(what, &session.staff, clock::now().wall)
        }
    }

    fn staff_event(&self, what: What, staff: &StaffLink, time: Timestamp) -> Event {
        Event {
            user: Some(staff.who.login.to_string()),
            key_fingerprint: Some(staff.who.key.fingerprint()),
            ..self.peer_event(what, &staff.peer, time)
        }
    }

    fn terminal_event(&self, what: What, link: &TerminalLink) -> Event {
        Event {
            terminal: Some(link.terminal.name.to_string()),
            terminal_key_fingerprint: Some(link.key.fingerprint()),
            ..self.peer_event(what, &link.peer, clock::now().wall)
        }
    }

    fn peer_event(&self, what: What, peer: &Peer, time: Timestamp) -> Event {
        Event {
            source_address: Some(peer.from.to_string()),
            transport: Some(peer.way.transport.as_str().to_owned()),
            listener_port: Some(peer.way.port),
            client: Some(peer.client.clone()),
            relay_pod: Some(self.relay_pod.clone()),
            ..Event::new(what, time)
        }
    }

    /// Ends a session that a process left open when it died: `allow` is its line in the trail. Its
    /// record knows when that process last lived; where the crash came before the record, the line
    /// alone tells.
    pub async fn left_open(&self, allow: Event) {
        let Some(begun) = begun(&allow) else { return };
        if self.records.get(begun.id).is_none() {
            self.records.begin(begun.clone());
        }
        let known = self.records.get(begun.id).and_then(|record| record.ended);
        let ended = known.unwrap_or_else(|| Ended {
            at: begun.opened_at,
            by: EndedBy::Fault,
            reason: sentences::relay_crashed(),
            overrun_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
        });
        self.records.end(begun.id, ended.clone());
        let (terminal, service) = (begun.terminal.as_str(), begun.service.as_str());
        let entry = Entry::ended(ended.at, terminal, service, ended.by, &ended.reason, begun.id);
        self.history.note(&begun.user, entry);
        if let Err(error) = self.audit.record(end_event(allow, &ended)).await {
            tracing::error!(%error, session = %begun.id, "the end of a session is not in the audit log");
        }
    }
}

/// An arrival names what its key exchange agreed on.
fn with_exchange(event: Event, peer: &Peer) -> Event {
    let Negotiated { kex, cipher_in, cipher_out, strict, .. } = &peer.negotiated;
    let ciphers = if cipher_out == cipher_in {
        cipher_in.name().to_owned()
    } else {
        format!("{}/{}", cipher_in.name(), cipher_out.name())
    };
    let strict = if *strict { "strict" } else { "not strict" };
    let exchange = format!("{} {ciphers} {strict}", kex.name());
    Event { key_exchange: Some(exchange), ..event }
}

/// The line of a session's end, by the line that admitted it.
fn end_event(allow: Event, ended: &Ended) -> Event {
    Event {
        time: ended.at,
        event: What::End,
        decision: None,
        opens_at: None,
        deadline: None,
        ended_by: Some(ended.by),
        overrun_ms: Some(ended.overrun_ms),
        bytes_in: Some(ended.bytes_in),
        bytes_out: Some(ended.bytes_out),
        reason: Some(Reason { code: ended.by.as_str().to_owned(), sentence: ended.reason.clone() }),
        ..allow
    }
}

/// What was asked for: terminal and port as typed, or no terminal and what else it was.
fn parts(target: &str) -> (&str, &str) {
    target.rsplit_once(':').unwrap_or(("", target))
}

/// What an Allow line says of its session; `None` where it is not ours.
fn begun(allow: &Event) -> Option<Begun> {
    let window = allow.window.as_ref()?;
    Some(Begun {
        id: allow.session.as_ref()?.parse().ok()?,
        window: ObjectKey {
            namespace: Label::parse(&window.namespace).ok()?,
            name: Label::parse(&window.name).ok()?,
        },
        window_uid: window.uid.clone(),
        opens_at: allow.opens_at?,
        user: Login::parse(allow.user.as_ref()?).ok()?,
        terminal: Label::parse(allow.terminal.as_ref()?).ok()?,
        service: Label::parse(allow.service.as_ref()?).ok()?,
        case: allow.case.clone(),
        opened_at: allow.time,
        deadline: allow.deadline?,
    })
}
