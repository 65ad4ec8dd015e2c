//! Claims: what makes a one-time window admit one session, and a limited one no more than it says
//! (invariant 6).
//!
//! Embedded, claims are files under `STATE/claims`, made by one thread. The lock on the state
//! directory proves that no other relay makes any. A one-time claim is never given back: it stays
//! while a window of its name exists, and until a day after its end. The places of maxSessions are
//! given back when their session ends, and all at the start, since no session outlives its process.
//! When in doubt, the answer is no.

mod files;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use jiff::Timestamp;
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Login, ObjectKey};
use tokio::sync::oneshot;

use crate::record::SessionId;
use crate::state::{StateDir, StateError};
use files::Files;
use table::{Asker, Outcome, Table, Taken, Token, Wanted};

/// Whether a session may have a window.
#[derive(Debug)]
pub enum Claimed {
    /// The window limits nothing.
    Free,
    /// Ours; to be kept for as long as the session lives.
    Taken(Claim),
    /// As many sessions as maxSessions allows are live; those that hold it.
    Full { holders: Vec<Holder> },
    /// A one-time window that has had its session, or may have had it.
    Used { holder: Option<Holder> },
    /// No claim was made, and the reason is the relay's own; another try may do better.
    Unavailable { why: String },
    /// A one-time claim may have been made or not: from now on the window counts as used.
    Uncertain { why: String },
}

/// Who has a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// `ss-<uuidv7>`
    pub session: String,
    /// The login as typed; empty where the claim cannot be read.
    pub user: String,
    pub since: Timestamp,
}

/// A claim that was made. Dropping it gives it back where it can be used again; one-time claims stay.
#[derive(Debug)]
pub struct Claim {
    token: Option<Token>,
    queue: Sender<Work>,
}

impl Claim {
    /// Whether the claim uses its window up.
    pub fn is_once(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.index.is_none())
    }

    /// Gives the claim back, and returns when the next one can have it.
    pub async fn release(mut self) {
        let (done, released) = oneshot::channel();
        self.give_back(Some(done));
        // An error: the thread has gone, and with it all claims that can be given back.
        let _ = released.await;
    }

    fn give_back(&mut self, done: Option<oneshot::Sender<()>>) {
        if let Some(token) = self.token.take() {
            let _ = self.queue.send(Work::Release { token, done });
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

/// Where claims are made. Embedded: [`FileClaims`]; in a cluster, SupportClaim objects.
pub trait Claims: Send + Sync {
    /// Claims `candidate`'s window for `session`. Dropping the future gives up: what it may have
    /// taken meanwhile is given back as a dropped [`Claim`] is.
    fn claim(
        &self,
        candidate: &Candidate,
        session: SessionId,
        by: &Login,
        now: Timestamp,
    ) -> impl Future<Output = Claimed> + Send;

    /// Whether a claim could be had now, without taking it: `Free`, `Full` or `Used`, and `None` where
    /// one would be tried. Quick: it touches no disk.
    fn look(&self, candidate: &Candidate) -> Option<Claimed>;

    /// Gives a claim back and returns when the next one can have it.
    fn release(&self, claim: Claim) -> impl Future<Output = ()> + Send {
        claim.release()
    }

    /// Forgets one-time claims whose window no longer `exists` and closed more than a day before
    /// `now`. `exists` must speak of a policy that is complete.
    fn retain(
        &self,
        exists: &(dyn Fn(&ObjectKey) -> bool + Sync),
        now: Timestamp,
    ) -> impl Future<Output = ()> + Send;
}

enum Work {
    Claim {
        wanted: Wanted,
        session: SessionId,
        user: String,
        at: Timestamp,
        queue: Sender<Work>,
        reply: oneshot::Sender<Claimed>,
    },
    Release {
        token: Token,
        done: Option<oneshot::Sender<()>>,
    },
    Forget {
        stale: Vec<(String, String)>,
        done: oneshot::Sender<()>,
    },
}

/// Claims as files under `STATE/claims`. Clones share them.
#[derive(Clone, Debug)]
pub struct FileClaims {
    queue: Sender<Work>,
    table: Arc<Mutex<Table>>,
    /// No other relay makes claims while this is held.
    _state: StateDir,
}

impl FileClaims {
    /// Reads the one-time claims and frees all others. `relay` is the replica's name.
    pub fn open(state: &StateDir, relay: &str) -> Result<Self, StateError> {
        let directory = state.subdirectory("claims")?;
        let opened = |source| StateError::Io { what: "open", path: directory.clone(), source };
        let mut files = Files::new(directory.clone());
        let table = Arc::new(Mutex::new(table::load(&mut files).map_err(opened)?));
        let (queue, work) = mpsc::channel();
        let worker = Worker { files, table: Arc::clone(&table), relay: relay.to_owned() };
        thread::Builder::new()
            .name("claims".to_owned())
            .spawn(move || worker.run(&work))
            .map_err(opened)?;
        Ok(Self { queue, table, _state: state.clone() })
    }
}

impl Claims for FileClaims {
    async fn claim(
        &self,
        candidate: &Candidate,
        session: SessionId,
        by: &Login,
        now: Timestamp,
    ) -> Claimed {
        let Some(wanted) = Wanted::of(candidate) else { return Claimed::Free };
        let (reply, answer) = oneshot::channel();
        let (user, queue) = (by.to_string(), self.queue.clone());
        let work = Work::Claim { wanted, session, user, at: now, queue, reply };
        let gone =
            || Claimed::Unavailable { why: "the thread that makes claims has ended".to_owned() };
        if self.queue.send(work).is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    fn look(&self, candidate: &Candidate) -> Option<Claimed> {
        let Some(wanted) = Wanted::of(candidate) else { return Some(Claimed::Free) };
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.look(&wanted).map(told)
    }

    async fn retain(&self, exists: &(dyn Fn(&ObjectKey) -> bool + Sync), now: Timestamp) {
        let stale = {
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.stale(&exists, now)
        };
        let (done, forgotten) = oneshot::channel();
        if !stale.is_empty() && self.queue.send(Work::Forget { stale, done }).is_ok() {
            // An error: the thread has gone, and nothing is forgotten.
            let _ = forgotten.await;
        }
    }
}

fn told(taken: Taken) -> Claimed {
    match taken {
        Taken::Used(holder) => Claimed::Used { holder },
        Taken::Full(holders) => Claimed::Full { holders },
    }
}

/// The one thread that makes and gives back claims.
struct Worker {
    files: Files,
    table: Arc<Mutex<Table>>,
    relay: String,
}

impl Worker {
    /// Until nobody can ask any more.
    fn run(mut self, queue: &Receiver<Work>) {
        for work in queue {
            let table = Arc::clone(&self.table);
            let with = move |act: &mut dyn FnMut(&mut Table)| {
                act(&mut table.lock().unwrap_or_else(PoisonError::into_inner));
            };
            match work {
                Work::Claim { wanted, session, user, at, queue, reply } => {
                    // Whoever asked may have given up: then there is nothing to make.
                    if reply.is_closed() {
                        continue;
                    }
                    let session = session.to_string();
                    let asker = Asker { session: &session, user: &user, relay: &self.relay, at };
                    let outcome = table::attempt(&mut self.files, &with, &wanted, &asker);
                    // A claim that nobody waits for any more is dropped here, and so given back.
                    let _ = reply.send(claimed(outcome, queue));
                }
                Work::Release { token, done } => {
                    table::release(&mut self.files, &with, &token);
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
                Work::Forget { stale, done } => {
                    table::forget(&mut self.files, &with, &stale);
                    let _ = done.send(());
                }
            }
        }
    }
}

fn claimed(outcome: Outcome, queue: Sender<Work>) -> Claimed {
    match outcome {
        Outcome::Made(token) => Claimed::Taken(Claim { token: Some(token), queue }),
        Outcome::Taken(taken) => told(taken),
        Outcome::Failed(error) => Claimed::Unavailable { why: error.to_string() },
        Outcome::Uncertain(error) => Claimed::Uncertain { why: error.to_string() },
    }
}

/// `alice and bob.acme`: the users who hold a window, each once, the longest first.
pub fn users(holders: &[Holder]) -> String {
    let mut sorted: Vec<_> = holders.iter().collect();
    sorted.sort_by_key(|holder| holder.since);
    let mut users: Vec<&str> = Vec::new();
    for holder in sorted {
        if !users.contains(&holder.user.as_str()) {
            users.push(&holder.user);
        }
    }
    let mut text = String::new();
    for (index, user) in users.iter().enumerate() {
        let joint = match index {
            0 => "",
            _ if index + 1 == users.len() => " and ",
            _ => ", ",
        };
        let _ = write!(text, "{joint}{user}");
    }
    text
}
