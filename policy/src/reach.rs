//! Who can reach a terminal, when: the answer for people who review policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{Label, Login, LoginUser, ObjectKey, Service, Terminal, Window};
use crate::schedule::{Occurrence, Schedule};
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
/// need an agent unless `agent`, nor users without a key. Source ranges are not looked at.
pub fn who_can_reach(
    snapshot: &Snapshot,
    terminal: &Label,
    agent: bool,
    from: Timestamp,
    to: Timestamp,
) -> Option<Reach> {
    let terminal = snapshot.terminal(terminal)?;
    let mut reach = Reach::default();
    for Way { window, users, services } in ways(snapshot, terminal, agent) {
        let occurrences = overlapping(&window.schedule, from, to);
        let next = opening_after(&window.schedule, from, to);
        for user in users {
            let ends = user.valid_until.unwrap_or(Timestamp::MAX);
            let hers: Vec<_> = occurrences.iter().filter_map(|o| cut(*o, ends, from)).collect();
            let next = next.filter(|opens| *opens < ends);
            for service in &services {
                reach.access.extend(hers.iter().map(|occurrence| Access {
                    user: user.login.clone(),
                    service: service.name.clone(),
                    window: window.meta.key.clone(),
                    opens_at: occurrence.opens,
                    closes_at: occurrence.closes,
                }));
                reach.next.extend(next.map(|next_opening| Next {
                    user: user.login.clone(),
                    service: service.name.clone(),
                    window: window.meta.key.clone(),
                    next_opening,
                }));
            }
        }
    }
    reach.access.sort();
    reach.next.sort();
    Some(reach)
}

/// One window that admits some users to some services of a terminal when it is open.
#[derive(PartialEq)]
struct Way<'a> {
    window: &'a Arc<Window>,
    users: Vec<&'a Arc<LoginUser>>,
    services: Vec<&'a Service>,
}

fn ways_to<'a>(snapshot: &'a Snapshot, terminal: &Label, agent: bool) -> Vec<Way<'a>> {
    snapshot.terminal(terminal).map(|terminal| ways(snapshot, terminal, agent)).unwrap_or_default()
}

fn ways<'a>(snapshot: &'a Snapshot, terminal: &'a Terminal, agent: bool) -> Vec<Way<'a>> {
    if terminal.suspended {
        return Vec::new();
    }
    let admits = |window: &&Arc<Window>| !window.suspended && (agent || window.wants().is_none());
    let enters = |user: &&Arc<LoginUser>| {
        let hers = |owner: &Arc<LoginUser>| owner.meta.key == user.meta.key;
        let mut keys = user.public_keys.iter();
        !user.suspended
            && snapshot.user(&user.login).is_some_and(hers)
            && keys.any(|key| snapshot.user_by_key(key).is_some_and(hers))
    };
    let windows = snapshot.windows_of_terminal(terminal).into_iter().filter(admits);
    let way = |window| Way {
        window,
        users: snapshot.users_of_window(window).into_iter().filter(enters).collect(),
        services: terminal.services.iter().filter(|s| window.services.contains(&s.name)).collect(),
    };
    windows.map(way).collect()
}

/// The occurrences that overlap `[from, to)`, or that are open at `from` where it equals `to`.
fn overlapping(schedule: &Schedule, from: Timestamp, to: Timestamp) -> Vec<Occurrence> {
    let near = |o: &Occurrence| o.opens < to || o.opens == from;
    schedule.occurrences_from(from).take_while(near).collect()
}

/// The first opening that [`overlapping`] does not have any more.
fn opening_after(schedule: &Schedule, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
    schedule.openings_from(to).map(|o| o.opens).find(|opens| from < to || *opens > from)
}

/// The part of an occurrence before `ends`, if that reaches beyond `from`.
fn cut(occurrence: Occurrence, ends: Timestamp, from: Timestamp) -> Option<Occurrence> {
    let closes = occurrence.closes.min(ends);
    let lasts = occurrence.opens < closes && from < closes;
    lasts.then_some(Occurrence { closes, ..occurrence })
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

/// Terminals that both have alike, with the same windows and users, cost no look at a schedule.
pub fn difference(
    old: &Snapshot,
    new: &Snapshot,
    agent: bool,
    from: Timestamp,
    to: Timestamp,
) -> Difference {
    let names: BTreeSet<&Label> =
        old.terminals().chain(new.terminals()).map(|terminal| &terminal.meta.key.name).collect();
    let mut difference = Difference::default();
    for name in names {
        let (before, after) = (ways_to(old, name, agent), ways_to(new, name, agent));
        if before == after {
            continue;
        }
        let (before, after) = (access(&before, from, to), access(&after, from, to));
        gains(&before, &after, name, &mut difference.gained);
        gains(&after, &before, name, &mut difference.lost);
    }
    difference.gained.sort();
    difference.lost.sort();
    difference
}

/// When each user may reach each service: intervals in order, those that overlap or touch merged.
type Intervals = BTreeMap<(Login, Label), Vec<(Timestamp, Timestamp)>>;

fn access(ways: &[Way<'_>], from: Timestamp, to: Timestamp) -> Intervals {
    let mut intervals = Intervals::new();
    for Way { window, users, services } in ways {
        let occurrences = overlapping(&window.schedule, from, to);
        for user in users {
            let ends = user.valid_until.unwrap_or(Timestamp::MAX);
            let hers = occurrences.iter().filter_map(|o| cut(*o, ends, from));
            let hers = hers.map(|o| (o.opens.max(from), o.closes.min(to)));
            let hers: Vec<_> = hers.filter(|(from, to)| from < to).collect();
            for service in services {
                let key = (user.login.clone(), service.name.clone());
                intervals.entry(key).or_default().extend(&hers);
            }
        }
    }
    for list in intervals.values_mut() {
        list.sort_unstable();
        let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (from, to) in list.drain(..) {
            match merged.last_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        *list = merged;
    }
    intervals
}

/// What `after` has and `before` has not.
fn gains(before: &Intervals, after: &Intervals, terminal: &Label, into: &mut Vec<Change>) {
    for ((user, service), intervals) in after {
        let had = before.get(&(user.clone(), service.clone())).map_or(&[][..], |had| had);
        let mut change = |from: Timestamp, to: Timestamp| {
            if from < to {
                let (user, service) = (user.clone(), service.clone());
                into.push(Change { user, terminal: terminal.clone(), service, from, to });
            }
        };
        for (from, to) in intervals {
            let mut at = *from;
            for (begun, ended) in had.iter().filter(|(begun, ended)| begun < to && from < ended) {
                change(at, *begun);
                at = at.max(*ended);
            }
            change(at, *to);
        }
    }
}
