//! Claims on real files, with steps that fail or stop half way.

#![expect(clippy::disallowed_methods, reason = "tests wait for their tasks themselves")]

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tidegate_crds::SupportClaim;
use tidegate_draw::cases;
use tidegate_policy::model::{
    Label, Limits, Meta, Need, Recording, TerminalSelector, UserSelector, Window,
};
use tidegate_policy::schedule::{Occurrence, Once, Schedule};

use std::sync::Mutex;

use super::files::{Fate, Files, Step};
use super::table::{Asker, Limit, Outcome, Table, Token, Wanted};
use super::*;
use crate::state::StateDir;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn opens() -> Timestamp {
    at("2026-11-23T09:00:00Z")
}

pub fn candidate(name: &str, opens: Timestamp, once: bool, places: Option<u32>) -> Candidate {
    let closes = opens + jiff::SignedDuration::from_hours(2);
    let label = |text| Label::parse(text).unwrap();
    let window = Window {
        meta: Meta {
            key: ObjectKey { namespace: label("acme"), name: label(name) },
            uid: "u1".into(),
            generation: 1,
            created: opens,
        },
        case: None,
        users: UserSelector::default(),
        terminals: TerminalSelector::default(),
        services: BTreeSet::new(),
        schedule: Schedule::Once(Once::new(opens, closes, jiff::tz::Offset::UTC).unwrap()),
        consent: Need::NotRequired,
        code: Need::NotRequired,
        recording: Recording::None,
        one_time: once,
        limits: Limits { max_sessions: places, ..Limits::default() },
        suspended: false,
    };
    Candidate {
        window: Arc::new(window),
        occurrence: Occurrence { opens, closes },
        deadline: closes,
    }
}

pub fn alice() -> Login {
    Login::parse("alice").unwrap()
}

pub fn session() -> SessionId {
    SessionId::generate(opens())
}

async fn claim(claims: &FileClaims, candidate: &Candidate) -> Claimed {
    claims.claim(candidate, session(), &alice(), opens()).await
}

fn files(state: &StateDir) -> Vec<String> {
    let entries = std::fs::read_dir(state.root().join("claims")).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_one_time_window_is_used_once_and_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let window = candidate("w", opens(), true, Some(5));
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    assert!(claims.look(&window).is_none());
    let Claimed::Taken(taken) = claim(&claims, &window).await else { panic!() };
    assert!(taken.is_once());
    claims.release(taken).await;

    // Given back, restarted, re-applied with another start: it stays used, and says by whom.
    let moved = candidate("w", opens() + jiff::SignedDuration::from_secs(1), true, None);
    for window in [&window, &moved] {
        let Claimed::Used { holder: Some(holder) } = claim(&claims, window).await else { panic!() };
        assert_eq!((holder.user.as_str(), holder.since), ("alice", opens()));
    }
    drop(claims);
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    let Some(Claimed::Used { holder: Some(holder) }) = claims.look(&moved) else { panic!() };
    assert_eq!(holder.user, "alice");
    assert!(matches!(claim(&claims, &moved).await, Claimed::Used { .. }));
    // Another window is another matter.
    assert!(matches!(
        claim(&claims, &candidate("v", opens(), true, None)).await,
        Claimed::Taken(_)
    ));

    // The file is the resource.
    let name = &files(&state)[0];
    let text = std::fs::read(state.root().join("claims").join(name)).unwrap();
    let object: SupportClaim = serde_json::from_slice(&text).unwrap();
    assert_eq!(object.metadata.name.as_ref(), Some(name));
    assert_eq!(object.spec.window.namespace, "acme");
    assert!(!object.spec.reusable);
    assert_eq!(object.spec.relay_pod, "relay-0");
}

#[tokio::test]
async fn a_one_time_claim_goes_a_day_after_both_window_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let window = candidate("w", opens(), true, None);
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    drop(claim(&claims, &window).await);
    let late = at("2026-11-24T11:00:00Z");
    let early = late - jiff::SignedDuration::from_secs(1);
    claims.retain(&|_| false, early).await;
    claims.retain(&|key| key.name.as_str() == "w", late).await;
    assert!(matches!(claim(&claims, &window).await, Claimed::Used { .. }));
    claims.retain(&|_| false, late).await;
    assert_eq!(files(&state), [""; 0]);
    assert!(matches!(claim(&claims, &window).await, Claimed::Taken(_)));
}

#[tokio::test]
async fn places_are_given_back_and_their_holders_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let window = candidate("w", opens(), false, Some(2));
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    let Claimed::Taken(first) = claim(&claims, &window).await else { panic!() };
    let bob = Login::parse("bob.acme").unwrap();
    let second = claims.claim(&window, session(), &bob, opens()).await;
    assert!(matches!(&second, Claimed::Taken(_)));
    let Claimed::Full { holders } = claim(&claims, &window).await else { panic!() };
    assert_eq!(users(&holders), "alice and bob.acme");
    // Another occurrence has places of its own; no limit needs none.
    let later = candidate("w", opens() + jiff::SignedDuration::from_hours(24), false, Some(2));
    assert!(matches!(claim(&claims, &later).await, Claimed::Taken(_)));
    assert!(matches!(claim(&claims, &candidate("w", opens(), false, None)).await, Claimed::Free));
    // Fewer places than are held: nobody more until enough have gone.
    let fewer = candidate("w", opens(), false, Some(1));
    claims.release(first).await;
    assert!(matches!(claim(&claims, &fewer).await, Claimed::Full { .. }));
    assert!(claims.look(&window).is_none());
    drop(second);
    let again = claim(&claims, &fewer).await;
    assert!(matches!(again, Claimed::Taken(_)), "{again:?}");
}

#[tokio::test]
async fn a_start_frees_every_place_and_no_one_time_claim() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let (once, places) =
        (candidate("o", opens(), true, None), candidate("p", opens(), false, Some(1)));
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    // As a crash leaves them: never dropped.
    std::mem::forget(claim(&claims, &once).await);
    std::mem::forget(claim(&claims, &places).await);
    let directory = state.root().join("claims");
    std::fs::write(directory.join(".half.new"), "x").unwrap();
    std::fs::write(directory.join("README"), "x").unwrap();
    let broken = "0".repeat(64);
    std::fs::write(directory.join(&broken), "{").unwrap();
    assert_eq!(files(&state).len(), 5);
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    assert_eq!(files(&state).len(), 3, "{:?}", files(&state));
    assert!(matches!(claim(&claims, &once).await, Claimed::Used { .. }));
    assert!(matches!(claim(&claims, &places).await, Claimed::Taken(_)));
    // What cannot be read is never taken for nothing.
    claims.retain(&|_| false, Timestamp::MAX).await;
    assert_eq!(files(&state).iter().filter(|name| **name == broken).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_no_more_than_the_limit_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    let most = [
        (candidate("once", opens(), true, None), 1),
        (candidate("three", opens(), false, Some(3)), 3),
    ];
    for (window, most) in most {
        let taken = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (claims, window, taken) = (claims.clone(), window.clone(), Arc::clone(&taken));
                tokio::spawn(async move {
                    let claimed = claim(&claims, &window).await;
                    if matches!(claimed, Claimed::Taken(_)) {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                    claimed
                })
            })
            .collect();
        let mut held = Vec::new();
        for task in tasks {
            held.push(task.await.unwrap());
        }
        assert_eq!(taken.load(Ordering::SeqCst), most);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_waiting_leaks_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    let window = candidate("w", opens(), false, Some(1));
    for _ in 0..100 {
        let mut asking = Box::pin(claim(&claims, &window));
        // Polled once, so that it is under way, and dropped.
        let polled = futures_util::poll!(&mut asking);
        drop((asking, polled));
    }
    let Claimed::Taken(held) = claim(&claims, &window).await else { panic!() };
    claims.release(held).await;
    assert_eq!(files(&state), [""; 0]);
}

#[tokio::test]
async fn a_full_disk_admits_nobody_and_uses_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("s")).unwrap();
    let claims = FileClaims::open(&state, "relay-0").unwrap();
    let directory = state.root().join("claims");
    let aside = state.root().join("aside");
    std::fs::rename(&directory, &aside).unwrap();
    for window in [candidate("o", opens(), true, None), candidate("p", opens(), false, Some(1))] {
        assert!(matches!(claim(&claims, &window).await, Claimed::Unavailable { .. }));
    }
    std::fs::rename(&aside, &directory).unwrap();
    for window in [candidate("o", opens(), true, None), candidate("p", opens(), false, Some(1))] {
        assert!(matches!(claim(&claims, &window).await, Claimed::Taken(_)));
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Go),
        1 => Just(Fate::FailBefore(EIO)),
        1 => Just(Fate::FailBefore(ENOSPC)),
        1 => Just(Fate::FailAfter(EIO)),
        1 => Just(Fate::FailAfter(ENOSPC)),
        1 => Just(Fate::CrashBefore),
        1 => Just(Fate::CrashAfter),
    ]
}

/// One life of a process: what becomes of each step, and whether it ends in a power cut.
fn life() -> impl Strategy<Value = (Vec<Fate>, bool)> {
    (prop::collection::vec(fate(), 0..20), any::<bool>())
}

fn wanted(limit: Limit) -> Wanted {
    let candidate = candidate("w", opens(), true, None);
    Wanted { limit, ..Wanted::of(&candidate).unwrap() }
}

/// In memory where there is such a place: thousands of syncs are slow on a disk, and prove no more.
fn memory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

proptest! {
    #![proptest_config(cases(200))]

    /// Whatever fails or stops at whatever step, through restarts and power cuts: never two sessions.
    #[test]
    fn never_two_sessions_for_a_one_time_window(lives in prop::collection::vec(life(), 1..6)) {
        let dir = memory();
        let wanted = wanted(Limit::Once);
        let path = dir.path().join(wanted.name());
        let mut sessions = 0;
        for (fates, power_cut) in lives {
            // The last fate's step is whether the link was ever made durable.
            let synced = Arc::new(AtomicUsize::new(0));
            let mut fates: VecDeque<_> = fates.into();
            let sees = Arc::clone(&synced);
            let hook = move |step| {
                let fate = fates.pop_front().unwrap_or(Fate::Go);
                if step == Step::SyncDirectory && matches!(fate, Fate::Go | Fate::FailAfter(_) | Fate::CrashAfter) {
                    sees.store(1, Ordering::SeqCst);
                }
                fate
            };
            let was_there = path.exists();
            let mut files = Files::with_hook(dir.path().to_owned(), Box::new(hook));
            let Ok(table) = table::load(&mut files) else { continue };
            let table = Mutex::new(table);
            let with = |act: &mut dyn FnMut(&mut Table)| act(&mut table.lock().unwrap());
            for _ in 0..3 {
                let asker = Asker { session: "ss-1", user: "alice", relay: "relay-0", at: opens() };
                let outcome = table::attempt(&mut files, &with, &wanted, &asker);
                if let Outcome::Made(_) = outcome {
                    prop_assert!(!files.dead() && path.exists());
                    sessions += 1;
                }
                if let Outcome::Uncertain(_) = outcome {
                    prop_assert!(files.dead() || table.lock().unwrap().look(&wanted).is_some());
                }
            }
            if power_cut && !was_there && synced.load(Ordering::SeqCst) == 0 {
                // A link that was not synced may be gone.
                let _ = std::fs::remove_file(&path);
            }
        }
        prop_assert!(sessions <= 1, "{sessions} sessions");
    }

    /// The same for places: never more than the limit at once in one life, and none lost for good.
    #[test]
    fn never_more_sessions_than_places(lives in prop::collection::vec(life(), 1..6)) {
        let dir = memory();
        let wanted = wanted(Limit::Places(2));
        for (fates, _) in lives {
            let mut fates: VecDeque<_> = fates.into();
            let hook = move |_| fates.pop_front().unwrap_or(Fate::Go);
            let mut files = Files::with_hook(dir.path().to_owned(), Box::new(hook));
            let Ok(table) = table::load(&mut files) else { continue };
            let table = Mutex::new(table);
            let with = |act: &mut dyn FnMut(&mut Table)| act(&mut table.lock().unwrap());
            let mut held = VecDeque::new();
            for turn in 0..12 {
                let asker = Asker { session: "ss-1", user: "alice", relay: "relay-0", at: opens() };
                match table::attempt(&mut files, &with, &wanted, &asker) {
                    Outcome::Made(token) => held.push_back(token),
                    Outcome::Taken(_) => prop_assert_eq!(held.len(), 2),
                    Outcome::Failed(_) => {}
                    Outcome::Uncertain(_) => prop_assert!(false, "a place is never uncertain"),
                }
                prop_assert!(held.len() <= 2);
                let names: BTreeSet<_> = held.iter().map(|token: &Token| token.index).collect();
                prop_assert_eq!(names.len(), held.len());
                if turn % 2 == 1 && let Some(token) = held.pop_front() {
                    table::release(&mut files, &with, &token);
                }
            }
        }
        // Nothing that happened stands in the way of an undisturbed life.
        let mut files = Files::new(dir.path().to_owned());
        let table = Mutex::new(table::load(&mut files).unwrap());
        let with = |act: &mut dyn FnMut(&mut Table)| act(&mut table.lock().unwrap());
        let asker = Asker { session: "ss-1", user: "alice", relay: "relay-0", at: opens() };
        for _ in 0..2 {
            let outcome = table::attempt(&mut files, &with, &wanted, &asker);
            prop_assert!(matches!(outcome, Outcome::Made(_)));
        }
    }
}
