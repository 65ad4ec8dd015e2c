//! Who can reach a terminal, when: the answer for people who review policy.

use jiff::Timestamp;

use crate::model::{Label, Login, ObjectKey};
use crate::snapshot::Snapshot;

/// One interval in which one user may reach one service by one window.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Access {
    pub user: Login,
    pub service: Label,
    pub window: ObjectKey,
    pub opens_at: Timestamp,
    pub closes_at: Timestamp,
}

/// The next opening after the interval that was asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Next {
    pub user: Login,
    pub service: Label,
    pub window: ObjectKey,
    pub next_opening: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// Sorted; occurrences that overlap `[from, to)`, each by itself, cut by the user's validUntil.
    pub access: Vec<Access>,
    pub next: Vec<Next>,
}

/// Who may reach `terminal` in `[from, to)`; `from == to` asks for one instant. `None`: no such terminal.
/// Says what `decide` says: suspended users, terminals and windows give nothing, nor do windows that
/// need an agent unless `agent`.
pub fn who_can_reach(
    _snapshot: &Snapshot,
    _terminal: &Label,
    _agent: bool,
    _from: Timestamp,
    _to: Timestamp,
) -> Option<Reach> {
    unimplemented!()
}

/// One user's access to one service of one terminal, with the merged intervals.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change {
    pub user: Login,
    pub terminal: Label,
    pub service: Label,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// What `new` gives beyond `old`, and what it takes, in `[from, to)`. Sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    pub gained: Vec<Change>,
    pub lost: Vec<Change>,
}

pub fn difference(
    _old: &Snapshot,
    _new: &Snapshot,
    _agent: bool,
    _from: Timestamp,
    _to: Timestamp,
) -> Difference {
    unimplemented!()
}
