//! One attempt to make a claim. Being created is what makes it: the API server creates a name once.
//!
//! | what is heard | what it means |
//! |---|---|
//! | a read fails before anything was created | no claim was made |
//! | created | ours |
//! | refused for good (403, 422, …) | no claim was made |
//! | the name exists | read back: ours only if it bears this very attempt |
//! | anything else, or nothing | it may have been made: read back and created again, by the same name and attempt, until the answer is one of the above or the time is over |
//!
//! What is still open then counts as made: a one-time window is used, a place is freed when it shows.

use std::collections::BTreeSet;

use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use tidegate_crds::support_claim::{self, CLAIM};

use super::super::table::{Asker, Wanted};
use super::super::{Claimed, Holder};
use super::object::{Entry, claim_name, draft, entry};
use super::{Kept, Shared};
use crate::clock::{self, Boot};
use crate::kube::answer::{Failure, ask, find};
use crate::kube::pause::Pause;
use crate::lock::lock;

/// Why nothing is created when time is short.
const SLOW: &str = "the API server is too slow to make a claim in time";

/// An attempt under way: what it makes is nobody else's to free.
pub struct Attempt {
    pub shared: std::sync::Arc<Shared>,
    /// `<process>/<number>`, which no other attempt bears.
    pub name: String,
    pub until: Boot,
}

impl Attempt {
    pub fn new(shared: &std::sync::Arc<Shared>) -> Self {
        let name = shared.next_attempt();
        lock(&shared.book).begin(&name);
        let until = clock::boot().plus(shared.patience.budget);
        Self { shared: std::sync::Arc::clone(shared), name, until }
    }

    fn left(&self) -> std::time::Duration {
        self.until.since(clock::boot())
    }

    /// For one request: never longer than what is left of the whole.
    fn patience(&self) -> std::time::Duration {
        self.shared.patience.request.min(self.left())
    }

    /// With less time than a request may take, the answer to a create might not be heard.
    fn hears_one_more(&self) -> bool {
        self.left() >= self.shared.patience.request
    }

    fn ours(&self, entry: &Entry, asker: &Asker<'_>) -> bool {
        entry.attempt == self.name
            && entry.holder.session == asker.session
            && entry.pod == self.shared.pod
    }

    async fn create(&self, draft: &DynamicObject) -> Result<Entry, Failure> {
        let params = PostParams::default();
        let created = ask(self.patience(), self.shared.api.create(&params, draft)).await?;
        Ok(entry(&created))
    }

    fn hold(&self, name: &str, entry: Entry) -> Claimed {
        let kept = Kept::new(&self.shared, name, &entry);
        lock(&self.shared.book).hold(name, entry);
        Claimed::Taken(kept.into())
    }

    /// Claims a one-time window.
    pub async fn once(&self, wanted: &Wanted, asker: &Asker<'_>) -> Claimed {
        let name = claim_name(wanted);
        let used = |holder| Claimed::Used { holder };
        if lock(&self.shared.book).is_uncertain(&name) {
            return used(None);
        }
        // An API server that is away, or cannot answer, is found out before anything can be burnt.
        match find(self.patience(), self.shared.api.get(&name)).await {
            Ok(None) => {}
            Ok(Some(there)) => {
                let there = entry(&there);
                let holder = known(&there);
                lock(&self.shared.book).put(&name, there);
                return used(holder);
            }
            Err(failure) => {
                let book = lock(&self.shared.book);
                return if book.is_used(&name) {
                    used(book.holder(&name))
                } else {
                    Claimed::Away { why: failure.to_string() }
                };
            }
        }
        if !self.hears_one_more() {
            return Claimed::Away { why: SLOW.to_owned() };
        }
        match self.create_once(&name, wanted, asker).await {
            Once::Ours(entry) => self.hold(&name, entry),
            Once::Theirs(entry) => {
                let holder = known(&entry);
                lock(&self.shared.book).put(&name, entry);
                used(holder)
            }
            Once::Not(why) => Claimed::Away { why },
            Once::Unknown(why) => {
                lock(&self.shared.book).doubt(&name);
                Claimed::Uncertain { why }
            }
        }
    }

    /// Creates the claim, again and again until it is known whose it is.
    pub async fn create_once(&self, name: &str, wanted: &Wanted, asker: &Asker<'_>) -> Once {
        let draft = match draft(wanted, None, asker, &self.name) {
            Ok(draft) => draft,
            Err(error) => return Once::Not(error.to_string()),
        };
        let mut pause = Pause::new(self.shared.patience.again, self.shared.patience.request);
        let (mut doubt, mut why) = (false, String::new());
        while !self.left().is_zero() {
            match self.create(&draft).await {
                Ok(entry) if self.ours(&entry, asker) => return Once::Ours(entry),
                Ok(_) => (doubt, why) = (true, "another claim came back".to_owned()),
                // Nothing was made by this request; an earlier one may still have made it.
                Err(failure @ (Failure::Refused { .. } | Failure::NotFound(_))) if !doubt => {
                    return Once::Not(failure.to_string());
                }
                Err(failure) => {
                    doubt |= failure.is_open();
                    why = failure.to_string();
                }
            }
            match find(self.patience(), self.shared.api.get(name)).await {
                Ok(Some(there)) => {
                    let there = entry(&there);
                    return if self.ours(&there, asker) {
                        Once::Ours(there)
                    } else {
                        Once::Theirs(there)
                    };
                }
                // It may come yet; created again it is the same claim.
                Ok(None) => {}
                Err(failure) => why = failure.to_string(),
            }
            tokio::time::sleep(pause.next().min(self.left())).await;
        }
        if doubt { Once::Unknown(why) } else { Once::Not(why) }
    }

    /// Claims one of the occurrence's places.
    pub async fn place(&self, wanted: &Wanted, most: u32, asker: &Asker<'_>) -> Claimed {
        let places = claim_name(wanted);
        let mut tried = Tried { attempt: self, names: BTreeSet::new() };
        // Places that are there under their names without being listed.
        let mut unlisted = BTreeSet::new();
        let mut conflict = None;
        let mut pause = Pause::new(self.shared.patience.again, self.shared.patience.request);
        let mut why = SLOW.to_owned();
        let mut params = ListParams::default().labels(&format!("{CLAIM}={places}"));
        params.limit = None;
        while !self.left().is_zero() {
            let listed = ask(self.patience(), self.shared.api.list(&params)).await;
            let listed = match listed {
                Ok(listed) => listed,
                Err(failure) if tried.names.is_empty() => {
                    return Claimed::Away { why: failure.to_string() };
                }
                Err(failure) => {
                    why = failure.to_string();
                    tokio::time::sleep(pause.next().min(self.left())).await;
                    continue;
                }
            };
            let entries: Vec<_> = listed.items.iter().map(entry).collect();
            let named = |index| support_claim::place_name(&places, index);
            if let Some(own) = entries.iter().find(|entry| self.ours(entry, asker))
                && let Some(index) = own.index
            {
                let name = named(index);
                tried.names.remove(&name);
                return self.hold(&name, own.clone());
            }
            let mut held: BTreeSet<u32> = entries.iter().filter_map(|entry| entry.index).collect();
            if let Some(index) = conflict.take().filter(|index| !held.contains(index)) {
                unlisted.insert(index);
            }
            held.extend(&unlisted);
            let Some(index) = free(&held, most) else {
                return Claimed::Full { holders: entries.into_iter().map(|e| e.holder).collect() };
            };
            // What an earlier request made may still show; nothing more is begun.
            if !self.hears_one_more() {
                tokio::time::sleep(pause.next().min(self.left())).await;
                continue;
            }
            let draft = match draft(wanted, Some(index), asker, &self.name) {
                Ok(draft) => draft,
                Err(error) => return Claimed::Unavailable { why: error.to_string() },
            };
            match self.create(&draft).await {
                Ok(entry) if self.ours(&entry, asker) => {
                    let name = named(index);
                    // An earlier request for it may have had no answer.
                    tried.names.remove(&name);
                    return self.hold(&name, entry);
                }
                Ok(_) => {}
                Err(Failure::Conflict(_)) => {
                    conflict = Some(index);
                    continue;
                }
                Err(failure @ (Failure::Refused { .. } | Failure::NotFound(_))) => {
                    return Claimed::Away { why: failure.to_string() };
                }
                Err(failure) => {
                    tried.names.insert(named(index));
                    why = failure.to_string();
                }
            }
            tokio::time::sleep(pause.next().min(self.left())).await;
        }
        Claimed::Away { why }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        lock(&self.shared.book).finish(&self.name);
    }
}

/// What became of a one-time claim.
pub enum Once {
    Ours(Entry),
    Theirs(Entry),
    /// It was not made.
    Not(String),
    Unknown(String),
}

/// Claims that this attempt may have made and does not hold: freed when it is over.
struct Tried<'a> {
    attempt: &'a Attempt,
    names: BTreeSet<String>,
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.names) {
            self.attempt.shared.free_attempt(name, self.attempt.name.clone());
        }
    }
}

/// A place that nobody holds, any of them so that many at once seldom meet; the lowest while more
/// places are held than there are now, since then only one more at a time may be tried.
fn free(held: &BTreeSet<u32>, most: u32) -> Option<u32> {
    if u32::try_from(held.len()).unwrap_or(u32::MAX) >= most {
        return None;
    }
    let free: Vec<u32> = (0..most).filter(|index| !held.contains(index)).collect();
    let beyond = held.last().is_some_and(|last| *last >= most);
    let pick = if beyond { 0 } else { rand::random_range(0..free.len().max(1)) };
    free.get(pick).copied()
}

/// `None` where the object does not say who holds it.
fn known(entry: &Entry) -> Option<Holder> {
    Some(entry.holder.clone()).filter(|holder| !holder.user.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::object;
    use super::*;

    #[test]
    fn a_free_place_is_one_that_there_is() {
        let held = |places: &[u32]| places.iter().copied().collect::<BTreeSet<_>>();
        for _ in 0..50 {
            assert!(matches!(free(&held(&[0, 2]), 4), Some(1 | 3)));
            // The window had six places and has three now.
            assert_eq!(free(&held(&[1, 5]), 3), Some(0));
        }
        assert_eq!(free(&held(&[4, 5]), 2), None);
        assert_eq!(free(&held(&[]), 0), None);
        assert_eq!(object::index("sc-00ff-12"), Some(12));
        assert_eq!(object::index("sc-00ff"), None);
    }
}
