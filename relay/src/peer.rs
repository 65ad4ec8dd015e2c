//! One connection's logic: who it is, and where each of its requests goes. It answers the SSH layer
//! at once and spawns whatever takes time. Roles never combine: a key is one login user's or one
//! terminal's, and a connection keeps the role that its key has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::decide::enter;
use tidegate_policy::model::{KeyBlob, Login};
use tidegate_policy::snapshot::Identity;

use crate::accept::Place;
use crate::admission;
use crate::clock;
use crate::end;
use crate::gate::Gate;
use crate::locate::TerminalLink;
use crate::sentences;
use crate::ssh::{
    Connection, Console, ConsoleRequest, DirectOpen, Handle, Peer, Pending, Refusal, Socket,
};
use crate::staff::StaffLink;
use crate::terminal::{self, TerminalPeer};
use crate::view;

/// How long a peer that may not enter is told so before it is closed.
const BARRED: Duration = Duration::from_secs(30);
/// Channels that one connection may have open or pending at once.
pub const CHANNELS: usize = 256;

/// Who the peer proved to be.
enum Role {
    Unknown,
    /// A login user.
    Staff(Arc<StaffLink>),
    Terminal(TerminalPeer),
    /// A known key that may not enter now: it gets this sentence and nothing else.
    Barred(String),
}

/// A connection as the relay sees it.
pub struct RelayPeer {
    gate: Arc<Gate>,
    socket: Arc<Socket>,
    from: SocketAddr,
    /// Given up as soon as a key is proved.
    place: Option<Place>,
    role: Role,
    channels: Arc<()>,
}

impl RelayPeer {
    pub fn new(gate: Arc<Gate>, socket: Arc<Socket>, from: SocketAddr, place: Place) -> Self {
        let channels = Arc::new(());
        Self { gate, socket, from, place: Some(place), role: Role::Unknown, channels }
    }

    /// One more channel, until the token is dropped; `None` at the limit.
    fn channel(&self) -> Option<Arc<()>> {
        (Arc::strong_count(&self.channels) <= CHANNELS).then(|| Arc::clone(&self.channels))
    }

    /// The role of a proved key, under today's policy.
    fn recognise(&self, user: &str, key: &KeyBlob) -> Option<Role> {
        let now = clock::now();
        let policy = self.gate.policy.current();
        let identity = policy.snapshot.identify(key)?;
        let refusal = enter(&policy.snapshot, key, user, self.from.ip(), now.wall).err();
        Some(match (identity, refusal) {
            (Identity::User(who), None) => {
                Role::Staff(StaffLink::new(who.login.clone(), key.clone(), self.from, now.wall))
            }
            (Identity::User(who), Some(deny)) => {
                let code = deny.code();
                self.bar_staff(who.login.clone(), key, code, deny.to_string())
            }
            (Identity::Terminal(terminal), refusal) => {
                let link = TerminalLink::new(
                    terminal.meta.key.clone(),
                    terminal.meta.uid.clone(),
                    key.clone(),
                    self.from,
                    now.wall,
                );
                match refusal {
                    None => Role::Terminal(TerminalPeer::new(link)),
                    Some(deny) => {
                        self.gate.trail.terminal_barred(&link, deny.code(), &deny.to_string());
                        Role::Barred(deny.to_string())
                    }
                }
            }
        })
    }

    fn bar_staff(&self, login: Login, key: &KeyBlob, code: &'static str, sentence: String) -> Role {
        let link = StaffLink::new(login, key.clone(), self.from, clock::now().wall);
        self.gate.trail.staff_barred(&link, code, &sentence);
        Role::Barred(sentence)
    }

    /// Reads the command on a console and answers it.
    fn answer(&self, link: Arc<StaffLink>, request: ConsoleRequest, console: Console) {
        let gate = Arc::clone(&self.gate);
        self.gate.tasks.spawn("view", async move {
            let answer = view::answer(&gate, &link, &request).await;
            console.print(&answer.stdout).await;
            console.complain(&answer.stderr).await;
            console.exit(answer.status).await;
        });
    }
}

impl Drop for RelayPeer {
    fn drop(&mut self) {
        match &self.role {
            Role::Staff(link) => {
                self.gate.staff.remove(link);
                end::staff_left(&self.gate, link.sessions());
                self.gate.trail.repeats(link, true);
            }
            Role::Terminal(peer) => terminal::left(&self.gate, peer),
            Role::Unknown | Role::Barred(_) => {}
        }
    }
}

impl Peer for RelayPeer {
    fn offered(&mut self, _: &str, key: &KeyBlob) -> bool {
        self.gate.policy.current().snapshot.identify(key).is_some()
    }

    fn proven(&mut self, user: &str, key: &KeyBlob) -> bool {
        let Some(role) = self.recognise(user, key) else { return false };
        self.role = role;
        self.place = None;
        true
    }

    fn begin(&mut self, handle: Handle) {
        let connection = Connection { handle, socket: Arc::clone(&self.socket) };
        match &mut self.role {
            Role::Unknown => self.socket.kill(),
            Role::Staff(link) => {
                link.connected(connection);
                self.gate.staff.insert(Arc::clone(link));
                let guarded = Arc::clone(link);
                self.socket.guard(Box::new(move || !guarded.overdue(clock::now())));
            }
            Role::Terminal(peer) => {
                peer.link.connected(connection);
                terminal::arrived(&self.gate, peer);
            }
            Role::Barred(sentence) => {
                let sentence = sentence.clone();
                self.gate.tasks.spawn("barred peer", async move {
                    tokio::select! {
                        () = connection.socket.finished() => {}
                        () = tokio::time::sleep(BARRED) => connection.end(&sentence).await,
                    }
                });
            }
        }
    }

    fn open_direct(&mut self, open: DirectOpen, pending: Pending) {
        let refusal = match &self.role {
            Role::Staff(link) => match self.channel() {
                Some(token) => {
                    let (gate, link) = (Arc::clone(&self.gate), Arc::clone(link));
                    self.gate.tasks.spawn("session channel", async move {
                        admission::open(&gate, &link, &open, pending).await;
                        drop(token);
                    });
                    return;
                }
                None => (Refusal::ResourceShortage, sentences::too_many_channels(CHANNELS)),
            },
            Role::Terminal(_) => (Refusal::Prohibited, sentences::terminals_only_forward()),
            Role::Barred(sentence) => (Refusal::Prohibited, sentence.clone()),
            Role::Unknown => return,
        };
        self.gate.tasks.spawn("refusal", async move { pending.refuse(refusal.0, &refusal.1).await });
    }

    fn may_open_console(&mut self) -> bool {
        !matches!(self.role, Role::Unknown)
    }

    fn console(&mut self, request: ConsoleRequest, console: Console) {
        match &self.role {
            Role::Unknown => {}
            Role::Staff(link) => self.answer(Arc::clone(link), request, console),
            Role::Terminal(peer) => terminal::console(&self.gate, peer, console),
            Role::Barred(sentence) => {
                let sentence = format!("{sentence}\n");
                self.gate.tasks.spawn("refusal", async move {
                    console.complain(&sentence).await;
                    console.exit(1).await;
                });
            }
        }
    }

    fn forward(&mut self, host: &str, port: u32) -> Option<u32> {
        match &mut self.role {
            Role::Terminal(peer) => terminal::forward(&self.gate, peer, host, port),
            Role::Staff(link) => {
                let sentence = sentences::staff_never_forward();
                self.gate.trail.refused(link, "-R", "NotATerminal", sentence);
                None
            }
            Role::Unknown | Role::Barred(_) => None,
        }
    }

    fn cancel_forward(&mut self, host: &str, port: u32) -> bool {
        match &self.role {
            Role::Terminal(peer) => self.gate.registry.withdraw(&peer.link, host, port),
            _ => false,
        }
    }

    fn refused(&mut self, what: &'static str) {
        if let Role::Staff(link) = &self.role {
            self.gate.trail.refused(link, what, "NeverDone", sentences::never_done(what));
        }
    }
}
