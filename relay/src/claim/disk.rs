//! Claims as files under `STATE/claims`, made by one thread. The lock on the state directory proves that
//! no other relay makes any. The places of maxSessions are given back when their session ends, and all
//! at the start, since no session outlives its process.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::Timestamp;
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Login, ObjectKey};
use tokio::sync::oneshot;

use super::files::Files;
use super::table::{self, Asker, Outcome, Table, Taken, Token, Wanted};
use super::{Claim, Claimed, Claims};
use crate::lock::lock;
use crate::record::SessionId;
use crate::state::{StateDir, StateError};

/// A claim that was made; given back when dropped.
#[derive(Debug)]
pub struct Kept {
    token: Option<Token>,
    queue: Sender<Work>,
}

impl Kept {
    pub fn is_once(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.index.is_none())
    }

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

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

#[derive(Debug)]
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
        let table = lock(&self.table);
        table.look(&wanted).map(told)
    }

    async fn retain(&self, exists: &(dyn Fn(&ObjectKey) -> bool + Sync), now: Timestamp) {
        let stale = {
            let table = lock(&self.table);
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
                act(&mut lock(&table));
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
        Outcome::Made(token) => Claimed::Taken(Claim::from(Kept { token: Some(token), queue })),
        Outcome::Taken(taken) => told(taken),
        Outcome::Failed(error) => Claimed::Unavailable { why: error.to_string() },
        Outcome::Uncertain(error) => Claimed::Uncertain { why: error.to_string() },
    }
}
