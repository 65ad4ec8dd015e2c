//! What is due when: one instant a task. Pure.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// Tasks, each with the instant at which it is due.
#[derive(Debug)]
pub struct Agenda<T> {
    order: BTreeSet<(Timestamp, T)>,
    of: HashMap<T, Timestamp>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), of: HashMap::new() }
    }
}

impl<T: Clone + Ord + Hash> Agenda<T> {
    /// `task` is due at `at`, and not at the instant it was due before.
    pub fn set(&mut self, task: T, at: Timestamp) {
        self.remove(&task);
        self.of.insert(task.clone(), at);
        self.order.insert((at, task));
    }

    pub fn remove(&mut self, task: &T) {
        if let Some(at) = self.of.remove(task) {
            self.order.remove(&(at, task.clone()));
        }
    }

    /// When the first task is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// The tasks that are due at `now`, which leave the agenda.
    pub fn due(&mut self, now: Timestamp) -> Vec<T> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.order.first()
            && *at <= now
            && let Some((_, task)) = self.order.pop_first()
        {
            self.of.remove(&task);
            due.push(task);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_is_due_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut agenda = Agenda::default();
        agenda.set("a", at(30));
        agenda.set("b", at(20));
        agenda.set("a", at(10));
        agenda.set("c", at(40));
        agenda.remove(&"c");
        assert_eq!(agenda.next(), Some(at(10)));
        assert_eq!(agenda.due(at(9)), Vec::<&str>::new());
        assert_eq!(agenda.due(at(20)), ["a", "b"]);
        assert_eq!(agenda.next(), None);
    }
}
