//! Terminals' connections: which services they offer (`-R` as the clients really send it), what
//! becomes of the ones that offer none, and of two that fight for one name.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_policy::model::{Service, Terminal};
use tokio::sync::Notify;

use crate::clock;
use crate::end;
use crate::gate::Gate;
use crate::locate::{Forward, Offered, PROBE, TerminalLink};
use crate::sentences;
use crate::session::EndedBy;
use crate::ssh::Console;

/// A terminal that offers nothing this long after its login, or after its last wish, is told why
/// and closed: its client would idle for ever.
const NOTHING_OFFERED: Duration = Duration::from_secs(2);

/// What a terminal's connection keeps between its requests.
pub struct TerminalPeer {
    pub link: Arc<TerminalLink>,
    /// Why the last wish was refused; shown when it leaves with nothing.
    refusal: Arc<Mutex<Option<String>>>,
    /// Each wish starts the patience anew.
    wish: Arc<Notify>,
    consoles: Mutex<Vec<Arc<Console>>>,
}

impl TerminalPeer {
    pub fn new(link: Arc<TerminalLink>) -> Self {
        Self { link, refusal: Arc::default(), wish: Arc::default(), consoles: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A terminal has logged in: it has to offer something before long.
pub fn arrived(gate: &Arc<Gate>, peer: &TerminalPeer) {
    gate.metrics.terminal_arrived();
    let (gate, link) = (Arc::clone(gate), Arc::clone(&peer.link));
    let (refusal, wish) = (Arc::clone(&peer.refusal), Arc::clone(&peer.wish));
    gate.clone().tasks.spawn("terminal without a service", async move {
        let Some(connection) = link.connection().cloned() else { return };
        loop {
            tokio::select! {
                () = connection.socket.finished() => return,
                () = wish.notified() => {}
                () = tokio::time::sleep(NOTHING_OFFERED) => {
                    if link.forwards().is_empty() {
                        let name = &link.terminal.name;
                        let policy = gate.policy.current();
                        let sentence = match policy.snapshot.terminal(name) {
                            Some(terminal) => {
                                sentences::no_forward(&terminal, lock(&refusal).as_deref())
                            }
                            None => sentences::terminal_withdrawn(name),
                        };
                        tracing::info!(terminal = %name, reason = %sentence, "terminal refused");
                        connection.end(&sentence).await;
                        return;
                    }
                    // It offers something; only a later wish or a takeover changes that.
                    tokio::select! {
                        () = connection.socket.finished() => return,
                        () = wish.notified() => {}
                    }
                }
            }
        }
    });
}

/// A terminal's connection has ended, and with it the sessions that it carried.
pub fn left(gate: &Arc<Gate>, peer: &TerminalPeer) {
    gate.registry.remove(&peer.link, clock::now().wall);
    gate.metrics.terminal_left();
    for session in gate.sessions.all() {
        if session.terminal.id == peer.link.id {
            let reason = sentences::terminal_left(&peer.link.terminal.name);
            end::end(gate, &session, EndedBy::Terminal, reason, Duration::ZERO);
        }
    }
}

/// Answers a `tcpip-forward`: the port to reply with, or `None` with the reason kept.
pub fn forward(gate: &Arc<Gate>, peer: &mut TerminalPeer, host: &str, port: u32) -> Option<u32> {
    let answer = wish(gate, &peer.link, host, port);
    peer.wish.notify_one();
    match answer {
        Ok(port) => Some(port),
        Err(sentence) => {
            *lock(&peer.refusal) = Some(sentence);
            None
        }
    }
}

fn wish(gate: &Arc<Gate>, link: &Arc<TerminalLink>, host: &str, port: u32) -> Result<u32, String> {
    let policy = gate.policy.current();
    let name = &link.terminal.name;
    let terminal = policy.snapshot.terminal(name);
    let terminal = terminal
        .filter(|terminal| terminal.public_keys.contains(&link.key) && !terminal.suspended)
        .ok_or_else(|| sentences::terminal_withdrawn(name))?;
    let own = bind_host(&terminal, &policy.snapshot.mesh().domain, host)?;
    let taken: Vec<_> = link.forwards().into_iter().map(|forward| forward.service).collect();
    let service = if port == 0 {
        let free = terminal.services.iter().find(|service| !taken.contains(&service.name));
        free.ok_or_else(|| sentences::all_offered(name))?
    } else {
        named(&terminal, own, port).ok_or_else(|| sentences::unknown_listen_port(name, port))?
    };
    let reply = if port == 0 {
        u32::from(service.listen_port.unwrap_or(service.port))
    } else {
        port
    };
    let forward = Forward {
        service: service.name.clone(),
        service_port: service.port,
        host: host.to_owned(),
        port: reply,
    };
    match gate.registry.offer(link, forward, clock::now()) {
        Offered::Taken => {}
        Offered::TakenOver(old) => taken_over(gate, old),
        Offered::Contended => return Err(sentences::contended(name)),
    }
    let service = &service.name;
    tracing::info!(terminal = %name, %service, from = %link.from, "terminal offers a service");
    Ok(reply)
}

/// Whether the bind host is the terminal's own name; anything but that, a loopback address or "all
/// addresses" is refused.
fn bind_host(terminal: &Terminal, domain: &str, host: &str) -> Result<bool, String> {
    let name = terminal.meta.key.name.as_str();
    let bare = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let own = bare == name
        || bare.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) == Some(name);
    let address = || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if own {
        Ok(true)
    } else if bare.is_empty() || bare == "*" || bare == "localhost" || address() {
        Ok(false)
    } else {
        Err(sentences::foreign_bind_host(&terminal.meta.key.name, host))
    }
}

/// The service that `port` names: by its listen port, or under the terminal's own name by its port.
fn named(terminal: &Terminal, own: bool, port: u32) -> Option<&Service> {
    let is = |wanted: u16| u32::from(wanted) == port;
    let by_listen_port = terminal.services.iter().find(|s| s.listen_port.is_some_and(is));
    by_listen_port.or_else(|| terminal.services.iter().find(|s| own && is(s.port)))
}

/// Closes the older connection if the newer one left it nothing, once it has shown whether it was
/// still alive: only a live one counts as a fight.
fn taken_over(gate: &Arc<Gate>, old: Arc<TerminalLink>) {
    let gate = Arc::clone(gate);
    gate.clone().tasks.spawn("takeover", async move {
        let Some(connection) = old.connection().cloned() else { return };
        let name = &old.terminal.name;
        let alive = tokio::select! {
            () = connection.socket.finished() => false,
            alive = connection.handle.answers(PROBE) => alive,
        };
        if alive && gate.registry.taken_over_alive(name, clock::now()) {
            tracing::warn!(terminal = %name, "two live connections fight for a terminal's name");
        }
        if old.forwards().is_empty() {
            connection.end(&sentences::taken_over(name)).await;
        }
    });
}

/// A terminal's client that was started without -N asks for a session: it learns what it is here,
/// and the channel stays open, since the client ends with it.
pub fn console(gate: &Arc<Gate>, peer: &TerminalPeer, console: Console) {
    let policy = gate.policy.current();
    let offered = peer.link.forwards();
    let offered: Vec<_> = offered.iter().map(|forward| forward.service.as_str()).collect();
    let offered = if offered.is_empty() { "nothing yet".to_owned() } else { offered.join(", ") };
    let domain = &policy.snapshot.mesh().domain;
    let text = sentences::attached(&peer.link.terminal.name, &offered, domain);
    let console = Arc::new(console);
    let mut consoles = lock(&peer.consoles);
    consoles.retain(|held| !held.is_closed());
    consoles.push(Arc::clone(&console));
    gate.tasks.spawn("terminal's console", async move { console.print(&text).await });
}
