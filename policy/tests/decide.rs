//! `decide`, `recheck`, `may_attach` and the snapshot, by example and against a search without
//! indexes.
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
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidegate_draw::cases;
use tidegate_policy::decide::{
    Admission, Allow, Decision, Deny, Request, admit_staff, decide, may_attach, may_attach_until,
    recheck,
};
use tidegate_policy::model::*;
use tidegate_policy::schedule::Schedule;
use tidegate_policy::snapshot::Snapshot;

fn allow(decision: Decision) -> Allow {
    match decision {
        Decision::Allow(allow) => allow,
        Decision::Deny(deny) => panic!("refused: {deny}"),
    }
}

fn deny(decision: Decision) -> Deny {
    match decision {
        Decision::Allow(allow) => panic!("admitted by {:?}", allow.candidates),
        Decision::Deny(deny) => deny,
    }
}

/// alice of the Mesh, bob of acme, one kiosk of acme.
fn small() -> Snapshot {
    let mut snapshot = Snapshot::new(mesh());
    snapshot.put_user(user("prod", "alice"));
    snapshot.put_user(user("acme", "bob"));
    let mut kiosk = terminal("acme", "kiosk-17");
    kiosk.services[0].listen_port = Some(20_017);
    snapshot.put_terminal(kiosk);
    snapshot
}

fn ask(snapshot: &Snapshot, who: &str, host: &str, port: u32, now: Timestamp) -> Decision {
    decide(snapshot, &request(&staff(who), host, port), now)
}

#[test]
fn the_sentence_of_the_design() {
    let mut snapshot = small();
    let mut window = window_for("acme", "w", &["alice"], &["kiosk-17"]);
    window.case = Some(Case { number: "48213".into(), url: None });
    let two_hours = SignedDuration::from_hours(2);
    let nights = recurring("0 22 * * TUE,THU", "Europe/Berlin", two_hours);
    window.schedule = Schedule::Recurring(Box::new(nights));
    snapshot.put_window(window);
    let refused = deny(ask(&snapshot, "alice", "kiosk-17.support.example.com", 22, monday()));
    assert_eq!(
        refused.to_string(),
        "no open support window for alice on kiosk-17/ssh; the next one opens Tue 24 Nov 22:00 \
         Europe/Berlin (case 48213)"
    );
    let next = refused.next_opening.unwrap();
    assert_eq!(next.at, at("2026-11-24T21:00:00Z"));
    let allowed = allow(ask(&snapshot, "alice", "kiosk-17", 22, next.at));
    assert_eq!(allowed.candidates[0].deadline, at("2026-11-24T23:00:00Z"));
}

#[test]
fn hosts_in_every_form() {
    let mut snapshot = small();
    snapshot.put_window(window_for("acme", "w", &["alice"], &["kiosk-17"]));
    for (host, port) in [
        ("kiosk-17", 22),
        ("KIOSK-17.", 22),
        ("Kiosk-17.Support.Example.Com.", 22),
        ("localhost", 20_017),
        ("127.0.0.1", 20_017),
        ("::1", 20_017),
    ] {
        let allowed = allow(ask(&snapshot, "alice", host, port, monday()));
        assert_eq!(allowed.service.name, label("ssh"), "{host}");
    }
    let code = |host, port| deny(ask(&snapshot, "alice", host, port, monday())).reason.code();
    assert_eq!(code("kiosk-17", 20_017), "UndeclaredPort");
    assert_eq!(code("kiosk-17", 65_536 + 22), "UndeclaredPort");
    assert_eq!(code("kiosk-17", 443), "ServiceNotInWindow");
    assert_eq!(code("localhost", 22), "UnknownListenPort");
    assert_eq!(code("localhost", 65_536 + 20_017), "UnknownListenPort");
    assert_eq!(code("kiosk-18", 22), "UnknownTerminal");
    assert_eq!(code("kiosk-*", 22), "MalformedHost");
    assert_eq!(code("kiosk-17.example.org", 22), "MalformedHost");
}

#[test]
fn a_terminal_of_no_window_reads_as_none() {
    let mut snapshot = small();
    snapshot.put_terminal(terminal("acme", "secret"));
    snapshot.put_window(window_for("acme", "w", &["bob.acme"], &["secret", "kiosk-17"]));
    let there = deny(ask(&snapshot, "alice", "secret", 22, monday())).to_string();
    let not = deny(ask(&snapshot, "alice", "absent", 22, monday())).to_string();
    assert_eq!(there.replace("secret", "absent"), not);
    let listens = deny(ask(&snapshot, "alice", "localhost", 20_017, monday())).to_string();
    let not = deny(ask(&snapshot, "alice", "localhost", 20_018, monday())).to_string();
    assert_eq!(listens.replace("20017", "20018"), not);
}

#[test]
fn tenants_stay_apart() {
    let mut snapshot = small();
    snapshot.put_user(user("beta", "bob"));
    snapshot.put_user(user("prod", "bob"));
    snapshot.put_terminal(terminal("beta", "till-1"));
    // acme's bob is named by acme's windows alone, as he logs in.
    snapshot.put_window(window_for("acme", "w", &["bob.acme"], &["kiosk-17", "till-1"]));
    snapshot.put_window(window_for("beta", "w", &["bob.acme"], &["till-1", "kiosk-17"]));
    allow(ask(&snapshot, "bob.acme", "kiosk-17", 22, monday()));
    for (who, host) in [
        ("bob.acme", "till-1"),
        ("bob", "kiosk-17"),
        ("bob.beta", "kiosk-17"),
        ("bob.beta", "till-1"),
    ] {
        let refused = deny(ask(&snapshot, who, host, 22, monday()));
        assert_eq!(refused.reason.code(), "UnknownTerminal", "{who} {host}");
    }
    // Groups count in the Mesh's namespace and in the window's.
    for (namespace, name) in [("prod", "alice"), ("acme", "bob"), ("beta", "bob")] {
        snapshot.put_user(LoginUser {
            groups: BTreeSet::from([label("tier2")]),
            ..user(namespace, name)
        });
    }
    let mut grouped = window_for("acme", "w", &[], &["kiosk-17"]);
    grouped.users.groups = BTreeSet::from([label("tier2")]);
    snapshot.put_window(grouped);
    allow(ask(&snapshot, "alice", "kiosk-17", 22, monday()));
    allow(ask(&snapshot, "bob.acme", "kiosk-17", 22, monday()));
    deny(ask(&snapshot, "bob.beta", "kiosk-17", 22, monday()));
    deny(ask(&snapshot, "bob", "kiosk-17", 22, monday()));
}

#[test]
fn who_may_be_in_at_all() {
    let mut snapshot = small();
    snapshot.put_window(window_for("acme", "w", &["alice"], &["kiosk-17"]));
    let code = |snapshot: &Snapshot, who: &_, now| {
        let refused = admit_staff(snapshot, who, now).unwrap_err();
        let same = deny(decide(snapshot, &request(who, "kiosk-17", 22), now));
        assert_eq!(same, refused, "no channel gives another answer");
        refused.reason.code()
    };
    let alice = staff("alice");
    assert_eq!(code(&snapshot, &staff("nobody"), monday()), "UnknownLogin");
    let wrong = tidegate_policy::decide::Staff { key: blob("bob.acme"), ..alice.clone() };
    assert_eq!(code(&snapshot, &wrong, monday()), "WrongLogin");
    let unknown = tidegate_policy::decide::Staff { key: blob("other"), ..alice.clone() };
    assert_eq!(code(&snapshot, &unknown, monday()), "KeyRemoved");

    let mut expiring = user("prod", "alice");
    expiring.valid_until = Some(monday());
    snapshot.put_user(expiring);
    let before = monday() - 1.nanosecond();
    assert!(admit_staff(&snapshot, &alice, before).is_ok());
    assert_eq!(code(&snapshot, &alice, monday()), "UserExpired");

    let mut bound = user("prod", "alice");
    bound.source_ranges = vec!["203.0.113.0/28".parse().unwrap()];
    snapshot.put_user(bound);
    let from = |source: &str| tidegate_policy::decide::Staff {
        source: source.parse().unwrap(),
        ..alice.clone()
    };
    assert!(admit_staff(&snapshot, &from("::ffff:203.0.113.7"), monday()).is_ok());
    assert_eq!(code(&snapshot, &from("203.0.113.16"), monday()), "SourceNotAllowed");
    assert_eq!(code(&snapshot, &from("2001:db8::1"), monday()), "SourceNotAllowed");

    snapshot.put_user(LoginUser { suspended: true, ..user("prod", "alice") });
    assert_eq!(code(&snapshot, &alice, monday()), "UserSuspended");
}

#[test]
fn what_a_stock_terminal_cannot_give() {
    for (needs, says) in [
        (0, "window w requires the customer's consent and kiosk-17 runs no agent"),
        (1, "window w requires a one-time code and kiosk-17 runs no agent"),
        (2, "window w requires a recording by the agent and kiosk-17 runs no agent"),
    ] {
        let mut snapshot = small();
        let mut window = window_for("acme", "w", &["alice"], &["kiosk-17"]);
        match needs {
            0 => window.consent = Need::Required,
            1 => window.code = Need::Required,
            _ => window.recording = Recording::Endpoint,
        }
        snapshot.put_window(window);
        assert_eq!(deny(ask(&snapshot, "alice", "kiosk-17", 22, monday())).to_string(), says);
        let alice = staff("alice");
        let agent = Request { agent: true, ..request(&alice, "kiosk-17", 22) };
        allow(decide(&snapshot, &agent, monday()));
    }
}

#[test]
fn candidates_in_the_order_in_which_they_are_claimed() {
    let mut snapshot = small();
    let mut put = |name: &str, hours: i64, age: i64, one_time: bool| {
        let mut window = window_for("acme", name, &["alice"], &["kiosk-17"]);
        window.schedule = once(monday(), monday() + hours.hours());
        window.meta.created -= age.hours();
        window.one_time = one_time;
        snapshot.put_window(window);
    };
    put("young", 3, 0, false);
    put("old", 3, 9, false);
    put("short", 1, 99, false);
    put("last", 9, 99, true);
    let allowed = allow(ask(&snapshot, "alice", "kiosk-17", 22, monday()));
    let names: Vec<_> =
        allowed.candidates.iter().map(|c| c.window.meta.key.name.as_str()).collect();
    assert_eq!(names, ["old", "young", "short", "last"]);
}

#[test]
fn the_deadline_is_the_earliest_of_three() {
    let mut snapshot = small();
    let mut window = window_for("acme", "w", &["alice"], &["kiosk-17"]);
    let deadline = |snapshot: &Snapshot| {
        allow(ask(snapshot, "alice", "kiosk-17", 22, monday())).candidates[0].deadline
    };
    snapshot.put_window(window.clone());
    assert_eq!(deadline(&snapshot), monday() + 2.hours());
    window.limits.max_session_duration = Some(SignedDuration::from_mins(45));
    snapshot.put_window(window);
    assert_eq!(deadline(&snapshot), monday() + 45.minutes());
    snapshot
        .put_user(LoginUser { valid_until: Some(monday() + 5.minutes()), ..user("prod", "alice") });
    assert_eq!(deadline(&snapshot), monday() + 5.minutes());
}

#[test]
fn an_opening_at_which_the_user_is_out_is_none() {
    let mut snapshot = small();
    snapshot.put_window(window_for("acme", "w", &["alice"], &["kiosk-17"]));
    let before = monday() - 1.hour();
    let next = |snapshot: &Snapshot| {
        let refused = deny(ask(snapshot, "alice", "kiosk-17", 22, before));
        assert_eq!(refused.reason.code(), "NotOpen");
        refused.next_opening.map(|next| next.at)
    };
    assert_eq!(next(&snapshot), Some(monday()));
    let until = |until| LoginUser { valid_until: Some(until), ..user("prod", "alice") };
    snapshot.put_user(until(monday()));
    assert_eq!(next(&snapshot), None);
    snapshot.put_user(until(monday() + 1.nanosecond()));
    assert_eq!(next(&snapshot), Some(monday()));
}

#[test]
fn expired_and_suspended_windows_say_so() {
    let mut snapshot = small();
    let window = || window_for("acme", "w", &["alice"], &["kiosk-17"]);
    snapshot.put_window(window());
    let told =
        |snapshot: &Snapshot, now| deny(ask(snapshot, "alice", "kiosk-17", 22, now)).to_string();
    let closed = monday() + 2.hours();
    assert_eq!(
        told(&snapshot, closed),
        "support window w for alice on kiosk-17/ssh expired Mon 23 Nov 11:00 +01:00; ask for a new one"
    );
    snapshot.put_window(Window { suspended: true, ..window() });
    let suspended = "support window w for alice on kiosk-17/ssh is suspended";
    assert_eq!(told(&snapshot, monday()), format!("{suspended}; ask whoever manages the windows"));
    // Another that opens later does not hide that this one would be open now, and is told.
    let mut later = window_for("acme", "x", &["alice"], &["kiosk-17"]);
    later.schedule = once(monday() + 26.hours(), monday() + 27.hours());
    snapshot.put_window(later);
    let next = "the next one opens Tue 24 Nov 11:00 +01:00";
    assert_eq!(told(&snapshot, monday()), format!("{suspended}; {next}"));
    assert_eq!(
        told(&snapshot, closed),
        format!("no open support window for alice on kiosk-17/ssh; {next}")
    );
}

/// One value claimed twice stays with the one that has it, also when the other is put again.
#[test]
fn what_is_held_is_not_taken() {
    let mut snapshot = Snapshot::new(mesh());
    let mut first = terminal("acme", "kiosk-1");
    first.services[0].listen_port = Some(20_001);
    let mut other = terminal("beta", "kiosk-1");
    other.services[0].listen_port = Some(20_001);
    snapshot.put_terminal(first.clone());
    snapshot.put_terminal(other.clone());
    snapshot.put_terminal(Terminal { suspended: true, ..first.clone() });
    for _ in 0..2 {
        let held = [
            snapshot.terminal(&label("kiosk-1")),
            snapshot.terminal_by_key(&blob("kiosk-1")),
            snapshot.terminal_by_listen_port(20_001),
        ];
        for terminal in held {
            assert_eq!(terminal.unwrap().meta.key, first.meta.key);
        }
        snapshot.put_terminal(other.clone());
    }
    first.services[0].listen_port = None;
    snapshot.put_terminal(first.clone());
    assert_eq!(snapshot.terminal_by_listen_port(20_001).unwrap().meta.key, other.meta.key);
    snapshot.remove_terminal(&first.meta.key);
    assert_eq!(snapshot.terminal(&label("kiosk-1")).unwrap().meta.key, other.meta.key);
}

fn admission(allow: &Allow, who: &str, now: Timestamp) -> Admission {
    let candidate = &allow.candidates[0];
    Admission {
        staff: staff(who),
        terminal: allow.terminal.clone(),
        service: allow.service.clone(),
        window: candidate.window.clone(),
        occurrence: candidate.occurrence,
        opened_at: now,
        deadline: candidate.deadline,
    }
}

#[test]
fn a_running_session_is_cut_or_shortened_but_never_extended() {
    let snapshot = {
        let mut snapshot = small();
        snapshot.put_window(window_for("acme", "w", &["alice"], &["kiosk-17"]));
        // Another that would admit does not save it.
        snapshot.put_window(window_for("acme", "x", &["alice"], &["kiosk-17"]));
        snapshot
    };
    let session =
        admission(&allow(ask(&snapshot, "alice", "kiosk-17", 22, monday())), "alice", monday());
    assert_eq!(session.window.meta.key.name, label("w"));
    let now = monday() + 1.hour();
    let after = |change: &dyn Fn(&mut Window)| {
        let mut changed = snapshot.clone();
        let mut window = Window::clone(&session.window);
        change(&mut window);
        changed.put_window(window);
        recheck(&changed, &session, now).map_err(|reason| reason.code())
    };
    let to = |hours: i64| once(monday(), monday() + hours.hours());
    assert_eq!(after(&|_| ()), Ok(session.deadline));
    assert_eq!(after(&|w| w.schedule = to(9)), Ok(session.deadline), "extended for new ones alone");
    assert_eq!(
        after(&|w| w.schedule = once(monday() + 1.second(), monday() + 2.hours())),
        Ok(session.deadline)
    );
    assert_eq!(
        after(&|w| w.schedule = once(monday(), monday() + 90.minutes())),
        Ok(monday() + 90.minutes())
    );
    assert_eq!(after(&|w| w.schedule = to(1)), Err("WindowClosed"));
    assert_eq!(
        after(&|w| w.schedule = once(now + 1.second(), now + 1.hour())),
        Err("WindowClosed")
    );
    assert_eq!(
        after(&|w| w.limits.max_session_duration = Some(SignedDuration::from_mins(70))),
        Ok(monday() + 70.minutes())
    );
    assert_eq!(after(&|w| w.suspended = true), Err("WindowSuspended"));
    assert_eq!(after(&|w| w.users.names.clear()), Err("WindowGone"));
    assert_eq!(after(&|w| w.terminals.names.clear()), Err("WindowGone"));
    assert_eq!(after(&|w| w.services = BTreeSet::from([label("web")])), Err("WindowGone"));
    assert_eq!(after(&|w| w.meta.uid = "another".into()), Err("WindowGone"));
    assert_eq!(after(&|w| w.consent = Need::Required), Err("NeedsAgent"));
    assert_eq!(after(&|w| w.code = Need::Required), Err("NeedsAgent"));

    let changed = |change: &dyn Fn(&mut Snapshot)| {
        let mut changed = snapshot.clone();
        change(&mut changed);
        recheck(&changed, &session, now).map_err(|reason| reason.code())
    };
    let kiosk = || Terminal::clone(snapshot.terminal(&label("kiosk-17")).unwrap());
    let alice = || user("prod", "alice");
    assert_eq!(changed(&|s| s.remove_window(&key("acme", "w"))), Err("WindowGone"));
    assert_eq!(changed(&|s| s.remove_user(&key("prod", "alice"))), Err("UnknownLogin"));
    assert_eq!(
        changed(&|s| s.put_user(LoginUser { suspended: true, ..alice() })),
        Err("UserSuspended")
    );
    assert_eq!(
        changed(&|s| s.put_user(LoginUser { public_keys: vec![], ..alice() })),
        Err("KeyRemoved")
    );
    assert_eq!(
        changed(&|s| s
            .put_user(LoginUser { source_ranges: vec!["10.0.0.0/8".parse().unwrap()], ..alice() })),
        Err("SourceNotAllowed")
    );
    assert_eq!(
        changed(&|s| s.put_user(LoginUser { valid_until: Some(now + 1.minute()), ..alice() })),
        Ok(now + 1.minute())
    );
    assert_eq!(changed(&|s| s.remove_terminal(&key("acme", "kiosk-17"))), Err("UnknownTerminal"));
    assert_eq!(
        changed(&|s| s.put_terminal(Terminal { suspended: true, ..kiosk() })),
        Err("TerminalSuspended")
    );
    assert_eq!(
        changed(&|s| {
            let mut kiosk = kiosk();
            kiosk.services[0].port = 2222;
            s.put_terminal(kiosk);
        }),
        Err("UndeclaredPort")
    );
    assert_eq!(
        changed(&|s| {
            let mut kiosk = kiosk();
            kiosk.meta.uid = "another".into();
            s.put_terminal(kiosk);
        }),
        Err("UnknownTerminal")
    );
}

#[test]
fn a_terminal_is_let_in_two_minutes_ahead() {
    let mut snapshot = small();
    let kiosk = Terminal { attach: Attach::DuringWindow, ..terminal("acme", "kiosk-17") };
    let attached = |snapshot: &Snapshot, now| may_attach(snapshot, &kiosk, now);
    assert!(may_attach(&snapshot, &terminal("acme", "kiosk-17"), monday()));
    assert!(!attached(&snapshot, monday()));
    snapshot.put_window(window_for("acme", "w", &["alice"], &["kiosk-17"]));
    let opens = monday();
    assert!(!attached(&snapshot, opens - 2.minutes() - 1.nanosecond()));
    assert!(attached(&snapshot, opens - 2.minutes()));
    assert!(attached(&snapshot, opens + 2.hours() - 1.nanosecond()));
    assert!(!attached(&snapshot, opens + 2.hours()));
    snapshot.put_window(Window {
        suspended: true,
        ..window_for("acme", "w", &["alice"], &["kiosk-17"])
    });
    assert!(!attached(&snapshot, opens));
}

/// Everything that one can ask: each staff, terminal and port, with and without an agent.
fn asked(snapshot: &Snapshot, now: Timestamp, mut check: impl FnMut(&Request<'_>, &str, Decision)) {
    for who in LOGINS {
        let staff = staff(who);
        for (_, host) in TERMINALS {
            for port in PORTS {
                for agent in [false, true] {
                    let request = Request { agent, ..request(&staff, host, *port) };
                    check(&request, host, decide(snapshot, &request, now));
                }
            }
        }
    }
}

fn narrowed(snapshot: &Snapshot, pick: Index, how: u8) -> Snapshot {
    let mut narrow = snapshot.clone();
    let windows: Vec<_> = snapshot.windows().map(|window| Window::clone(window)).collect();
    let (users, terminals): (Vec<_>, Vec<_>) = (
        snapshot.users().map(|u| LoginUser::clone(u)).collect(),
        snapshot.terminals().map(|t| Terminal::clone(t)).collect(),
    );
    if how == 0 && !users.is_empty() {
        narrow.put_user(LoginUser { suspended: true, ..pick.get(&users).clone() });
    } else if how == 1 && !terminals.is_empty() {
        narrow.put_terminal(Terminal { suspended: true, ..pick.get(&terminals).clone() });
    } else if !windows.is_empty() {
        let mut window = pick.get(&windows).clone();
        match how {
            2 => window.suspended = true,
            3 => drop(window.users.names.pop_first()),
            4 => drop(window.users.groups.pop_first()),
            5 => drop(window.terminals.names.pop_first()),
            6 => window.terminals.selector = None,
            7 => drop(window.services.pop_first()),
            8 => window.limits.max_session_duration = Some(SignedDuration::from_mins(1)),
            9 => window.consent = Need::Required,
            _ => match &mut window.schedule {
                Schedule::Once(once) => {
                    let middle = once.occurrence.closes.duration_since(once.occurrence.opens) / 2;
                    once.occurrence.closes -= middle;
                }
                Schedule::Recurring(recurring) => {
                    recurring.not_before = recurring.not_before.max(Some(monday() - 3.hours()));
                    let end = monday() + 5.hours();
                    recurring.not_after =
                        Some(recurring.not_after.map_or(end, |bound| bound.min(end)));
                    recurring.except.insert(jiff::civil::date(2026, 11, 23));
                    recurring.duration = recurring.duration.min(SignedDuration::from_mins(40));
                }
            },
        }
        narrow.put_window(window);
    }
    narrow
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn decides_as_a_search_through_everything(snapshot in any_policy(), pick in any::<Index>()) {
        let edges: Vec<_> = edges(&snapshot).into_iter().collect();
        let now = *pick.get(&edges);
        asked(&snapshot, now, |request, host, decision| {
            let found = admitting(&snapshot, request.staff, host, request.port, request.agent, now);
            let names: BTreeSet<_> = found.iter().map(|window| window.meta.key.clone()).collect();
            let candidates = match &decision {
                Decision::Allow(allow) => allow.candidates.clone(),
                Decision::Deny(_) => Vec::new(),
            };
            let got: BTreeSet<_> = candidates.iter().map(|c| c.window.meta.key.clone()).collect();
            assert_eq!(got, names, "{request:?} at {now}");
            for candidate in &candidates {
                assert!(candidate.occurrence.contains(now) && now < candidate.deadline);
                assert!(candidate.deadline <= candidate.occurrence.closes);
            }
            let order = candidates.windows(2).all(|pair| {
                let rank = |c: &tidegate_policy::decide::Candidate| {
                    let age = c.window.meta.created;
                    (c.window.one_time, std::cmp::Reverse(c.deadline), age, c.window.meta.key.clone())
                };
                rank(&pair[0]) < rank(&pair[1])
            });
            assert!(order, "{candidates:?}");
        });
    }

    #[test]
    fn the_next_opening_is_when_the_same_request_is_next_admitted(
        snapshot in any_policy(), pick in any::<Index>(),
    ) {
        let edges: Vec<_> = edges(&snapshot).into_iter().collect();
        let now = *pick.get(&edges);
        asked(&snapshot, now, |request, host, decision| {
            let Decision::Deny(deny) = decision else { return };
            let admitted = |at| !admitting(&snapshot, request.staff, host, request.port, request.agent, at).is_empty();
            let until = deny.next_opening.as_ref().map_or(Timestamp::MAX, |next| next.at);
            assert!(deny.next_opening.is_none() || admitted(until), "{deny:?}");
            for at in edges.iter().filter(|at| now < **at && **at < until) {
                assert!(!admitted(*at), "{deny} but admitted at {at}");
            }
            let sentence = deny.to_string();
            assert!(sentence.len() <= 300 && sentence.is_ascii(), "{sentence}");
        });
    }

    #[test]
    fn suspending_or_narrowing_never_allows_more(
        snapshot in any_policy(), pick in any::<Index>(), instant in any::<Index>(), how in 0..12_u8,
    ) {
        let narrow = narrowed(&snapshot, pick, how);
        let edges: Vec<_> = edges(&snapshot).into_iter().chain(edges(&narrow)).collect();
        let now = *instant.get(&edges);
        asked(&narrow, now, |request, _, decision| {
            let Decision::Allow(after) = decision else { return };
            let before = allow(decide(&snapshot, request, now));
            for candidate in &after.candidates {
                let key = &candidate.window.meta.key;
                let same = before.candidates.iter().find(|c| c.window.meta.key == *key);
                assert!(candidate.deadline <= same.expect("it admitted before").deadline);
            }
        });
    }

    /// A running session goes on exactly as long as its own window would still admit it.
    #[test]
    fn recheck_agrees_with_decide(
        snapshot in any_policy(),
        changes in proptest::collection::vec(change(), 1..4),
        (pick, how, later) in (any::<Index>(), 0..24_u8, any::<Index>()),
    ) {
        let mut changed = narrowed(&snapshot, pick, how);
        if how > 11 {
            for change in changes {
                apply(&mut changed, change);
            }
        }
        let begun = *pick.get(&edges(&snapshot).into_iter().collect::<Vec<_>>());
        asked(&snapshot, begun, |request, _, decision| {
            let Decision::Allow(allowed) = decision else { return };
            for candidate in &allowed.candidates {
                let session = Admission {
                    staff: request.staff.clone(),
                    terminal: allowed.terminal.clone(),
                    service: allowed.service.clone(),
                    window: candidate.window.clone(),
                    occurrence: candidate.occurrence,
                    opened_at: begun,
                    deadline: candidate.deadline,
                };
                assert_eq!(recheck(&snapshot, &session, begun), Ok(candidate.deadline));
                let length = candidate.deadline.duration_since(begun).as_secs();
                let share = i64::try_from(later.index(1000)).unwrap();
                let now = begun + SignedDuration::from_secs(length / 1000 * share);
                let result = recheck(&changed, &session, now);
                if let Ok(deadline) = result {
                    assert!(deadline <= session.deadline, "never later");
                }
                if request.agent || now >= session.deadline {
                    continue;
                }
                let still = match decide(&changed, request, now) {
                    Decision::Deny(_) => false,
                    Decision::Allow(allow) => {
                        let uid = &candidate.window.meta.uid;
                        allow.service.name == session.service.name
                            && allow.candidates.iter().any(|c| c.window.meta.uid == *uid)
                    }
                };
                assert_eq!(result.is_ok_and(|deadline| deadline > now) , still && outlasts(&changed, &session, now));
            }
        });
    }

    #[test]
    fn changes_give_what_a_fresh_build_gives(changes in proptest::collection::vec(change(), 1..60)) {
        let mut snapshot = Snapshot::new(mesh());
        for change in changes {
            let before = snapshot.clone();
            let copy = before.clone();
            apply(&mut snapshot, change);
            prop_assert!(before == copy, "a clone is not touched");
        }
        let fresh = fresh(&snapshot);
        prop_assert!(snapshot == fresh);
        for user in snapshot.users() {
            let named = |window: &&std::sync::Arc<Window>| window.names_user(user);
            let expected: BTreeSet<_> = snapshot.windows().filter(named).map(|w| &w.meta.key).collect();
            let got = snapshot.windows_of_user(user);
            prop_assert_eq!(expected.len(), got.len());
            prop_assert!(got.iter().all(|window| expected.contains(&window.meta.key)));
            prop_assert!(got.is_sorted_by_key(|window| window.meta.by_age()));
            prop_assert_eq!(snapshot.user(&user.login), Some(user));
        }
        for terminal in snapshot.terminals() {
            let selects = |window: &&std::sync::Arc<Window>| window.selects(terminal);
            let expected: BTreeSet<_> = snapshot.windows().filter(selects).map(|w| &w.meta.key).collect();
            let got = snapshot.windows_of_terminal(terminal);
            prop_assert_eq!(expected.len(), got.len());
            prop_assert!(got.iter().all(|window| expected.contains(&window.meta.key)));
            for service in &terminal.services {
                if let Some(port) = service.listen_port {
                    prop_assert_eq!(snapshot.terminal_by_listen_port(port), Some(terminal));
                }
            }
        }
        for window in snapshot.windows() {
            let users: Vec<_> = snapshot.users().filter(|user| window.names_user(user)).collect();
            prop_assert_eq!(snapshot.users_of_window(window), users);
            let terminals: Vec<_> = snapshot.terminals().filter(|t| window.selects(t)).collect();
            prop_assert_eq!(snapshot.terminals_of_window(window), terminals);
        }
    }

    /// Lists change their form with their length, and a window is listed under one of its labels.
    #[test]
    fn no_list_of_windows_loses_or_keeps_one(
        (users, terminals) in (vec(any_user(), 5), vec(any_terminal(), 6)),
        edits in vec((0..70_usize, proptest::option::weighted(0.7, any_window())), 50..250),
    ) {
        let mut snapshot = Snapshot::new(mesh());
        for user in users {
            snapshot.put_user(user);
        }
        for terminal in terminals {
            snapshot.put_terminal(terminal);
        }
        for (n, window) in edits {
            let name = format!("w{n}");
            match window {
                Some(mut window) => {
                    window.meta.key.name = label(&name);
                    snapshot.put_window(window);
                }
                None => ["acme", "beta", "prod"].iter().for_each(|at| snapshot.remove_window(&key(at, &name))),
            }
        }
        let windows = |wanted: &dyn Fn(&Window) -> bool| -> Vec<_> {
            let mut all: Vec<_> = snapshot.windows().filter(|window| wanted(window)).collect();
            all.sort_by(|a, b| a.meta.by_age().cmp(&b.meta.by_age()));
            all
        };
        for user in snapshot.users() {
            let named = windows(&|window| window.names_user(user));
            prop_assert_eq!(snapshot.windows_of_user(user), named);
            for terminal in snapshot.terminals() {
                let both = windows(&|window| window.names_user(user) && window.selects(terminal));
                prop_assert_eq!(snapshot.windows_between(user, terminal), both);
            }
        }
        for terminal in snapshot.terminals() {
            let selected = windows(&|window| window.selects(terminal));
            prop_assert_eq!(snapshot.windows_of_terminal(terminal), selected);
        }
    }

    #[test]
    fn attaches_while_a_window_is_open_or_about_to(snapshot in any_policy(), pick in any::<Index>(), ahead in 0..240_i64) {
        let edges: Vec<_> = edges(&snapshot).into_iter().collect();
        let now = *pick.get(&edges) - ahead.seconds();
        for terminal in snapshot.terminals() {
            let wanted = terminal.attach == Attach::Always
                || snapshot.windows().any(|window| {
                    let soon = |second: i64| window.schedule.open_at(now + second.seconds()).is_some();
                    window.selects(terminal) && !window.suspended && (0..=120).any(soon)
                });
            // Openings are whole seconds here, and `now` may be a nanosecond short of one.
            if now.subsec_nanosecond() == 0 {
                prop_assert_eq!(may_attach(&snapshot, terminal, now), wanted);
                if let Some(until) = may_attach_until(&snapshot, terminal, now) {
                    prop_assert!(now < until);
                    let last = until - 1.nanosecond();
                    let between = now + (last.duration_since(now) / 2);
                    for later in [between, last].map(|later| later.min(now + 9_000.hours())) {
                        prop_assert!(may_attach(&snapshot, terminal, later));
                    }
                }
            }
        }
    }

    #[test]
    fn no_request_makes_decide_fall_over(
        snapshot in any_policy(),
        who in any_staff(),
        host in prop_oneof![any::<String>(), "[-a-zA-Z0-9.]{0,80}(\\.support\\.example\\.com\\.?)?", Just("x".repeat(65_536))],
        port in prop_oneof![any::<u32>(), select(PORTS)],
    ) {
        let refused = deny(decide(&snapshot, &Request { staff: &who, host: &host, port, agent: true, way: None }, monday()));
        let sentence = refused.to_string();
        prop_assert!(sentence.len() <= 300, "{}", sentence);
        prop_assert!(sentence.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{}", sentence);
        prop_assert!(refused.reason.code() != "NotOpen");
    }
}

/// Whether the session's own bounds under `snapshot` reach beyond `now`: a shorter longest duration
/// counts from when it began.
fn outlasts(snapshot: &Snapshot, session: &Admission, now: Timestamp) -> bool {
    let window = snapshot.window(&session.window.meta.key).expect("it admits");
    let longest = window.limits.max_session_duration;
    longest.is_none_or(|longest| session.opened_at + longest > now)
}
