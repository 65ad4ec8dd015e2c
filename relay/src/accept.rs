//! Listeners, and the budget that connections live on until a key is proven (invariant 8).
//!
//! The accept loop never waits for a peer: it hands each socket on and accepts the next. What an
//! unauthenticated peer costs is bounded by *making way*: at a cap the oldest connection of the
//! fullest source prefix is killed and the newcomer gets in, so that a crowd of slow peers crowds
//! out itself and not the next login. Touches the network.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel keeps until they are accepted; it takes less where its own limit
/// (net.core.somaxconn) is lower.
const BACKLOG: i32 = 1024;
/// The pause after the first failure to accept for want of descriptors or memory; it doubles up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A port that the relay listens on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Where it listens; the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Why the relay cannot listen where it was told to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{}", hint(*.address, .error))]
pub struct BindError {
    pub address: SocketAddr,
    pub error: io::Error,
}

fn hint(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "; give the relay CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or set the \
             sysctl net.ipv4.ip_unprivileged_port_start to {} or lower",
            address.port()
        ),
        io::ErrorKind::AddrInUse => "; another process has this port (ss -ltnp shows which)".into(),
        _ => String::new(),
    }
}

/// Every address of this machine, by both versions of IP.
pub fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// Listens on all of `addresses`, or on none: one that fails is an error. `[::]` takes IPv4, too,
/// unless `0.0.0.0` is asked for by name; a kernel without IPv6 gets `0.0.0.0` in its place.
///
/// Must be called within the runtime.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<Listener>, BindError> {
    addresses
        .iter()
        .map(|&address| {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            let only_v6 = address.port() != 0 && addresses.contains(&v4);
            let listening = listen(address, only_v6).or_else(|error| {
                let no_v6 = error.raw_os_error() == Some(NO_V6);
                if no_v6 && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                    listen(v4, false)
                } else {
                    Err(error)
                }
            });
            listening.map_err(|error| BindError { address, error })
        })
        .collect()
}

/// EAFNOSUPPORT.
const NO_V6: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

fn listen(address: SocketAddr, only_v6: bool) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from_std(socket.into())?;
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

/// Accepts for ever and hands each socket to `handle`, which must not block: the peer's address, the
/// port of ours that it came to, and its place in the budget.
pub async fn accept(
    listener: Listener,
    budget: Budget,
    handle: impl Fn(TcpStream, SocketAddr, u16, Ticket),
) -> Infallible {
    let port = listener.address.port();
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.socket.accept().await {
            Ok((socket, peer)) => {
                pause = FIRST_PAUSE;
                let peer = canonical(peer);
                let ticket = budget.admit(peer.ip());
                handle(socket, peer, port, ticket);
            }
            Err(error) if is_shortage(&error) => {
                // There is no event for "a descriptor is free": make one free, and look again.
                let made_way = budget.make_way();
                tracing::warn!(%error, port, made_way, ?pause, "cannot accept a connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // It concerns the one connection that failed before it was accepted.
            Err(error) => {
                tracing::debug!(%error, port, "a connection failed before it was accepted");
            }
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    // Anything that is not known to pass by itself must not turn into a busy loop either.
    let passing = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::TIMEDOUT,
        Errno::NONET,
    ];
    let code = error.raw_os_error();
    let is = |list: &[Errno]| list.iter().any(|errno| Some(errno.raw_os_error()) == code);
    is(&shortages) || !is(&passing)
}

/// An IPv4 peer of a socket for both versions as IPv4.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// How many connections may be open before a key is proven; per replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    pub unauthenticated: usize,
    /// From one source prefix.
    pub per_source: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { unauthenticated: 1024, per_source: 128 }
    }
}

/// The network that a peer counts with: /24 of IPv4, /56 of IPv6, which is what one customer of a
/// provider usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpAddr);

impl Prefix {
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xff)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !((1 << 72) - 1))),
        })
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, if self.0.is_ipv4() { 24 } else { 56 })
    }
}

/// How many have had to make way, by the cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GaveWay {
    /// At the cap of all, or since descriptors or memory had run out.
    pub unauthenticated: u64,
    pub per_source: u64,
}

/// Who has a place, and who gives way: plain bookkeeping. Ids only ever grow, so the smallest of a
/// prefix is its oldest.
#[derive(Debug, Default)]
pub struct Ledger {
    places: HashMap<u64, Prefix>,
    prefixes: HashMap<Prefix, BTreeSet<u64>>,
    next: u64,
    gave_way: GaveWay,
}

impl Ledger {
    /// Gives a newcomer a place, which it always gets. Returns its id, and who gives way for it,
    /// usually nobody or one. `pick(n)` draws from `0..n`, to break ties.
    pub fn admit(
        &mut self,
        source: Prefix,
        caps: Caps,
        pick: &mut dyn FnMut(usize) -> usize,
    ) -> (u64, Vec<u64>) {
        let mut evicted = self.make_way_for(source, caps);
        while self.len() >= caps.unauthenticated.max(1) {
            let Some(id) = self.make_way(pick) else { break };
            evicted.push(id);
        }
        let id = self.next;
        self.next += 1;
        self.places.insert(id, source);
        self.prefixes.entry(source).or_default().insert(id);
        (id, evicted)
    }

    /// Takes the place of the oldest of the fullest prefix.
    pub fn make_way(&mut self, pick: &mut dyn FnMut(usize) -> usize) -> Option<u64> {
        let most = self.prefixes.values().map(BTreeSet::len).max()?;
        let mut fullest: Vec<Prefix> =
            self.prefixes.iter().filter(|(_, ids)| ids.len() == most).map(|(it, _)| *it).collect();
        // So that the draw alone decides, not the order of a hash map.
        fullest.sort_unstable();
        let prefix = *fullest.get(pick(fullest.len()))?;
        let id = self.oldest(prefix)?;
        self.leave(id);
        self.gave_way.unauthenticated = self.gave_way.unauthenticated.saturating_add(1);
        Some(id)
    }

    /// Takes the places of the oldest of a prefix, until there is one for a newcomer of it: more than one
    /// where the caps have become smaller.
    fn make_way_for(&mut self, source: Prefix, caps: Caps) -> Vec<u64> {
        let mut evicted = Vec::new();
        while self.from(source) >= caps.per_source.max(1) {
            let Some(id) = self.oldest(source) else { break };
            self.leave(id);
            self.gave_way.per_source = self.gave_way.per_source.saturating_add(1);
            evicted.push(id);
        }
        evicted
    }

    /// The place of somebody who was behind a proxy counts with its own network from now on. Returns who
    /// gives way for it there; `None`: it has no place any more.
    pub fn relocate(&mut self, id: u64, source: Prefix, caps: Caps) -> Option<Vec<u64>> {
        if !self.leave(id) {
            return None;
        }
        let evicted = self.make_way_for(source, caps);
        self.places.insert(id, source);
        self.prefixes.entry(source).or_default().insert(id);
        Some(evicted)
    }

    /// Takes a place back; `false`: there was none any more.
    pub fn leave(&mut self, id: u64) -> bool {
        let Some(prefix) = self.places.remove(&id) else { return false };
        if let Some(ids) = self.prefixes.get_mut(&prefix) {
            ids.remove(&id);
            if ids.is_empty() {
                self.prefixes.remove(&prefix);
            }
        }
        true
    }

    fn oldest(&self, prefix: Prefix) -> Option<u64> {
        self.prefixes.get(&prefix)?.first().copied()
    }

    /// Places taken from one prefix.
    pub fn from(&self, prefix: Prefix) -> usize {
        self.prefixes.get(&prefix).map_or(0, BTreeSet::len)
    }

    /// Places taken.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

type Kill = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    ledger: Ledger,
    caps: Caps,
    /// How each of those in the ledger is killed, where it is known already.
    kills: HashMap<u64, Kill>,
}

/// The budget of all listeners of one process. Clones share it.
#[derive(Clone, Default)]
pub struct Budget(Arc<Mutex<Shared>>);

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("open", &self.open()).finish_non_exhaustive()
    }
}

fn pick(n: usize) -> usize {
    rand::random_range(0..n.max(1))
}

impl Budget {
    pub fn new(caps: Caps) -> Self {
        let budget = Self::default();
        budget.set_caps(caps);
        budget
    }

    /// Changes the caps; who is over them gives way at the next arrivals.
    pub fn set_caps(&self, caps: Caps) {
        self.lock().caps = caps;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that live on it now.
    pub fn open(&self) -> usize {
        self.lock().ledger.len()
    }

    /// Connections that have had to make way since this was asked last.
    pub fn take_gave_way(&self) -> GaveWay {
        std::mem::take(&mut self.lock().ledger.gave_way)
    }

    /// Gives a newcomer a place; whoever has to make way for it is killed when this returns.
    pub fn admit(&self, source: IpAddr) -> Ticket {
        let mut shared = self.lock();
        let caps = shared.caps;
        let (id, evicted) = shared.ledger.admit(Prefix::of(source), caps, &mut pick);
        let kills = shared.take_kills(&evicted);
        drop(shared);
        for kill in kills {
            kill();
        }
        Ticket { id, budget: self.clone() }
    }

    /// Kills one, since descriptors or memory have run out; `false`: there is none.
    fn make_way(&self) -> bool {
        let mut shared = self.lock();
        let Some(id) = shared.ledger.make_way(&mut pick) else { return false };
        let kills = shared.take_kills(&[id]);
        drop(shared);
        for kill in kills {
            kill();
        }
        true
    }
}

impl Shared {
    fn take_kills(&mut self, evicted: &[u64]) -> Vec<Kill> {
        evicted.iter().filter_map(|id| self.kills.remove(id)).collect()
    }
}

/// A connection's place in the budget, from its arrival until a key is proven or it is gone.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    budget: Budget,
}

impl Ticket {
    /// Says how the connection is killed when it has to make way: quick, sync, and not back into the
    /// budget. If it has had to meanwhile, it is killed here and now.
    pub fn on_eviction(&self, kill: impl FnOnce() + Send + 'static) {
        let mut shared = self.budget.lock();
        if shared.ledger.places.contains_key(&self.id) {
            shared.kills.insert(self.id, Box::new(kill));
        } else {
            drop(shared);
            kill();
        }
    }

    /// Whether it has had to make way, while no key was proven.
    pub fn gave_way(&self) -> bool {
        !self.budget.lock().ledger.places.contains_key(&self.id)
    }

    /// The connection came through a proxy, from this source.
    pub fn came_from(&self, source: IpAddr) {
        let mut shared = self.budget.lock();
        let caps = shared.caps;
        let evicted = shared.ledger.relocate(self.id, Prefix::of(source), caps);
        let kills = shared.take_kills(&evicted.unwrap_or_default());
        drop(shared);
        for kill in kills {
            kill();
        }
    }

    /// A key was proven: from now on it never gives way, and counts no more. `false`: it had to make
    /// way just before, and is dead.
    pub fn proven(&self) -> bool {
        self.leave()
    }

    fn leave(&self) -> bool {
        let mut shared = self.budget.lock();
        let kill = shared.kills.remove(&self.id);
        let had = shared.ledger.leave(self.id);
        drop(shared);
        // What it holds may come back to the budget when dropped.
        drop(kill);
        had
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tidegate_draw::cases;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sources_count_by_network() {
        let same = |a, b| Prefix::of(ip(a)) == Prefix::of(ip(b));
        assert!(same("192.0.2.1", "192.0.2.254") && !same("192.0.2.1", "192.0.3.1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.9"));
        assert!(same("2001:db8:0:ff00::1", "2001:db8:0:ffff:9::9"));
        assert!(!same("2001:db8:0:ff00::1", "2001:db8:0:fe00::1"));
        assert_eq!(Prefix::of(ip("192.0.2.1")).to_string(), "192.0.2.0/24");
        assert_eq!(Prefix::of(ip("2001:db8:0:ff01::1")).to_string(), "2001:db8:0:ff00::/56");
        let mapped = SocketAddr::new(ip("::ffff:192.0.2.1"), 7);
        assert_eq!(canonical(mapped).to_string(), "192.0.2.1:7");
    }

    #[test]
    fn the_fullest_source_gives_way_and_its_oldest_first() {
        let caps = Caps { unauthenticated: 4, per_source: 3 };
        let mut ledger = Ledger::default();
        let (crowd, other) = (Prefix::of(ip("192.0.2.1")), Prefix::of(ip("198.51.100.1")));
        let mut first = |_| 0;
        let mut admit = |source| ledger.admit(source, caps, &mut first);
        let (a, none) = admit(other);
        assert!(none.is_empty());
        let (b, _) = admit(crowd);
        admit(crowd);
        admit(crowd);
        let (d, evicted) = admit(other);
        assert_eq!(evicted, [b], "the overall cap: the crowd's oldest, not the oldest of all");
        let (_, evicted) = admit(crowd);
        assert_eq!(evicted.len(), 1, "a tie of two and two");
        assert!(![a, d].contains(evicted.first().unwrap()) || evicted == [a]);
    }

    #[test]
    fn who_is_behind_a_proxy_counts_with_its_own_network() {
        let caps = Caps { unauthenticated: 9, per_source: 2 };
        let budget = Budget::new(caps);
        let killed = Arc::new(Mutex::new(Vec::new()));
        let through = |n: usize, source: &str| {
            let ticket = budget.admit(ip("10.0.0.1"));
            let killed = Arc::clone(&killed);
            ticket.on_eviction(move || killed.lock().unwrap().push(n));
            ticket.came_from(ip(source));
            ticket
        };
        let kept: Vec<Ticket> = (0..4)
            .map(|n| through(n, "192.0.2.1"))
            .chain((4..6).map(|n| through(n, "198.51.100.1")))
            .collect();
        assert_eq!(*killed.lock().unwrap(), [0, 1], "the oldest of the crowd, and nobody else");
        assert_eq!(budget.open(), 4);
        // One that had to go does not come back by that.
        kept.first().unwrap().came_from(ip("203.0.113.1"));
        assert_eq!(budget.open(), 4);
        drop(kept);
        assert_eq!(budget.open(), 0);
    }

    #[test]
    fn a_source_at_its_cap_makes_way_for_itself() {
        let caps = Caps { unauthenticated: 100, per_source: 2 };
        let mut ledger = Ledger::default();
        let source = Prefix::of(ip("192.0.2.1"));
        let ids: Vec<_> = (0..4).map(|_| ledger.admit(source, caps, &mut pick)).collect();
        let evicted: Vec<_> = ids.iter().flat_map(|(_, evicted)| evicted).copied().collect();
        assert_eq!(evicted, [ids[0].0, ids[1].0]);
        assert_eq!(ledger.from(source), 2);
    }

    #[test]
    fn tickets_release_kill_and_spare_the_proven() {
        let budget = Budget::new(Caps { unauthenticated: 2, per_source: 2 });
        let killed = Arc::new(AtomicUsize::new(0));
        let count = |ticket: &Ticket| {
            let killed = Arc::clone(&killed);
            ticket.on_eviction(move || {
                killed.fetch_add(1, Ordering::Relaxed);
            });
        };
        let proven = budget.admit(ip("192.0.2.1"));
        count(&proven);
        assert!(proven.proven());
        assert_eq!(budget.open(), 0);
        let first = budget.admit(ip("192.0.2.1"));
        count(&first);
        let second = budget.admit(ip("192.0.2.1"));
        let third = budget.admit(ip("192.0.2.1"));
        assert_eq!((killed.load(Ordering::Relaxed), budget.take_gave_way().per_source), (1, 1));
        assert!(!first.proven(), "too late");
        let fourth = budget.admit(ip("192.0.2.1"));
        count(&second);
        assert_eq!(killed.load(Ordering::Relaxed), 2, "evicted before it could be killed");
        drop((proven, first, second, third));
        assert_eq!(budget.open(), 1);
        assert!(budget.make_way());
        assert!(!budget.make_way());
        assert_eq!(budget.take_gave_way(), GaveWay { unauthenticated: 1, per_source: 1 });
        drop(fourth);
        assert_eq!(budget.open(), 0);
        assert!(budget.lock().kills.is_empty() && budget.lock().ledger.prefixes.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u8),
        Leave(usize),
        MakeWay,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u8..6).prop_map(Step::Admit),
            2 => any::<usize>().prop_map(Step::Leave),
            1 => Just(Step::MakeWay),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #![proptest_config(cases(256))]

        /// Against the plainest model there is: a list in order of arrival.
        #[test]
        fn the_ledger_keeps_its_promises(
            steps in steps(), unauthenticated in 1usize..12, per_source in 1usize..6, draw in any::<usize>()
        ) {
            let caps = Caps { unauthenticated, per_source };
            let mut pick = |n: usize| draw % n;
            let mut ledger = Ledger::default();
            let mut model: Vec<(u64, Prefix)> = Vec::new();
            let from = |model: &[(u64, Prefix)], prefix| model.iter().filter(|it| it.1 == prefix).count();
            for step in steps {
                let (evicted, newcomer) = match step {
                    Step::Admit(source) => {
                        let source = Prefix::of(IpAddr::V4(Ipv4Addr::new(192, 0, source, 1)));
                        let (id, evicted) = ledger.admit(source, caps, &mut pick);
                        (evicted, Some((id, source)))
                    }
                    Step::Leave(which) => {
                        if !model.is_empty() {
                            let (id, _) = model.remove(which % model.len());
                            prop_assert!(ledger.leave(id));
                            prop_assert!(!ledger.leave(id));
                        }
                        (Vec::new(), None)
                    }
                    Step::MakeWay => (ledger.make_way(&mut pick).into_iter().collect(), None),
                };
                prop_assert!(evicted.len() <= 1);
                for id in evicted {
                    let at = model.iter().position(|it| it.0 == id);
                    prop_assert!(at.is_some(), "only who is there gives way");
                    let prefix = model[at.unwrap()].1;
                    let most = model.iter().map(|it| from(&model, it.1)).max().unwrap();
                    let own = newcomer.is_some_and(|it| it.1 == prefix && from(&model, prefix) == per_source);
                    prop_assert!(own || from(&model, prefix) == most, "the fullest source");
                    prop_assert!(own || newcomer.is_none() || model.len() == unauthenticated);
                    let oldest = model.iter().find(|it| it.1 == prefix).unwrap().0;
                    prop_assert_eq!(id, oldest);
                    model.remove(at.unwrap());
                }
                model.extend(newcomer);
                prop_assert!(model.len() <= unauthenticated);
                prop_assert_eq!(ledger.len(), model.len());
                for (_, prefix) in &model {
                    prop_assert_eq!(ledger.from(*prefix), from(&model, *prefix));
                    prop_assert!(ledger.from(*prefix) <= per_source);
                }
                let prefixes: BTreeSet<_> = model.iter().map(|it| it.1).collect();
                prop_assert_eq!(ledger.prefixes.len(), prefixes.len());
            }
        }
    }

    #[test]
    fn a_bind_error_says_what_to_do() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
        let sentence = BindError { address: everywhere(80), error }.to_string();
        assert!(sentence.starts_with("cannot listen on [::]:80: Permission denied"), "{sentence}");
        assert!(sentence.contains("CAP_NET_BIND_SERVICE"), "{sentence}");
        assert!(sentence.contains("ip_unprivileged_port_start to 80"), "{sentence}");
        assert!(sentence.len() <= 300 && sentence.is_ascii());
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test is the peer")]
    async fn both_versions_of_ip_arrive_and_a_taken_port_is_an_error() {
        let listeners = bind(&[everywhere(0)]).unwrap();
        let listener = listeners.into_iter().next().unwrap();
        let port = listener.address().port();
        let taken = bind(&[everywhere(port)]).unwrap_err();
        assert_eq!(taken.error.kind(), io::ErrorKind::AddrInUse);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let budget = Budget::default();
        let loops = accept(listener, budget.clone(), move |_, peer, port, ticket| {
            tell.send((peer.ip(), port, ticket)).unwrap();
        });
        let peers = async {
            for address in ["127.0.0.1", "::1"] {
                let Ok(socket) = std::net::TcpStream::connect((address, port)) else {
                    assert_eq!(address, "::1", "a machine without IPv6");
                    continue;
                };
                let (peer, to, ticket) = told.recv().await.unwrap();
                assert_eq!((peer, to), (ip(address), port));
                assert_eq!(budget.open(), 1);
                drop((ticket, socket));
                assert_eq!(budget.open(), 0);
            }
        };
        tokio::select! {
            never = loops => match never {},
            () = peers => {}
        }
    }
}
