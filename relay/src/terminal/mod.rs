//! Terminals' connections: which services they offer (`-R` as the clients really send it), what
//! becomes of the ones that offer none, and of two that fight for one name.

mod asks;
mod links;
mod naming;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_policy::model::Label;

pub use links::{Entered, TerminalLinks, most};
pub use naming::{Bind, Named, name_service};

use self::asks::Asks;
use crate::barred;
use crate::clock;
use crate::end::{self, Ending};
use crate::gate::Gate;
use crate::locate::{Forward, Offered, PROBE, TerminalLink};
use crate::lock::lock;
use crate::sentences;
use crate::session::EndedBy;
use crate::ssh::{CancelRequest, ForwardRequest, SessionRequest};
use crate::trail::Who;
use crate::view::{self, clean};

/// A terminal that offers nothing this long after its login or the loss of its last service is told why
/// and closed: its client would idle for ever.
const NOTHING_OFFERED: Duration = Duration::from_secs(2);

/// What a terminal's connection keeps between its requests.
pub struct TerminalPeer {
    pub link: Arc<TerminalLink>,
    /// Why it may offer nothing at all now (suspended, no window); or why its last request was
    /// refused. Shown when it leaves with nothing.
    refusal: Arc<Mutex<Option<String>>>,
    /// It is known, but may not attach now.
    barred: bool,
    asks: Asks,
    /// Services that it has offered on this connection: the log has told of them.
    logged: Mutex<HashSet<Label>>,
    /// Its place among the connections of such a key.
    _place: Option<barred::Place>,
}

impl TerminalPeer {
    /// A terminal has logged in: it has to offer something before long. `barred` says why it may not
    /// attach now, and has its place among those of the key, if there was one left.
    pub fn arrived(
        gate: &Arc<Gate>,
        link: Arc<TerminalLink>,
        barred: Option<(String, Option<barred::Place>)>,
    ) -> Self {
        let is_barred = barred.is_some();
        let (refusal, place) = barred.unzip();
        let peer = Self {
            link,
            refusal: Arc::new(Mutex::new(refusal)),
            barred: is_barred,
            asks: Asks::default(),
            logged: Mutex::default(),
            _place: place.flatten(),
        };
        let (gate, link) = (Arc::clone(gate), Arc::clone(&peer.link));
        let refusal = Arc::clone(&peer.refusal);
        gate.clone().tasks.spawn("terminal without a service", async move {
            offers_something(&gate, &link, &refusal).await;
        });
        peer
    }

    pub fn is_barred(&self) -> bool {
        self.barred
    }

    /// The connection has ended, and with it the sessions that it carried.
    pub fn left(&self, gate: &Arc<Gate>) {
        self.link.leave();
        gate.registry.remove(&self.link, clock::now().wall);
        gate.terminals.remove(&self.link);
        if !self.barred {
            gate.trail.detached(&self.link);
            gate.trail.repeats(Who::Terminal(&self.link), true);
        }
        let carried = gate.sessions.all().into_iter();
        let carried = carried.filter(|it| it.terminal.peer.id == self.link.peer.id);
        let reason = sentences::terminal_left(&self.link.terminal.name);
        let ending = || Ending::early(EndedBy::Terminal, reason.clone());
        end::all(gate, carried.map(|session| (session, ending())));
    }

    /// Answers a `cancel-tcpip-forward`.
    pub fn cancel(&self, gate: &Gate, request: CancelRequest) {
        let had =
            self.may_ask(gate) && gate.registry.withdraw(&self.link, &request.host, request.port);
        if had { request.grant() } else { request.refuse() }
    }

    /// Counts a request to offer a service or to take it back; too many in too short a time are the end
    /// of its connection.
    fn may_ask(&self, gate: &Gate) -> bool {
        let within = self.asks.one_more(clock::boot());
        // What it had sent before it was told is no news.
        if !within && !self.link.peer.is_gone() {
            let sentence = sentences::TOO_MANY_FORWARDS;
            self.refused(gate, "a forward", "TooManyForwards", sentence);
            self.link.peer.end(sentence);
        }
        within
    }

    /// Answers a `tcpip-forward`.
    pub fn forward(&self, gate: &Arc<Gate>, request: ForwardRequest) {
        if !self.may_ask(gate) {
            return request.refuse();
        }
        let bind = Bind { address: request.host.clone(), port: request.port };
        match self.grant(gate, &bind) {
            Ok(port) => request.grant(port),
            Err((code, sentence)) => {
                request.refuse();
                let what = clean(&format!("-R {}:{}", bind.address, bind.port));
                self.refused(gate, &what, code, &sentence);
                if !self.barred {
                    *lock(&self.refusal) = Some(sentence);
                }
            }
        }
    }

    /// Writes down that it was refused something; too often is the end of its connection.
    pub fn refused(&self, gate: &Gate, what: &str, code: &'static str, sentence: &str) {
        // What is barred was written down at the door.
        if self.barred {
            return;
        }
        gate.trail.refused(Who::Terminal(&self.link), what, code, sentence);
        if self.link.peer.denies.too_many() {
            self.link.peer.end(sentence);
        }
    }

    /// The port to reply with, or the code and the sentence.
    fn grant(&self, gate: &Arc<Gate>, bind: &Bind) -> Result<u32, (&'static str, String)> {
        let link = &self.link;
        let name = &link.terminal.name;
        if self.barred {
            return Err(("Barred", lock(&self.refusal).clone().unwrap_or_default()));
        }
        if gate.is_draining() {
            return Err(("Draining", sentences::draining()));
        }
        let policy = gate.policy();
        let terminal = policy
            .snapshot
            .terminal(name)
            .filter(|terminal| terminal.public_keys.contains(&link.key))
            .ok_or_else(|| ("TerminalWithdrawn", sentences::terminal_withdrawn(name)))?;
        if terminal.suspended {
            return Err(("TerminalSuspended", sentences::terminal_suspended(name)));
        }
        let taken: Vec<_> = link.forwards().into_iter().map(|forward| forward.service).collect();
        let domain = &policy.snapshot.mesh().domain;
        let Named { service, port } =
            name_service(terminal, domain, bind, |service| taken.contains(&service.name))
                .map_err(|sentence| ("NotDeclared", sentence))?;
        let forward = Forward {
            service: service.name.clone(),
            service_port: service.port,
            host: bind.address.clone(),
            port,
        };
        match gate.registry.offer(link, forward, clock::now()) {
            Offered::Taken => {}
            Offered::TakenOver { from, first } => taken_over(gate, from, first),
            Offered::Contended => return Err(("Contended", sentences::contended(name))),
        }
        let from = link.peer.from;
        if lock(&self.logged).insert(service.name.clone()) {
            tracing::info!(terminal = %name, service = %service.name, %from, "terminal offers a service");
        } else {
            tracing::debug!(terminal = %name, service = %service.name, %from, "terminal offers a service again");
        }
        Ok(port)
    }

    /// A terminal's client that was started without -N asks for a session: it learns what it is here,
    /// or that it may not attach now, and the channel stays open, since the client ends with it.
    pub fn session(&self, gate: &Arc<Gate>, request: SessionRequest) {
        let domain = gate.policy().snapshot.mesh().domain.to_string();
        let link = Arc::clone(&self.link);
        let barred = self.barred.then(|| lock(&self.refusal).clone().unwrap_or_default());
        gate.tasks.spawn("terminal's console", async move {
            let (pty, mut channel) = (request.pty, request.channel);
            let offered: Vec<_> = link.forwards().into_iter().map(|f| f.service).collect();
            let text = match barred {
                None => view::attached_as(&link.terminal.name, &offered, &domain, pty),
                Some(sentence) => view::refused(&sentence, pty).stderr,
            };
            if channel.stdout(text.as_bytes()).await.is_ok() {
                channel.closed().wait().await;
            }
        });
    }
}

/// Closes a connection that holds no forward when it is looked at: 2 s after its login or the loss of
/// its last one. What it asks for meanwhile gives it no more time.
async fn offers_something(gate: &Gate, link: &TerminalLink, refusal: &Mutex<Option<String>>) {
    loop {
        tokio::select! {
            () = link.peer.connection.closed() => return,
            () = tokio::time::sleep(NOTHING_OFFERED) => {}
        }
        if link.forwards().is_empty() {
            let name = &link.terminal.name;
            let sentence = match gate.policy().snapshot.terminal(name) {
                Some(terminal) => sentences::no_forward(terminal, lock(refusal).as_deref()),
                None => sentences::terminal_withdrawn(name),
            };
            tracing::info!(terminal = %name, reason = %sentence, "terminal refused");
            link.peer.end(&sentence);
            return;
        }
        // A takeover that leaves it nothing closes it, and does not tell.
        while !link.forwards().is_empty() {
            tokio::select! {
                () = link.peer.connection.closed() => return,
                () = link.lost.notified() => {}
            }
        }
    }
}

/// Closes the older connection if the newer one left it nothing, once it has shown whether it was
/// still alive: only a live one counts as a fight, and once for each newer connection.
fn taken_over(gate: &Arc<Gate>, old: Arc<TerminalLink>, first: bool) {
    let gate = Arc::clone(gate);
    gate.clone().tasks.spawn("takeover", async move {
        let name = &old.terminal.name;
        let alive = old.peer.connection.alive(PROBE).await;
        if alive && first && gate.registry.taken_over_alive(name, clock::now()) {
            tracing::warn!(terminal = %name, "two live connections fight for a terminal's name");
        }
        if old.forwards().is_empty() {
            old.peer.end(&sentences::taken_over(name));
        }
    });
}
