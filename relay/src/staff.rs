//! The connections of login users, and what hangs on each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tidegate_policy::decide::Staff;
use tidegate_policy::model::{Label, Login};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::lock::lock;
use crate::peer::Peer;
use crate::session::Session;

/// A service of a terminal.
pub type Target = (Label, Label);

/// One connection of one login user.
#[derive(Debug)]
pub struct StaffLink {
    pub who: Staff,
    pub peer: Peer,
    sessions: Mutex<Carried>,
    /// Held while a session on a target is being made, so that parallel opens make one.
    making: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<()>>>>,
    /// Channels that are being opened or are open: each may still be refused.
    pub opens: TaskTracker,
    /// Places for views that are made and written at once.
    pub views: Semaphore,
}

/// Views of one connection that are made and written at once; others wait. An answer is kept until the
/// peer has taken it.
const VIEWS: usize = 4;

/// The sessions of one connection.
#[derive(Debug, Default)]
struct Carried {
    by_target: HashMap<Target, Arc<Session>>,
    /// The connection has ended: none may begin any more.
    left: bool,
}

impl StaffLink {
    pub fn new(who: Staff, peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            who,
            peer,
            sessions: Mutex::default(),
            making: Mutex::default(),
            opens: TaskTracker::new(),
            views: Semaphore::new(VIEWS),
        })
    }

    /// The live session on a target, which a further channel joins.
    pub fn session(&self, target: &Target) -> Option<Arc<Session>> {
        let carried = lock(&self.sessions);
        carried.by_target.get(target).filter(|session| session.is_live()).cloned()
    }

    /// Takes up a session; `false` where the connection has ended meanwhile, so that nobody would
    /// end it.
    pub fn add(&self, target: Target, session: Arc<Session>) -> bool {
        let mut carried = lock(&self.sessions);
        if !carried.left {
            carried.by_target.insert(target, session);
        }
        !carried.left
    }

    /// The connection has ended: what it carried is to end, and no session begins on it any more.
    pub fn leave(&self) -> Vec<Arc<Session>> {
        let mut carried = lock(&self.sessions);
        carried.left = true;
        carried.by_target.drain().map(|(_, session)| session).collect()
    }

    /// Forgets sessions that have ended; `true` if none is left.
    pub fn forget_ended(&self) -> bool {
        let mut carried = lock(&self.sessions);
        carried.by_target.retain(|_, session| session.is_live());
        carried.by_target.is_empty()
    }

    /// The lock under which a session on `target` is made.
    pub fn making(&self, target: &Target) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.making).entry(target.clone()).or_default())
    }
}

/// The login users' connections to this replica.
#[derive(Debug, Default)]
pub struct StaffLinks(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    links: HashMap<u64, Arc<StaffLink>>,
    /// How many of them each login user has.
    counts: HashMap<Login, u32>,
}

impl StaffLinks {
    /// Takes in one more connection; `false`: its login user has `most` already.
    pub fn insert(&self, link: Arc<StaffLink>, most: u32) -> bool {
        let mut table = lock(&self.0);
        let count = table.counts.get(&link.who.login).copied().unwrap_or(0);
        if count >= most {
            return false;
        }
        table.counts.insert(link.who.login.clone(), count.saturating_add(1));
        table.links.insert(link.peer.id, link);
        true
    }

    pub fn remove(&self, link: &StaffLink) {
        let mut table = lock(&self.0);
        if table.links.remove(&link.peer.id).is_none() {
            return;
        }
        if let Some(count) = table.counts.get_mut(&link.who.login) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.counts.remove(&link.who.login);
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<StaffLink>> {
        lock(&self.0).links.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.0).links.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
