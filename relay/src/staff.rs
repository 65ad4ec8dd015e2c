//! The connections of login users, and what hangs on each of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tidegate_policy::decide::Staff;
use tidegate_policy::model::Label;

use crate::clock::{Boot, Now};
use crate::session::Session;
use crate::ssh::{Connection, Reason};

/// Repeats of one refusal within this time become one line with a count.
const REPEATS: Duration = Duration::from_mins(1);
/// A connection that was refused this often is closed.
pub const DENIES: u32 = 20;
/// Distinct refusals remembered per connection; as many as it can have.
const DISTINCT: usize = DENIES as usize;

/// A service of a terminal.
pub type Target = (Label, Label);

/// One connection of one login user.
#[derive(Debug)]
pub struct StaffLink {
    pub id: u64,
    pub who: Staff,
    pub from: SocketAddr,
    /// The port of ours that she came in by.
    pub listener_port: u16,
    /// Her client's version line, cleaned.
    pub client: String,
    pub since: Timestamp,
    connection: Connection,
    sessions: Mutex<Carried>,
    /// Held while a session on a target is being made, so that parallel opens make one.
    making: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<()>>>>,
    denies: Mutex<Denies>,
}

/// The sessions of one connection.
#[derive(Debug, Default)]
struct Carried {
    by_target: HashMap<Target, Arc<Session>>,
    /// The connection has ended: none may begin any more.
    left: bool,
}

#[derive(Debug, Default)]
struct Denies {
    total: u32,
    seen: HashMap<(String, &'static str), Repeated>,
}

/// One refusal and how often it came again.
#[derive(Clone, Debug)]
struct Repeated {
    sentence: String,
    first: Boot,
    again: u32,
}

/// What to do about a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Write it down.
    New,
    /// It is counted; the line will follow.
    Again,
}

/// Repeats of a refusal whose minute is over, or whose connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeats {
    pub target: String,
    pub code: &'static str,
    pub sentence: String,
    pub count: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StaffLink {
    pub fn new(
        who: Staff,
        connection: Connection,
        listener_port: u16,
        client: String,
        since: Timestamp,
    ) -> Arc<Self> {
        let (id, from) = (connection.id(), connection.peer());
        Arc::new(Self {
            id,
            who,
            from,
            listener_port,
            client,
            since,
            connection,
            sessions: Mutex::default(),
            making: Mutex::default(),
            denies: Mutex::default(),
        })
    }

    /// Says why and closes the connection, within 200 ms whatever has become of it.
    pub fn end(&self, reason: &str) {
        self.connection.disconnect(Reason::ByApplication, reason);
    }

    /// Closes the socket without a word.
    pub fn kill(&self) {
        self.connection.kill();
    }

    /// Resolves when the connection is over.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Whether the connection is over or about to be.
    pub fn is_gone(&self) -> bool {
        self.connection.is_ending()
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

    /// Counts a refusal.
    pub fn deny(&self, target: &str, code: &'static str, sentence: &str, now: Now) -> Noted {
        let mut denies = lock(&self.denies);
        denies.total = denies.total.saturating_add(1);
        let key = (target.to_owned(), code);
        if let Some(seen) = denies.seen.get_mut(&key)
            && now.boot.since(seen.first) < REPEATS
        {
            seen.again = seen.again.saturating_add(1);
            return Noted::Again;
        }
        if denies.seen.len() < DISTINCT {
            let sentence = sentence.to_owned();
            denies.seen.insert(key, Repeated { sentence, first: now.boot, again: 0 });
        }
        Noted::New
    }

    pub fn denied_too_often(&self) -> bool {
        lock(&self.denies).total >= DENIES
    }

    /// Takes the repeats whose minute is over; all of them if the connection has ended.
    pub fn repeats(&self, now: Now, ended: bool) -> Vec<Repeats> {
        let mut denies = lock(&self.denies);
        let over = |seen: &Repeated| ended || now.boot.since(seen.first) >= REPEATS;
        let due = denies.seen.iter().filter(|(_, seen)| over(seen) && seen.again > 0);
        let repeats = due
            .map(|((target, code), seen)| Repeats {
                target: target.clone(),
                code,
                sentence: seen.sentence.clone(),
                count: seen.again,
            })
            .collect();
        denies.seen.retain(|_, seen| !over(seen));
        repeats
    }
}

/// The login users' connections to this replica.
#[derive(Debug, Default)]
pub struct StaffLinks {
    links: Mutex<HashMap<u64, Arc<StaffLink>>>,
}

impl StaffLinks {
    pub fn insert(&self, link: Arc<StaffLink>) {
        lock(&self.links).insert(link.id, link);
    }

    pub fn remove(&self, link: &StaffLink) {
        lock(&self.links).remove(&link.id);
    }

    pub fn all(&self) -> Vec<Arc<StaffLink>> {
        lock(&self.links).values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.links).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
