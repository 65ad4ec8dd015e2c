//! One connection's life: who it is, and where each of its requests goes. Roles never combine: a key
//! is one login user's or one terminal's, and a connection keeps the role that its key has.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::decide::{self, Deny, Staff, admit_staff, may_attach};
use tidegate_policy::model::{KeyBlob, Login, Terminal};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::accept::{Prefix, Ticket};
use crate::admission;
use crate::barred;
use crate::clock;
use crate::denies::DENIES;
use crate::end;
use crate::failpoint::{Place, fault};
use crate::gate::Gate;
use crate::locate::TerminalLink;
use crate::metrics::{Closed, Proof, Role as RoleLabel, Unproven};
use crate::peer::Peer;
use crate::sentences;
use crate::sources::Rate;
use crate::ssh::{
    Authenticated, CancelRequest, Connection, Doorkeeper, Ended, Event, Events, ForwardRequest,
    Negotiated, OpenRequest, Reason, RefuseCode, SessionChannel, SessionRequest,
};
use crate::staff::StaffLink;
use crate::terminal::{self, Entered, TerminalPeer};
use crate::trail::Who;
use crate::view::{self, Output};

/// How long a login user who may not enter is told so before the connection is closed.
const BARRED: Duration = Duration::from_secs(30);

/// How long a peer may take to read an answer; what it has not taken then is not kept for it.
const REPLY: Duration = Duration::from_mins(2);

/// Offers of unknown keys by peers of one source prefix: fifty agents with twenty keys each at once. One
/// costs a look-up; who offers more asks which keys there are.
const PROBES: Rate = Rate { per_second: 100, burst: 1000 };

const HANDSHAKES: u8 = 1;
const TOO_MANY_PROBES: u8 = 2;

/// The code of a refusal of one connection more.
const TOO_MANY_CONNECTIONS: &str = "TooManyConnections";

/// Before authentication: which keys the policy knows. The answer depends on the key alone, until the
/// peers of a source have asked too much. Who is behind a proxy counts with its own network from then on.
pub struct Door {
    gate: Arc<Gate>,
    peer: IpAddr,
    /// Whether the peer is a declared proxy.
    behind_proxy: bool,
    /// Who is behind the proxy that the peer is.
    behind: OnceLock<IpAddr>,
    /// Its place among the unauthenticated.
    ticket: Arc<Ticket>,
    /// Why it was sent away, as far as that is known here.
    why: AtomicU8,
}

impl Door {
    pub fn new(gate: &Arc<Gate>, peer: IpAddr, ticket: &Arc<Ticket>) -> Self {
        Self {
            gate: Arc::clone(gate),
            peer,
            behind_proxy: gate.settings().is_proxy(peer),
            behind: OnceLock::new(),
            ticket: Arc::clone(ticket),
            why: AtomicU8::new(0),
        }
    }

    fn address(&self) -> IpAddr {
        *self.behind.get().unwrap_or(&self.peer)
    }

    fn source(&self) -> Prefix {
        Prefix::of(self.address())
    }

    /// Why a connection ended without a proven key.
    fn why(&self, closed: Closed) -> Unproven {
        match (self.why.load(Ordering::Acquire), closed) {
            (HANDSHAKES, _) => Unproven::TooManyHandshakes,
            (TOO_MANY_PROBES, _) => Unproven::TooManyKeyProbes,
            (_, Closed::GaveWay) => Unproven::GaveWay,
            (_, Closed::LoginTimeout) => Unproven::LoginTimeout,
            (_, Closed::Protocol | Closed::Answered) => Unproven::NotSsh,
            _ => Unproven::UnknownKey,
        }
    }

    fn knows(&self, key: &KeyBlob) -> bool {
        let policy = self.gate.policy();
        policy.snapshot.user_by_key(key).is_some() || policy.snapshot.terminal_by_key(key).is_some()
    }
}

impl Doorkeeper for Door {
    fn offered(&self, _user: &str, key: &KeyBlob) -> bool {
        let known = self.knows(key);
        if !known && !self.gate.probes.may(self.address(), PROBES, clock::boot()) {
            self.why.store(TOO_MANY_PROBES, Ordering::Release);
        }
        known
    }

    fn had_enough(&self) -> Option<&'static str> {
        let enough = self.why.load(Ordering::Acquire) == TOO_MANY_PROBES;
        enough.then_some(sentences::TOO_MANY_KEY_PROBES)
    }

    fn turned_away(&self) -> Option<&'static str> {
        let rate = self.gate.settings().exchanges;
        if self.gate.exchanges.may(self.address(), rate, clock::boot()) {
            return None;
        }
        self.why.store(HANDSHAKES, Ordering::Release);
        Some(sentences::TOO_MANY_HANDSHAKES)
    }

    fn proven(&self, _user: &str, key: &KeyBlob) -> bool {
        self.knows(key)
    }

    fn behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    fn came_from(&self, source: SocketAddr) {
        let _ = self.behind.set(source.ip());
        self.ticket.came_from(source.ip());
    }
}

/// Who the peer proved to be.
enum Role {
    Staff(Arc<StaffLink>),
    Terminal(TerminalPeer),
    /// A known login user who may not enter now: gets this sentence and nothing else, in a place among
    /// the connections of the key, if there was one left.
    Barred(String, #[expect(dead_code, reason = "given back when dropped")] Option<barred::Place>),
}

impl Role {
    fn is_barred(&self) -> bool {
        match self {
            Self::Staff(_) => false,
            Self::Terminal(peer) => peer.is_barred(),
            Self::Barred(..) => true,
        }
    }
}

/// What came in on one connection, before anyone is known. After a panic, at whatever step, the
/// connection is closed and counted when this is dropped: none is left that nobody serves.
struct Arrival {
    gate: Arc<Gate>,
    connection: Connection,
    listener_port: u16,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.connection.kill();
            self.gate.metrics.connection_closed(Closed::Disconnected);
        }
    }
}

/// Serves a connection until it is over. `ticket` is its place among the unauthenticated.
pub async fn serve(
    gate: Arc<Gate>,
    connection: Connection,
    mut events: Events,
    door: Arc<Door>,
    listener_port: u16,
    ticket: Arc<Ticket>,
) {
    let arrival = Arrival { gate: Arc::clone(&gate), connection, listener_port };
    // Nothing else comes before authentication; a connection that ends here proved nothing.
    let Some(Event::Authenticated(who)) = events.recv().await else {
        arrival.connection.closed().await;
        let turned_away = door.why.load(Ordering::Acquire) != 0;
        let health_check = arrival.connection.ended() == Some(Ended::HealthCheck);
        let closed = match how_closed(&arrival.connection) {
            // In whichever protocol, and also where its goodbye took too long.
            _ if turned_away => Closed::Unauthenticated,
            Closed::Disconnected if ticket.gave_way() => Closed::GaveWay,
            // The other one by a goodbye of ours that it did not answer.
            Closed::Served | Closed::Disconnected => Closed::Unauthenticated,
            other => other,
        };
        if !health_check {
            gate.unproven(door.source(), door.why(closed));
        }
        gate.metrics.connection_closed(closed);
        return;
    };
    let source = door.source();
    drop(door);
    if !ticket.proven() {
        gate.unproven(source, Unproven::GaveWay);
        gate.metrics.connection_closed(Closed::GaveWay);
        return;
    }
    let to_come = gate.trail.to_come.token();
    if gate.is_closing() {
        arrival.connection.disconnect(Reason::ByApplication, &sentences::drained());
        gate.metrics.connection_closed(Closed::Served);
        return;
    }
    let (client, host_key) = (who.key.clone(), who.host_key.clone());
    let Some(role) = arrival.recognise(who) else {
        // The key was taken away between its proof and now.
        arrival.connection.kill();
        gate.unproven(source, Unproven::UnknownKey);
        gate.metrics.connection_closed(Closed::Unauthenticated);
        return;
    };
    gate.host_keys.accepted(&client, &host_key);
    // One that may not enter has its line by now, and may take its time.
    let to_come = Some(to_come).filter(|_| !role.is_barred());
    let present = Present { arrival: &arrival, role, _to_come: to_come };
    let role = &present.role;
    while let Some(event) = events.recv().await {
        match event {
            Event::Open(request) => open(&gate, role, request),
            Event::Session(request) => session(&gate, role, request, listener_port),
            Event::Forward(request) => forward(&gate, role, request),
            Event::Cancel(request) => cancel(&gate, role, request),
            Event::Refused { what } => never(&gate, role, what),
            Event::TooFast => too_fast(&gate, role),
            // Like a service that is down: the client was told, and nobody decided about it.
            Event::NoRoom(shortage) => gate.metrics.no_room(shortage),
            Event::Learned { host_keys } => {
                for host_key in &host_keys {
                    gate.host_keys.accepted(&client, host_key);
                }
            }
            Event::Authenticated(_) => {}
        }
    }
    drop(present);
    arrival.connection.closed().await;
    gate.metrics.connection_closed(how_closed(&arrival.connection));
}

/// A peer that is known on its connection. However the connection ends, a panic in here included,
/// nothing of it is left: what it carried ends, what it offered goes.
struct Present<'a> {
    arrival: &'a Arrival,
    role: Role,
    /// Lines are to come when it ends.
    _to_come: Option<TaskTrackerToken>,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.arrival.connection.kill();
        }
        leave(&self.arrival.gate, &self.role);
    }
}

fn how_closed(connection: &Connection) -> Closed {
    match connection.ended() {
        Some(Ended::Closed) | None => Closed::Served,
        Some(Ended::Killed | Ended::Fault) => Closed::Disconnected,
        Some(Ended::Grace) => Closed::LoginTimeout,
        Some(Ended::Dead) => Closed::Dead,
        Some(Ended::NotSsh | Ended::Protocol(_)) => Closed::Protocol,
        Some(Ended::HealthCheck) => Closed::HealthCheck,
        Some(Ended::Answered) => Closed::Answered,
    }
}

impl Arrival {
    fn peer(&self, client: String, negotiated: Negotiated, now: Timestamp) -> Peer {
        self.gate.metrics.key_exchange(&negotiated);
        let peer = Peer::new(self.connection.clone(), self.listener_port, client, now, negotiated);
        self.gate.metrics.came(peer.way);
        peer
    }

    /// The role of a proved key, under the policy of now.
    fn recognise(&self, who: Authenticated) -> Option<Role> {
        let Authenticated { user, key, client, negotiated, .. } = who;
        let policy = self.gate.policy();
        let snapshot = &policy.snapshot;
        fault(Place::Recognise);
        if let Some(owner) = snapshot.user_by_key(&key) {
            let login = owner.login.clone();
            let peer = self.peer(client, negotiated, clock::now().wall);
            let role = self.staff(&user, login, key, peer);
            let result =
                if matches!(role, Role::Barred(..)) { Proof::Barred } else { Proof::Allowed };
            self.gate.metrics.authenticated(RoleLabel::Staff, result);
            return Some(role);
        }
        let terminal = snapshot.terminal_by_key(&key)?;
        let name = &terminal.meta.key.name;
        let now = clock::now().wall;
        let barred = if terminal.suspended {
            Some(("TerminalSuspended", sentences::terminal_suspended(name)))
        } else if !may_attach(snapshot, terminal, now) {
            Some(("NoWindow", sentences::not_attached_now(snapshot, terminal, now)))
        } else {
            None
        };
        let peer = self.peer(client, negotiated, now);
        let link = TerminalLink::new(terminal.meta.key.clone(), key, peer);
        let full = if barred.is_none() { self.attach(terminal, &link) } else { None };
        let refused = barred.as_ref().or(full.as_ref());
        let result = if refused.is_some() { Proof::Barred } else { Proof::Allowed };
        let refused = refused.map(|(code, sentence)| (*code, sentence.as_str()));
        self.gate.trail.attached(&link, refused);
        self.gate.metrics.authenticated(RoleLabel::Terminal, result);
        if let Some((_, sentence)) = full {
            link.peer.end(&sentence);
            let peer = TerminalPeer::arrived(&self.gate, link, Some((sentence, None)));
            return Some(Role::Terminal(peer));
        }
        let barred = barred.map(|(_, sentence)| {
            let place = self.gate.barred.enter(&link.key);
            if place.is_none() {
                self.gate.metrics.barred_turned_away();
                link.peer.end(&sentence);
            }
            (sentence, place)
        });
        Some(Role::Terminal(TerminalPeer::arrived(&self.gate, link, barred)))
    }

    /// Takes in one more connection of a terminal that may attach; the code and the sentence where it
    /// has too many.
    fn attach(
        &self,
        terminal: &Terminal,
        link: &Arc<TerminalLink>,
    ) -> Option<(&'static str, String)> {
        let most = terminal::most(terminal);
        let crowded =
            || (TOO_MANY_CONNECTIONS, sentences::terminal_crowded(&link.terminal.name, most));
        match self.gate.terminals.insert(link, most) {
            Entered::There => None,
            Entered::InPlaceOf(oldest) => {
                let (code, sentence) = crowded();
                self.gate.trail.gave_way(&oldest, (code, &sentence));
                oldest.peer.end(&sentence);
                None
            }
            Entered::Full => Some(crowded()),
        }
    }

    fn staff(&self, user: &str, login: Login, key: KeyBlob, peer: Peer) -> Role {
        let now = clock::now().wall;
        let who = Staff { login: login.clone(), key, source: self.connection.peer().ip() };
        let refused = if Login::parse(user).is_ok_and(|typed| typed == login) {
            admit_staff(&self.gate.policy().snapshot, &who, now).err()
        } else {
            let reason = decide::Reason::WrongLogin { typed: user.to_owned(), owner: login };
            Some(Deny { reason, next_opening: None })
        };
        let link = StaffLink::new(who, peer);
        let Some(deny) = refused else {
            let most = self.gate.settings().connections_per_user;
            if self.gate.staff.insert(Arc::clone(&link), most) {
                self.gate.trail.login(&link, None);
                return Role::Staff(link);
            }
            let sentence = sentences::too_many_connections(&link.who.login, most);
            self.gate.trail.login(&link, Some((TOO_MANY_CONNECTIONS, &sentence)));
            link.peer.end(&sentence);
            return Role::Barred(sentence, None);
        };
        let sentence = deny.to_string();
        self.gate.trail.login(&link, Some((deny.reason.code(), &sentence)));
        let Some(place) = self.gate.barred.enter(&link.who.key) else {
            self.gate.metrics.barred_turned_away();
            link.peer.end(&sentence);
            return Role::Barred(sentence, None);
        };
        let goodbye = sentence.clone();
        self.gate.tasks.spawn("barred login user", async move {
            tokio::select! {
                () = link.peer.closed() => {}
                () = tokio::time::sleep(BARRED) => link.peer.end(&goodbye),
            }
        });
        Role::Barred(sentence, Some(place))
    }
}

fn open(gate: &Arc<Gate>, role: &Role, request: OpenRequest) {
    match role {
        Role::Staff(link) => {
            let (gate, link) = (Arc::clone(gate), Arc::clone(link));
            let open = link.opens.token();
            gate.tasks.clone().spawn("session channel", async move {
                let _open = open;
                admission::open(&gate, &link, request).await;
            });
        }
        Role::Terminal(peer) => {
            let sentence = sentences::terminals_only_forward();
            request.refuse(RefuseCode::Prohibited, &sentence);
            peer.refused(gate, "a channel", "NeverDone", &sentence);
        }
        Role::Barred(sentence, _) => request.refuse(RefuseCode::Prohibited, sentence),
    }
}

/// A session channel: the view for staff, a few lines for a terminal, the sentence for the barred.
fn session(gate: &Arc<Gate>, role: &Role, request: SessionRequest, port: u16) {
    match role {
        Role::Staff(link) => {
            let (gate, link) = (Arc::clone(gate), Arc::clone(link));
            gate.tasks.clone().spawn("view", async move {
                // It is never closed.
                if let Ok(_place) = link.views.acquire().await {
                    gate.show(&link, request, port).await;
                }
            });
        }
        Role::Terminal(peer) => peer.session(gate, request),
        Role::Barred(sentence, _) => {
            let output = view::refused(sentence, request.pty);
            gate.tasks.spawn("refusal", async move {
                reply(request.channel, output).await;
            });
        }
    }
}

/// Writes the answer to a session channel and ends it; a peer that went away meanwhile is none of our
/// concern.
pub async fn reply(mut channel: SessionChannel, output: Output) {
    let saying = async {
        channel.stdout(output.stdout.as_bytes()).await?;
        channel.stderr(output.stderr.as_bytes()).await
    };
    if let Ok(Ok(())) = tokio::time::timeout(REPLY, saying).await {
        channel.finish(u8::try_from(output.exit).unwrap_or(1));
    }
}

fn forward(gate: &Arc<Gate>, role: &Role, request: ForwardRequest) {
    match role {
        Role::Terminal(peer) => peer.forward(gate, request),
        Role::Staff(link) => {
            request.refuse();
            refuse(gate, link, "-R", "NotATerminal", &sentences::staff_never_forward());
        }
        Role::Barred(..) => request.refuse(),
    }
}

fn cancel(gate: &Arc<Gate>, role: &Role, request: CancelRequest) {
    match role {
        Role::Terminal(peer) => peer.cancel(gate, request),
        Role::Staff(_) | Role::Barred(..) => request.refuse(),
    }
}

fn never(gate: &Arc<Gate>, role: &Role, what: &'static str) {
    let sentence = sentences::never_done(what);
    match role {
        Role::Staff(link) => refuse(gate, link, what, "NeverDone", &sentence),
        Role::Terminal(peer) => peer.refused(gate, what, "NeverDone", &sentence),
        // It was written down at the door.
        Role::Barred(..) => {}
    }
}

/// A channel was refused for coming too fast. It counts towards no other limit: the SSH core sends away
/// whoever goes on.
fn too_fast(gate: &Arc<Gate>, role: &Role) {
    gate.metrics.opened_too_fast();
    match role {
        Role::Staff(link) => gate.trail.too_fast(Who::Staff(link)),
        Role::Terminal(peer) => gate.trail.too_fast(Who::Terminal(&peer.link)),
        Role::Barred(..) => {}
    }
}

/// Writes down what SSH answers with a plain failure, so that `why` can tell.
fn refuse(gate: &Gate, link: &StaffLink, what: &str, code: &'static str, sentence: &str) {
    gate.trail.refused(Who::Staff(link), what, code, sentence);
    if link.peer.denies.too_many() {
        link.peer.end(&sentences::too_many_refusals(DENIES));
    }
}

fn leave(gate: &Arc<Gate>, role: &Role) {
    match role {
        Role::Staff(link) => {
            gate.staff.remove(link);
            for session in link.leave() {
                let gate = Arc::clone(gate);
                gate.tasks.clone().spawn("last bytes of staff", async move {
                    session.carried().await;
                    end::staff_left(&gate, &session);
                });
            }
            // A channel that is being opened learns only now that nobody waits for it.
            let (gate, link, to_come) =
                (Arc::clone(gate), Arc::clone(link), gate.trail.to_come.token());
            gate.tasks.clone().spawn("last refusals", async move {
                let _to_come = to_come;
                link.opens.close();
                link.opens.wait().await;
                gate.trail.repeats(Who::Staff(&link), true);
            });
        }
        Role::Terminal(peer) => peer.left(gate),
        Role::Barred(..) => {}
    }
}
