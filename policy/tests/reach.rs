//! `who_can_reach` and `difference` against `decide` at every instant where something changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may"
)]

mod common;

use std::collections::BTreeSet;

use common::policy::*;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_draw::cases;
use tidegate_policy::decide::{Decision, Request, decide};
use tidegate_policy::model::*;
use tidegate_policy::reach::{Access, Change as Changed, difference, who_can_reach};
use tidegate_policy::schedule::Schedule;
use tidegate_policy::snapshot::Snapshot;

/// Every (login, service, window) that `decide` admits to a terminal now.
fn admitted(
    snapshot: &Snapshot,
    terminal: &Terminal,
    agent: bool,
    now: Timestamp,
) -> BTreeSet<(Login, Label, ObjectKey)> {
    let mut admitted = BTreeSet::new();
    for who in LOGINS {
        let staff = staff(who);
        for service in &terminal.services {
            let host = terminal.meta.key.name.as_str();
            let request = Request { agent, ..request(&staff, host, u32::from(service.port)) };
            if let Decision::Allow(allow) = decide(snapshot, &request, now) {
                for candidate in allow.candidates {
                    let window = candidate.window.meta.key.clone();
                    admitted.insert((login(who), service.name.clone(), window));
                }
            }
        }
    }
    admitted
}

/// `who_can_reach` does not look at where people come from.
fn from_anywhere(snapshot: &Snapshot) -> Snapshot {
    let mut anywhere = snapshot.clone();
    for user in snapshot.users() {
        anywhere.put_user(LoginUser { source_ranges: Vec::new(), ..LoginUser::clone(user) });
    }
    anywhere
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn agrees_with_decide(snapshot in any_policy(), agent: bool, (a, b) in any::<(Index, Index)>()) {
        let snapshot = from_anywhere(&snapshot);
        let edges: Vec<_> = edges(&snapshot).into_iter().collect();
        let (a, b) = (*a.get(&edges), *b.get(&edges));
        let (from, to) = (a.min(b), a.max(b));
        for terminal in snapshot.terminals() {
            let name = &terminal.meta.key.name;
            let reach = who_can_reach(&snapshot, name, agent, from, to).unwrap();
            prop_assert!(reach.access.is_sorted() && reach.next.is_sorted());
            let named = |a: &Access| (a.user.clone(), a.service.clone(), a.window.clone());
            let inside = edges.iter().filter(|at| **at == from || (from < **at && **at < to));
            for at in inside {
                let expected = admitted(&snapshot, terminal, agent, *at);
                let open = |a: &&Access| a.opens_at <= *at && *at < a.closes_at;
                let got: BTreeSet<_> = reach.access.iter().filter(open).map(named).collect();
                prop_assert_eq!(&got, &expected, "{} at {} of {}..{}", name, at, from, to);
                let instant = who_can_reach(&snapshot, name, agent, *at, *at).unwrap();
                let got: BTreeSet<_> = instant.access.iter().map(named).collect();
                prop_assert_eq!(&got, &expected, "{} at {}", name, at);
            }
            for access in &reach.access {
                prop_assert!(access.closes_at > from && access.opens_at < access.closes_at);
                prop_assert!(access.opens_at < to || access.opens_at == from);
            }
            for next in &reach.next {
                prop_assert!(next.next_opening >= to);
                let admits = admitted(&snapshot, terminal, agent, next.next_opening);
                let key = (next.user.clone(), next.service.clone(), next.window.clone());
                prop_assert!(admits.contains(&key), "{:?}", next);
            }
        }
        prop_assert!(who_can_reach(&snapshot, &label("absent"), agent, from, to).is_none());
    }

    #[test]
    fn a_difference_is_what_one_admits_and_the_other_does_not(
        old in any_policy(), changes in proptest::collection::vec(change(), 0..6), agent: bool,
    ) {
        let old = from_anywhere(&old);
        let mut new = old.clone();
        for change in changes {
            apply(&mut new, change);
        }
        let new = from_anywhere(&new);
        let (from, to) = (monday() - 24.hours(), monday() + 30.hours());
        let result = difference(&old, &new, agent, from, to);
        prop_assert!(result.gained.is_sorted() && result.lost.is_sorted());
        let reached = |snapshot: &Snapshot, at| {
            let terminals = snapshot.terminals();
            let reached = terminals.flat_map(|terminal| {
                let name = terminal.meta.key.name.clone();
                let all = admitted(snapshot, terminal, agent, at);
                all.into_iter().map(move |(user, service, _)| (user, name.clone(), service))
            });
            reached.collect::<BTreeSet<_>>()
        };
        let at_instant = |changes: &[Changed], at: Timestamp| {
            let there = changes.iter().filter(|change| change.from <= at && at < change.to);
            there.map(|c| (c.user.clone(), c.terminal.clone(), c.service.clone())).collect::<BTreeSet<_>>()
        };
        let edges = edges(&old).into_iter().chain(edges(&new)).filter(|at| (from..to).contains(at));
        for at in edges.take(60) {
            let (before, after) = (reached(&old, at), reached(&new, at));
            let (gained, lost) = (&after - &before, &before - &after);
            prop_assert_eq!(at_instant(&result.gained, at), gained, "gained at {}", at);
            prop_assert_eq!(at_instant(&result.lost, at), lost, "lost at {}", at);
        }
        let none = difference(&new, &new, agent, from, to);
        prop_assert!(none.gained.is_empty() && none.lost.is_empty());
    }
}

#[test]
fn each_occurrence_by_itself_and_the_next() {
    let mut snapshot = Snapshot::new(mesh());
    let until = monday() + 150.minutes();
    snapshot.put_user(LoginUser { valid_until: Some(until), ..user("prod", "alice") });
    snapshot.put_user(user("prod", "bob"));
    snapshot.put_terminal(terminal("acme", "kiosk-1"));
    let mut window = window_for("acme", "w", &["alice", "bob"], &["kiosk-1"]);
    let hourly = recurring("0 * * * *", "UTC", SignedDuration::from_mins(90));
    window.schedule = Schedule::Recurring(Box::new(hourly));
    snapshot.put_window(window);
    let kiosk = label("kiosk-1");
    let (from, to) = (monday() + 75.minutes(), monday() + 121.minutes());
    let reach = who_can_reach(&snapshot, &kiosk, false, from, to).unwrap();
    let shown: Vec<_> =
        reach.access.iter().map(|a| format!("{} {} {}", a.user, a.opens_at, a.closes_at)).collect();
    assert_eq!(
        shown,
        [
            "alice 2026-11-23T08:00:00Z 2026-11-23T09:30:00Z",
            "alice 2026-11-23T09:00:00Z 2026-11-23T10:30:00Z",
            "alice 2026-11-23T10:00:00Z 2026-11-23T10:30:00Z",
            "bob 2026-11-23T08:00:00Z 2026-11-23T09:30:00Z",
            "bob 2026-11-23T09:00:00Z 2026-11-23T10:30:00Z",
            "bob 2026-11-23T10:00:00Z 2026-11-23T11:30:00Z",
        ]
    );
    let next: Vec<_> =
        reach.next.iter().map(|n| format!("{} {}", n.user, n.next_opening)).collect();
    assert_eq!(next, ["bob 2026-11-23T11:00:00Z"]);
}
