//! Where the terminals are: the connections that terminals hold to this replica and the services
//! that each of them offers (invariant 5: its own name, its own declared services, nothing else).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::model::{KeyBlob, Label, Login, ObjectKey};
use tokio::sync::Notify;

use crate::clock::{Boot, Now};
use crate::dials::Dials;
use crate::lock::lock;
use crate::peer::Peer;
use crate::ssh::{Channel, OpenError};

/// How long a terminal may take to open the channel for a session.
pub const DIAL: Duration = Duration::from_secs(10);
/// A connection that was taken over shows within this time that it was alive.
pub const PROBE: Duration = Duration::from_secs(3);
/// This many takeovers of live connections within [`CONTENTION`] are a fight.
const TAKEOVERS: usize = 3;
/// The span over which takeovers count, and for which newcomers are then refused.
const CONTENTION: Duration = Duration::from_mins(1);

/// What a terminal is told of who opens its channel: nothing, the relay is blind to it. Go's client
/// refuses a channel whose originator has port 0.
const ORIGINATOR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 65_535);

/// A service as one connection offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub service: Label,
    /// The service's port on the terminal, as declared.
    pub service_port: u16,
    /// The bind host exactly as asked for; the terminal's client compares it.
    pub host: String,
    /// The port that the terminal's client knows the forward by: the asked one, or after port 0
    /// the one that the reply gave.
    pub port: u32,
}

/// One connection of one terminal.
#[derive(Debug)]
pub struct TerminalLink {
    pub terminal: ObjectKey,
    pub key: KeyBlob,
    pub peer: Peer,
    forwards: Mutex<Vec<Forward>>,
    dials: Dials,
    /// Told when it offers less without a newer connection's doing: it may be left with nothing.
    pub lost: Notify,
    /// Whether it took a service over from an older connection.
    took_over: AtomicBool,
    /// Its sessions are being ended, since the connection has.
    left: AtomicBool,
}

impl TerminalLink {
    pub fn new(terminal: ObjectKey, key: KeyBlob, peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            terminal,
            key,
            peer,
            forwards: Mutex::default(),
            dials: Dials::default(),
            lost: Notify::new(),
            took_over: AtomicBool::new(false),
            left: AtomicBool::new(false),
        })
    }

    pub fn forwards(&self) -> Vec<Forward> {
        lock(&self.forwards).clone()
    }

    pub fn offers(&self, service: &Label) -> Option<Forward> {
        lock(&self.forwards).iter().find(|f| f.service == *service).cloned()
    }

    /// Takes forwards back; `true` if there were such.
    fn drop_forwards(&self, which: impl Fn(&Forward) -> bool) -> bool {
        let mut forwards = lock(&self.forwards);
        let before = forwards.len();
        forwards.retain(|held| !which(held));
        let dropped = forwards.len() < before;
        if dropped {
            self.lost.notify_one();
        }
        dropped
    }

    /// Whether the connection is over or about to be.
    pub fn is_gone(&self) -> bool {
        self.left.load(Ordering::Acquire) || self.peer.is_gone()
    }

    /// The connection has ended. To be called before its sessions are looked for: whoever enters a
    /// later one in the table sees it in [`TerminalLink::is_gone`].
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Opens the terminal's channel for `forward`, on behalf of `login`; waits for the terminal at most
    /// [`DIAL`]. A channel that it confirms later is closed at once.
    pub async fn dial(&self, forward: &Forward, login: &Login) -> Result<Channel, DialError> {
        let _dial = self.dials.begin(login, &forward.service).ok_or(DialError::Full)?;
        let open = self.peer.connection.open_forwarded(&forward.host, forward.port, ORIGINATOR);
        match tokio::time::timeout(DIAL, open).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(OpenError::Refused { text, .. })) => Err(DialError::Refused(text)),
            Ok(Err(OpenError::Gone)) => Err(DialError::Gone),
            // It leaves earlier requests unanswered, or this one.
            Ok(Err(OpenError::Stuck)) | Err(_) => Err(DialError::Silent),
            Ok(Err(OpenError::Full)) => Err(DialError::Full),
        }
    }
}

/// Why a connected terminal's service could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialError {
    /// Its client refused, most likely because nothing listens on the service's port there. In its
    /// own words: printable ASCII, at most 200 bytes.
    Refused(String),
    /// Its connection has just ended.
    Gone,
    /// No answer within [`DIAL`].
    Silent,
    /// This replica has no room for one more channel.
    Full,
}

/// When and from where a terminal was last connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSeen {
    pub at: Timestamp,
    pub from: SocketAddr,
}

/// What locating found.
#[derive(Debug)]
pub enum Located {
    Here(Arc<TerminalLink>, Forward),
    /// Connected, but it offers this service on none of its connections.
    NotOffered,
    NotConnected(Option<LastSeen>),
}

#[derive(Debug, Default)]
struct Entry {
    /// Newest last; each service is offered by one of them at most.
    links: Vec<Arc<TerminalLink>>,
    last_seen: Option<LastSeen>,
    /// When live connections were taken over, on the boot clock; fewer than [`TAKEOVERS`].
    takeovers: VecDeque<Boot>,
    contended_until: Option<Boot>,
}

/// What became of a connection's wish to offer a service.
#[derive(Debug)]
pub enum Offered {
    /// It offers it now.
    Taken,
    /// It took it over from this connection, which should be closed where it has none left.
    /// `first`: it is the newer one's first, so the older one is to be probed for a fight.
    TakenOver { from: Arc<TerminalLink>, first: bool },
    /// Two connections fight for this terminal's name; the one in place stays.
    Contended,
}

/// The terminals of this replica, by their names, which are unique per mesh.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<HashMap<Label, Entry>>,
}

impl Registry {
    /// Lets `link` offer `forward.service`. A newer connection takes a service over from an older
    /// one at once, unless the two have been fighting. One that has begun to take over goes on: a
    /// takeover is one, however many services it is of.
    pub fn offer(&self, link: &Arc<TerminalLink>, forward: Forward, now: Now) -> Offered {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(link.terminal.name.clone()).or_default();
        let holder = entry
            .links
            .iter()
            .find(|held| held.peer.id != link.peer.id && held.offers(&forward.service).is_some())
            .cloned();
        let begun = link.took_over.load(Ordering::Relaxed);
        let contended = entry.contended_until.is_some_and(|until| now.boot < until);
        if holder.is_some() && contended && !begun {
            return Offered::Contended;
        }
        if let Some(holder) = &holder {
            lock(&holder.forwards).retain(|held| held.service != forward.service);
        }
        {
            let mut forwards = lock(&link.forwards);
            forwards.retain(|held| held.service != forward.service);
            forwards.push(forward);
        }
        if entry.links.iter().all(|held| held.peer.id != link.peer.id) {
            entry.links.push(Arc::clone(link));
        }
        match holder {
            None => Offered::Taken,
            Some(from) => {
                let first = !link.took_over.swap(true, Ordering::Relaxed);
                Offered::TakenOver { from, first }
            }
        }
    }

    /// Counts a takeover of a connection that turned out to be alive; `true` if that makes it a
    /// fight.
    pub fn taken_over_alive(&self, terminal: &Label, now: Now) -> bool {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(terminal.clone()).or_default();
        entry.takeovers.retain(|at| now.boot.since(*at) < CONTENTION);
        entry.takeovers.push_back(now.boot);
        if entry.takeovers.len() < TAKEOVERS {
            return false;
        }
        entry.takeovers.clear();
        entry.contended_until = Some(now.boot.plus(CONTENTION));
        true
    }

    /// How many terminals are being fought for.
    pub fn contended(&self, now: Now) -> usize {
        let fought = |entry: &&Entry| entry.contended_until.is_some_and(|until| now.boot < until);
        lock(&self.entries).values().filter(fought).count()
    }

    pub fn is_contended(&self, terminal: &Label, now: Now) -> bool {
        let until = lock(&self.entries).get(terminal).and_then(|entry| entry.contended_until);
        until.is_some_and(|until| now.boot < until)
    }

    /// Takes back a forward; `true` if `link` had it.
    pub fn withdraw(&self, link: &TerminalLink, host: &str, port: u32) -> bool {
        link.drop_forwards(|held| held.host == host && held.port == port)
    }

    /// Drops what a connection offers beyond what the policy still declares.
    pub fn keep_only(&self, link: &TerminalLink, declared: impl Fn(&Forward) -> bool) {
        link.drop_forwards(|held| !declared(held));
    }

    /// Forgets a connection that has ended, but not when and whence it was there.
    pub fn remove(&self, link: &TerminalLink, now: Timestamp) {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get_mut(&link.terminal.name) {
            let before = entry.links.len();
            entry.links.retain(|held| held.peer.id != link.peer.id);
            if entry.links.len() < before {
                entry.last_seen = Some(LastSeen { at: now, from: link.peer.from });
            }
        }
    }

    /// Where `service` of `terminal` is to be had now.
    pub fn locate(&self, terminal: &Label, service: &Label) -> Located {
        let entries = lock(&self.entries);
        let Some(entry) = entries.get(terminal) else { return Located::NotConnected(None) };
        for link in entry.links.iter().rev() {
            if let Some(forward) = link.offers(service) {
                return Located::Here(Arc::clone(link), forward);
            }
        }
        if entry.links.is_empty() {
            Located::NotConnected(entry.last_seen)
        } else {
            Located::NotOffered
        }
    }

    /// The connections of one terminal, newest last.
    pub fn links(&self, terminal: &Label) -> Vec<Arc<TerminalLink>> {
        lock(&self.entries).get(terminal).map(|entry| entry.links.clone()).unwrap_or_default()
    }

    pub fn last_seen(&self, terminal: &Label) -> Option<LastSeen> {
        lock(&self.entries).get(terminal).and_then(|entry| entry.last_seen)
    }

    /// Every connection of every terminal.
    pub fn all(&self) -> Vec<Arc<TerminalLink>> {
        lock(&self.entries).values().flat_map(|entry| entry.links.clone()).collect()
    }

    /// How many terminals are connected.
    pub fn connected(&self) -> usize {
        lock(&self.entries).values().filter(|entry| !entry.links.is_empty()).count()
    }

    /// What is to be remembered across a restart: terminals that were here and when.
    pub fn remember(&self, now: Timestamp) -> Vec<(Label, LastSeen)> {
        let entries = lock(&self.entries);
        let seen = |entry: &Entry| match entry.links.last() {
            Some(link) => Some(LastSeen { at: now, from: link.peer.from }),
            None => entry.last_seen,
        };
        entries.iter().filter_map(|(name, entry)| Some((name.clone(), seen(entry)?))).collect()
    }

    /// Puts back what an earlier process remembered.
    pub fn restore(&self, seen: impl IntoIterator<Item = (Label, LastSeen)>) {
        let mut entries = lock(&self.entries);
        for (name, last_seen) in seen {
            entries.entry(name).or_default().last_seen = Some(last_seen);
        }
    }
}
