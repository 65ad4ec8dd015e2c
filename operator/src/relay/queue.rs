//! Which Relays are to be reconciled, and when. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_process::clock::Boot;

use super::watch::{Stores, Touched, Which};
use crate::backoff::Backoff;

/// A Relay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// How much of a Relay may be other than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The status alone: its pods, its addresses, its counts.
    Status,
    /// Its objects, and the status.
    Objects,
}

/// What is due, each Relay once.
#[derive(Default)]
pub struct Queue {
    due: BTreeMap<Key, (Boot, Depth)>,
    /// The generation that was last reconciled in full.
    reconciled: BTreeMap<Key, Option<i64>>,
    backoff: Backoff<Key>,
    access: Option<Boot>,
    access_failures: Backoff<()>,
}

impl Queue {
    /// What `touched` names is due at `at`, or earlier if it was already.
    pub fn touch(&mut self, touched: &Touched, stores: &Stores, at: Boot) {
        if touched.access {
            self.access = Some(self.access.map_or(at, |due| due.min(at)));
        }
        match &touched.which {
            Which::None => {}
            Which::One(key) => {
                let mut depth = touched.depth;
                // The controller's own status writes come back as events too.
                if let Some(generation) = touched.generation
                    && self.reconciled.get(key) == Some(&Some(generation))
                {
                    depth = Depth::Status;
                }
                self.add(key.clone(), at, depth);
            }
            Which::Namespace(namespace) => {
                for key in stores.keys().filter(|key| key.namespace == *namespace) {
                    self.add(key, at, touched.depth);
                }
            }
            Which::All => {
                for key in stores.keys() {
                    self.add(key, at, touched.depth);
                }
            }
        }
    }

    fn add(&mut self, key: Key, at: Boot, depth: Depth) {
        let due = self.due.entry(key).or_insert((at, depth));
        *due = (due.0.min(at), due.1.max(depth));
    }

    /// When the first is due.
    pub fn next_due(&self) -> Option<Boot> {
        self.due.values().map(|(at, _)| *at).chain(self.access).min()
    }

    /// Nothing is due before `at`.
    pub fn put_off(&mut self, at: Boot) {
        for due in self.due.values_mut().map(|(due, _)| due).chain(self.access.as_mut()) {
            *due = (*due).max(at);
        }
    }

    /// Takes the one that is due longest.
    pub fn take(&mut self, now: Boot) -> Option<(Key, Depth)> {
        let due = self.due.iter().filter(|(_, (at, _))| *at <= now);
        let key = due.min_by_key(|(_, (at, _))| *at)?.0.clone();
        let (_, depth) = self.due.remove(&key)?;
        Some((key, depth))
    }

    /// Whether the fleets' rights are to be looked at; they are waited for by nothing else.
    pub fn take_access(&mut self) -> bool {
        let now = tidegate_process::clock::boot();
        let due = self.access.is_some_and(|at| at <= now);
        if due {
            self.access = None;
        }
        due
    }

    /// They could not be bound: they are due again after the answer's length.
    pub fn access_failed(&mut self) -> Duration {
        let wait = self.access_failures.failed(());
        self.access = Some(tidegate_process::clock::boot().plus(wait));
        wait
    }

    /// They are bound.
    pub fn access_done(&mut self) {
        self.access_failures.forget(&());
    }

    /// It went well, at `generation`.
    pub fn done(&mut self, key: &Key, generation: Option<i64>) {
        self.backoff.forget(key);
        self.reconciled.insert(key.clone(), generation);
    }

    /// It did not: it is due again later, in full.
    pub fn failed(&mut self, key: Key) {
        self.reconciled.remove(&key);
        let at = tidegate_process::clock::boot().plus(self.backoff.failed(key.clone()));
        self.add(key, at, Depth::Objects);
    }

    /// It is gone.
    pub fn forget(&mut self, key: &Key) {
        self.backoff.forget(key);
        self.reconciled.remove(key);
    }
}
