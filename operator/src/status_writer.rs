//! The queue of objects whose status may have to be written. Pure: it is told the time.
//!
//! It holds keys, each once, never what is to be written: that is worked out when its turn comes, so that
//! a hundred changes of one object are one write, and the queue is no longer than there are objects. An
//! object that is being written waits until that is over, one that failed until its wait is over.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tidegate_process::clock::Boot;

use crate::backoff::Backoff;

/// How many writes are on their way at once.
pub const PARALLEL: usize = 12;

/// Where one object stands. One that stands nowhere has no place.
#[derive(Debug, Default)]
struct Place {
    /// In the list of those that are next.
    ready: bool,
    /// Being written; `true` if it is to be looked at again after that.
    flying: Option<bool>,
    /// When it is to be looked at by itself.
    due: Option<Boot>,
    /// It failed: not before then, whatever happens to it.
    barred: Option<Boot>,
}

/// Which objects are to be looked at, and when.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<Arc<K>>,
    places: HashMap<Arc<K>, Place>,
    timers: BTreeSet<(Boot, Arc<K>)>,
    backoff: Backoff<Arc<K>>,
    flying: usize,
}

impl<K: Ord + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            places: HashMap::new(),
            timers: BTreeSet::new(),
            backoff: Backoff::default(),
            flying: 0,
        }
    }
}

impl<K: Ord + Hash> Queue<K> {
    /// Something about `key` may have changed.
    pub fn add(&mut self, key: &Arc<K>, now: Boot) {
        let place = self.places.entry(Arc::clone(key)).or_default();
        if let Some(again) = &mut place.flying {
            *again = true;
        } else if let Some(barred) = place.barred.filter(|barred| *barred > now) {
            self.set(key, barred);
        } else if !place.ready {
            place.ready = true;
            self.ready.push_back(Arc::clone(key));
        }
    }

    /// Looks at `key` at `due` in place of any later time that was set; an earlier one stays.
    pub fn at(&mut self, key: &Arc<K>, due: Boot) {
        let set = self.places.get(key).and_then(|place| place.due);
        if set.is_none_or(|set| due < set) {
            self.set(key, due);
        }
    }

    fn set(&mut self, key: &Arc<K>, due: Boot) {
        let place = self.places.entry(Arc::clone(key)).or_default();
        if let Some(old) = place.due.replace(due) {
            self.timers.remove(&(old, Arc::clone(key)));
        }
        self.timers.insert((due, Arc::clone(key)));
    }

    /// The next to be looked at. What was set for a time that has come comes after what is there already.
    pub fn next(&mut self, now: Boot) -> Option<Arc<K>> {
        while let Some((due, key)) = self.timers.pop_first() {
            if due > now {
                self.timers.insert((due, key));
                break;
            }
            if let Some(place) = self.places.get_mut(&key) {
                place.due = None;
            }
            self.add(&key, now);
        }
        let key = self.ready.pop_front()?;
        if let Some(place) = self.places.get_mut(&key) {
            place.ready = false;
        }
        self.tidy(&key);
        Some(key)
    }

    /// When the first that waits is due.
    pub fn due(&self) -> Option<Boot> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// `key` is being written.
    pub fn flies(&mut self, key: &Arc<K>) {
        let place = self.places.entry(Arc::clone(key)).or_default();
        if place.flying.replace(false).is_none() {
            self.flying += 1;
        }
    }

    /// It was written; it is looked at again if it changed meanwhile.
    pub fn landed(&mut self, key: &Arc<K>, now: Boot) {
        self.backoff.forget(key);
        self.end(key, None, now);
    }

    /// It was not written, and is looked at again after a wait that grows.
    pub fn failed(&mut self, key: &Arc<K>, now: Boot) -> Duration {
        let wait = self.backoff.failed(Arc::clone(key));
        let until = now.plus(wait);
        self.end(key, Some(until), now);
        self.at(key, until);
        wait
    }

    fn end(&mut self, key: &Arc<K>, barred: Option<Boot>, now: Boot) {
        let Some(place) = self.places.get_mut(key) else { return };
        let again = place.flying.take();
        place.barred = barred;
        if again.is_some() {
            self.flying -= 1;
        }
        if again == Some(true) {
            self.add(key, now);
        }
        self.tidy(key);
    }

    /// The object is gone.
    pub fn forget(&mut self, key: &Arc<K>) {
        let Some(place) = self.places.get_mut(key) else { return };
        place.barred = None;
        if let Some(due) = place.due.take() {
            self.timers.remove(&(due, Arc::clone(key)));
        }
        self.backoff.forget(key);
        self.tidy(key);
    }

    /// Whether some object is to be looked at now.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many are being written.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// Whether nothing is to be looked at now, or being written.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.flying == 0
    }

    fn tidy(&mut self, key: &Arc<K>) {
        let idle = |place: &Place| {
            !place.ready && place.flying.is_none() && place.due.is_none() && place.barred.is_none()
        };
        if self.places.get(key).is_some_and(idle) {
            self.places.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn an_object_is_there_once_and_never_written_twice_at_a_time() {
        let mut queue = Queue::default();
        let (a, b) = (Arc::new("a"), Arc::new("b"));
        for key in [&a, &b, &a] {
            queue.add(key, at(0));
        }
        assert_eq!(queue.next(at(0)), Some(Arc::clone(&a)));
        queue.flies(&a);
        queue.add(&a, at(0));
        assert_eq!(queue.next(at(0)), Some(Arc::clone(&b)));
        assert_eq!(queue.next(at(0)), None, "a is being written");
        queue.landed(&a, at(1));
        assert_eq!(queue.next(at(1)), Some(Arc::clone(&a)), "it changed meanwhile");
        assert!(queue.is_idle());
        assert!(queue.places.is_empty(), "nothing is kept of those that are done with");
    }

    #[test]
    fn what_failed_waits_also_when_it_changes() {
        let mut queue = Queue::default();
        let a = Arc::new("a");
        queue.flies(&a);
        queue.add(&a, at(10));
        let wait = queue.failed(&a, at(10));
        assert_eq!((queue.flying(), queue.next(at(10))), (0, None));
        queue.add(&a, at(10));
        assert_eq!(queue.next(at(10)), None);
        assert_eq!(queue.due(), Some(at(10).plus(wait)));
        assert_eq!(queue.next(at(12)), Some(Arc::clone(&a)));
        queue.flies(&a);
        assert!(queue.failed(&a, at(12)) > wait);
        queue.forget(&a);
        assert_eq!((queue.next(at(1000)), queue.due()), (None, None));
    }

    #[test]
    fn the_earlier_of_two_times_counts() {
        let mut queue = Queue::default();
        let a = Arc::new("a");
        queue.at(&a, at(50));
        queue.at(&a, at(20));
        queue.at(&a, at(30));
        assert_eq!((queue.due(), queue.next(at(19))), (Some(at(20)), None));
        assert_eq!(queue.next(at(20)), Some(a));
        assert_eq!((queue.due(), queue.next(at(100))), (None, None));
    }
}
