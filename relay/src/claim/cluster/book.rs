//! Which claims this relay knows of: what it watches, and what it makes itself. Nothing is decided by
//! it; it answers `why` and the view, and finds this relay's own claims that nobody holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::super::table::Limit;
use super::super::{Claimed, Holder};
use super::object::Entry;

#[derive(Debug, Default)]
pub struct Book {
    seen: BTreeMap<String, Entry>,
    /// Why the API server is not heard.
    lost: Option<String>,
    /// Attempts that are under way.
    pending: HashSet<String>,
    /// The claims that this process holds: name and attempt.
    held: HashMap<String, String>,
    /// Claims that are being freed, by uid.
    freeing: HashSet<String>,
    /// One-time claims that may have been made.
    uncertain: HashSet<String>,
}

impl Book {
    pub fn begin(&mut self, attempt: &str) {
        self.pending.insert(attempt.to_owned());
    }

    /// The attempt is over: what it made is held by now, or nobody's.
    pub fn finish(&mut self, attempt: &str) {
        self.pending.remove(attempt);
    }

    pub fn hold(&mut self, name: &str, entry: Entry) {
        self.held.insert(name.to_owned(), entry.attempt.clone());
        self.uncertain.remove(name);
        self.seen.insert(name.to_owned(), entry);
    }

    pub fn let_go(&mut self, name: &str) {
        self.held.remove(name);
    }

    pub fn doubt(&mut self, name: &str) {
        self.uncertain.insert(name.to_owned());
    }

    pub fn is_uncertain(&self, name: &str) -> bool {
        self.uncertain.contains(name)
    }

    pub fn put(&mut self, name: &str, entry: Entry) {
        self.uncertain.remove(name);
        self.seen.insert(name.to_owned(), entry);
    }

    pub fn gone(&mut self, name: &str, uid: &str) {
        if self.seen.get(name).is_some_and(|entry| entry.uid == uid) {
            self.seen.remove(name);
        }
    }

    /// All that is there, but for what this process made meanwhile.
    pub fn only(&mut self, names: &BTreeSet<(String, String)>) {
        let names: HashSet<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        self.seen.retain(|name, _| names.contains(name.as_str()) || self.held.contains_key(name));
        self.lost = None;
    }

    pub fn heard(&mut self) {
        self.lost = None;
    }

    /// `true`: until now it was heard.
    pub fn lose(&mut self, why: String) -> bool {
        self.lost.replace(why).is_none()
    }

    /// Whether this is a claim of this pod that nobody holds and somebody should free; to be told
    /// once for each, until [`Book::freed`].
    pub fn abandoned(&mut self, name: &str, entry: &Entry, pod: &str) -> bool {
        entry.reusable
            && entry.pod == pod
            && self.held.get(name) != Some(&entry.attempt)
            && !self.pending.contains(&entry.attempt)
            && self.freeing.insert(entry.uid.clone())
    }

    /// Marks a claim as being freed; `false`: somebody does already.
    pub fn free(&mut self, uid: &str) -> bool {
        self.freeing.insert(uid.to_owned())
    }

    pub fn freed(&mut self, name: &str, uid: &str) {
        self.freeing.remove(uid);
        self.gone(name, uid);
    }

    pub fn holder(&self, name: &str) -> Option<Holder> {
        self.seen.get(name).map(|entry| entry.holder.clone())
    }

    /// Whether a one-time claim is known.
    pub fn is_used(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// The claims on the places whose names begin with `places`.
    fn places(&self, places: &str) -> impl Iterator<Item = &Entry> {
        // `.` follows `-`.
        self.seen.range(format!("{places}-")..format!("{places}.")).map(|(_, entry)| entry)
    }

    pub fn look(&self, name: &str, limit: Limit) -> Option<Claimed> {
        match limit {
            Limit::Once if self.is_used(name) || self.is_uncertain(name) => {
                return Some(Claimed::Used { holder: self.holder(name) });
            }
            Limit::Once => {}
            Limit::Places(most) => {
                let holders: Vec<_> = self.places(name).map(|e| e.holder.clone()).collect();
                if u32::try_from(holders.len()).unwrap_or(u32::MAX) >= most {
                    return Some(Claimed::Full { holders });
                }
            }
        }
        self.lost.clone().map(|why| Claimed::Away { why })
    }
}
