//! Claims against an API server that fails before and after it commits, answers late, or not at all.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use axum::http::Method;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::super::tests::{alice, candidate, opens, session};
use super::*;
use crate::kube::mock::{Call, Fate, Mock};

const CLAIMS: &str = "supportclaims";

fn quick() -> Patience {
    Patience {
        request: Duration::from_millis(60),
        budget: Duration::from_millis(300),
        again: Duration::from_millis(5),
        release: Duration::from_secs(5),
        background: Duration::from_millis(50),
    }
}

fn replica(mock: &Mock, pod: &str) -> KubeClaims {
    KubeClaims::with(&mock.cluster(pod), &Supervisor::new(), quick())
}

/// Gives up on a request soon, and yet not on one that a busy machine is slow with.
fn steady(mock: &Mock, pod: &str) -> KubeClaims {
    let patience =
        Patience { request: Duration::from_secs(1), budget: Duration::from_secs(8), ..quick() };
    KubeClaims::with(&mock.cluster(pod), &Supervisor::new(), patience)
}

/// Patient enough for many at once on a busy machine.
fn patient(mock: &Mock, pod: &str) -> KubeClaims {
    let patience = Patience { release: Duration::from_secs(10), ..Patience::default() };
    KubeClaims::with(&mock.cluster(pod), &Supervisor::new(), patience)
}

async fn claim(claims: &KubeClaims, window: &Candidate) -> Claimed {
    claims.claim(window, session(), &alice(), opens()).await
}

fn creates(call: &Call) -> bool {
    call.method == Method::POST && call.plural == CLAIMS
}

#[tokio::test]
async fn a_one_time_window_is_used_once_by_all_replicas_and_for_all_time() {
    let mock = Mock::start().await;
    let (a, b) = (patient(&mock, "eu-a"), patient(&mock, "eu-b"));
    let window = candidate("w", opens(), true, Some(5));
    let Claimed::Taken(taken) = claim(&a, &window).await else { panic!() };
    assert!(taken.is_once());
    taken.release().await;
    // Given back, moved, by another replica, by a new process of the same pod: it stays used.
    let moved = candidate("w", opens() + jiff::SignedDuration::from_secs(1), true, None);
    for claims in [&a, &b, &patient(&mock, "eu-a")] {
        for window in [&window, &moved] {
            let used = claim(claims, window).await;
            let Claimed::Used { holder: Some(holder) } = used else { panic!("{used:?}") };
            assert_eq!(holder.user, "alice");
            assert!(matches!(claims.look(window), Some(Claimed::Used { holder: Some(_) })));
        }
    }
    assert!(matches!(claim(&a, &candidate("v", opens(), true, None)).await, Claimed::Taken(_)));
    assert!(matches!(claim(&a, &candidate("f", opens(), false, None)).await, Claimed::Free));
    let claim = &mock.all(CLAIMS)[0];
    assert_eq!(claim["spec"]["reusable"], false);
    assert_eq!(claim["spec"]["relayPod"], "eu-a");
    assert_eq!(claim["metadata"]["namespace"], "tidegate");
    assert_eq!(claim["spec"]["window"]["namespace"], "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_forty_at_once_no_more_than_the_limit_get_in() {
    let mock = Mock::start().await;
    let replicas = [patient(&mock, "eu-a"), patient(&mock, "eu-b")];
    let cases = [
        (candidate("once", opens(), true, None), 1),
        (candidate("one", opens(), false, Some(1)), 1),
        (candidate("seven", opens(), false, Some(7)), 7),
    ];
    for (window, most) in cases {
        let asked = (0..40).map(|i| claim(&replicas[i % 2], &window));
        let claimed = join_all(asked).await;
        let taken = claimed.iter().filter(|c| matches!(c, Claimed::Taken(_))).count();
        assert_eq!(taken, most, "{claimed:?}");
        let refused = |c: &&Claimed| matches!(c, Claimed::Used { .. } | Claimed::Full { .. });
        assert_eq!(claimed.iter().filter(refused).count(), 40 - most, "{claimed:?}");
        let names = mock.all(CLAIMS).len();
        drop(claimed);
        if !window.window.one_time {
            mock.until("places are given back", |m| m.all(CLAIMS).len() == names - most).await;
        }
    }
}

#[tokio::test]
async fn places_are_given_back_and_a_smaller_limit_counts_all_that_are_held() {
    let mock = Mock::start().await;
    let (a, b) = (patient(&mock, "eu-a"), patient(&mock, "eu-b"));
    let window = candidate("w", opens(), false, Some(3));
    let mut held = Vec::new();
    for claims in [&a, &b, &a] {
        let Claimed::Taken(taken) = claim(claims, &window).await else { panic!() };
        held.push(taken);
    }
    let Claimed::Full { holders } = claim(&b, &window).await else { panic!() };
    assert_eq!(holders.len(), 3);
    let fewer = candidate("w", opens(), false, Some(2));
    held.pop().unwrap().release().await;
    assert!(matches!(claim(&b, &fewer).await, Claimed::Full { .. }));
    held.pop().unwrap().release().await;
    let Claimed::Taken(again) = claim(&b, &fewer).await else { panic!() };
    assert!(matches!(claim(&a, &fewer).await, Claimed::Full { .. }));
    mock.until("the view knows", |_| matches!(a.look(&fewer), Some(Claimed::Full { .. }))).await;
    drop((held, again));
    mock.until("all are given back", |mock| mock.all(CLAIMS).is_empty()).await;
    mock.until("the view knows", |_| a.look(&fewer).is_none()).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_nothing() {
    // Done, and an error or nothing is answered: it is read back, and ours.
    for fate in
        [Fate::After(500), Fate::After(504), Fate::After(429), Fate::After(409), Fate::HangAfter]
    {
        for once in [true, false] {
            let mock = Mock::start().await;
            let claims = steady(&mock, "eu-a");
            let window = candidate("w", opens(), once, Some(1));
            let mut first = true;
            mock.fates(
                move |call| {
                    if creates(call) && std::mem::take(&mut first) { fate } else { Fate::Go }
                },
            );
            let claimed = claim(&claims, &window).await;
            assert!(matches!(claimed, Claimed::Taken(_)), "{fate:?} {once}: {claimed:?}");
            assert_eq!(mock.all(CLAIMS).len(), 1, "{fate:?} {once}");
        }
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_admits_nobody_and_uses_nothing_up() {
    let mock = Mock::start().await;
    let claims = steady(&mock, "eu-a");
    let windows = [candidate("o", opens(), true, None), candidate("p", opens(), false, Some(1))];
    for fate in
        [Fate::Before(500), Fate::Before(503), Fate::Before(429), Fate::Before(403), Fate::Hang]
    {
        mock.fates(move |_| fate);
        for window in &windows {
            let claimed = claim(&claims, window).await;
            assert!(matches!(claimed, Claimed::Away { .. }), "{fate:?}: {claimed:?}");
        }
    }
    // Refused when it is created: nothing was made.
    for code in [400, 403, 404, 422] {
        mock.fates(move |call| if creates(call) { Fate::Before(code) } else { Fate::Go });
        for window in &windows {
            let claimed = claim(&claims, window).await;
            assert!(matches!(claimed, Claimed::Away { .. }), "{code}: {claimed:?}");
        }
    }
    mock.fates(|_| Fate::Go);
    for window in &windows {
        assert!(matches!(claim(&claims, window).await, Claimed::Taken(_)));
    }
    // Nothing listens there at all.
    let nowhere = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let nowhere = crate::kube::cluster(nowhere, "tidegate", "eu-a").unwrap();
    let claims = KubeClaims::new(&nowhere, &Supervisor::new());
    let began = crate::clock::boot();
    for window in &windows {
        assert!(matches!(claim(&claims, window).await, Claimed::Away { .. }));
        let look = || matches!(claims.look(window), Some(Claimed::Away { .. }));
        mock.until("the view says so", |_| look()).await;
    }
    assert!(crate::clock::boot().since(began) < Duration::from_secs(2), "it is refused at once");
}

#[tokio::test]
async fn an_uncertain_one_time_window_is_used_and_an_uncertain_place_is_freed() {
    let mock = Mock::start().await;
    let claims = replica(&mock, "eu-a");
    let (once, place) =
        (candidate("o", opens(), true, None), candidate("p", opens(), false, Some(1)));
    // The first create is done, and from then on nobody answers.
    let silent = |mock: &Mock| {
        let mut done = false;
        mock.fates(move |call| match creates(call) {
            true if !done => {
                done = true;
                Fate::HangAfter
            }
            _ if done => Fate::Hang,
            _ => Fate::Go,
        });
    };
    // On a busy machine the read before it may be what takes too long.
    let uncertain = async |window| {
        loop {
            match claim(&claims, window).await {
                Claimed::Away { .. } => {}
                other => return assert!(matches!(other, Claimed::Uncertain { .. }), "{other:?}"),
            }
        }
    };
    silent(&mock);
    uncertain(&once).await;
    assert!(matches!(claims.look(&once), Some(Claimed::Used { .. })));
    assert!(matches!(claim(&claims, &once).await, Claimed::Used { .. }));
    mock.fates(|_| Fate::Go);
    let known = || matches!(claims.look(&once), Some(Claimed::Used { holder: Some(_) }));
    mock.until("the claim is found", |_| known()).await;

    while mock.all(CLAIMS).len() < 2 {
        silent(&mock);
        assert!(matches!(claim(&claims, &place).await, Claimed::Away { .. }));
    }
    mock.fates(|_| Fate::Go);
    mock.until("the place is freed", |mock| mock.all(CLAIMS).len() == 1).await;
    mock.until("it can be had", |_| claims.look(&place).is_none()).await;

    // Nothing was done, and it is not known: what was told is made true.
    let third = candidate("t", opens(), true, None);
    mock.fates(|call| if creates(call) { Fate::Hang } else { Fate::Go });
    uncertain(&third).await;
    mock.fates(|_| Fate::Go);
    let is_third = |claim: &Value| claim["spec"]["window"]["name"] == "t";
    mock.until("the claim is made", |mock| mock.all(CLAIMS).iter().any(is_third)).await;
    assert!(matches!(claim(&patient(&mock, "eu-b"), &third).await, Claimed::Used { .. }));
}

#[tokio::test]
async fn a_claim_that_lands_late_is_ours_or_freed() {
    let mock = Mock::start().await;
    let claims = steady(&mock, "eu-a");
    for (name, late, once) in [("a", 1300, true), ("b", 1300, false), ("c", 3000, false)] {
        let mut first = true;
        mock.fates(move |call| {
            if creates(call) && std::mem::take(&mut first) {
                Fate::Late(Duration::from_millis(late))
            } else {
                Fate::Go
            }
        });
        let window = candidate(name, opens(), once, Some(1));
        let Claimed::Taken(taken) = claim(&claims, &window).await else { panic!("{name}") };
        taken.release().await;
    }
    // The one that lands after all was over comes as a stranger of this pod.
    tokio::time::sleep(Duration::from_millis(3050)).await;
    mock.until("only the one-time claim is left", |mock| mock.all(CLAIMS).len() == 1).await;
}

#[tokio::test]
async fn a_start_frees_the_places_of_its_own_pod_alone() {
    let mock = Mock::start().await;
    let (before, other) = (patient(&mock, "eu-a"), patient(&mock, "eu-b"));
    let place = |name| candidate(name, opens(), false, Some(1));
    // As a crash leaves them: never dropped.
    std::mem::forget(claim(&before, &candidate("o", opens(), true, None)).await);
    std::mem::forget(claim(&before, &place("p")).await);
    let others = claim(&other, &place("q")).await;
    assert_eq!(mock.all(CLAIMS).len(), 3);
    let after = patient(&mock, "eu-a");
    mock.until("the place is freed", |mock| mock.all(CLAIMS).len() == 2).await;
    assert!(matches!(claim(&after, &place("p")).await, Claimed::Taken(_)));
    assert!(matches!(claim(&after, &place("q")).await, Claimed::Full { .. }));
    assert!(matches!(
        claim(&after, &candidate("o", opens(), true, None)).await,
        Claimed::Used { .. }
    ));
    drop(others);
}

#[tokio::test]
async fn who_gives_up_waiting_and_a_release_that_fails_leak_no_place() {
    let mock = Mock::start().await;
    let claims = patient(&mock, "eu-a");
    let window = candidate("w", opens(), false, Some(1));
    for _ in 0..20 {
        let mut asking = Box::pin(claim(&claims, &window));
        let polled = futures_util::poll!(&mut asking);
        drop((asking, polled));
    }
    // Those that are still under way are given back, each as it is made.
    let held = loop {
        if let Claimed::Taken(held) = claim(&claims, &window).await {
            break held;
        }
    };
    held.release().await;
    assert_eq!(mock.all(CLAIMS), [Value::Null; 0]);
    let failures = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failures);
    mock.fates(move |call| {
        let fails = call.method == Method::DELETE && count.fetch_add(1, Ordering::SeqCst) < 4;
        if fails { Fate::Before(500) } else { Fate::Go }
    });
    let Claimed::Taken(taken) = claim(&claims, &window).await else { panic!() };
    taken.release().await;
    assert_eq!(mock.all(CLAIMS), [Value::Null; 0]);
    // Whoever frees what nobody holds may have tried as well.
    assert!(failures.load(Ordering::SeqCst) >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waited_for_its_turn_has_all_of_its_time() {
    let mock = Mock::start().await;
    let patience = Patience {
        request: Duration::from_secs(3),
        budget: Duration::from_secs(4),
        ..Patience::default()
    };
    let claims = KubeClaims::with(&mock.cluster("eu-a"), &Supervisor::new(), patience);
    let last = candidate("last", opens(), true, None);
    let name = object::claim_name(&Wanted::of(&last).unwrap());
    // All turns are taken for three seconds. After them one second of four would be left, and the
    // answer to what is created takes longer.
    mock.fates(move |call| match &call.name {
        Some(read) if !call.watch && *read != name => Fate::Hang,
        None if creates(call) => Fate::Late(Duration::from_millis(1500)),
        _ => Fate::Go,
    });
    let hanging: Vec<_> =
        (0..AT_ONCE).map(|i| candidate(&format!("h{i}"), opens(), true, None)).collect();
    let asked = join_all(hanging.iter().map(|window| claim(&claims, window)));
    let (asked, last) = tokio::join!(asked, async {
        mock.until("all turns are taken", |_| claims.0.turns.available_permits() == 0).await;
        claim(&claims, &last).await
    });
    assert!(asked.iter().all(|claimed| matches!(claimed, Claimed::Away { .. })), "{asked:?}");
    assert!(matches!(last, Claimed::Taken(_)), "{last:?}");
}

fn fate(random: &mut StdRng) -> Fate {
    match random.random_range(0..14) {
        0 => Fate::Before(500),
        1 => Fate::Before(429),
        2 => Fate::Before(409),
        3 => Fate::After(500),
        4 => Fate::After(504),
        5 => Fate::Hang,
        6 => Fate::HangAfter,
        7 => Fate::Late(Duration::from_millis(random.random_range(10..400))),
        _ => Fate::Go,
    }
}

/// One life of a replica; dropped, it is dead at once with all it had under way.
struct Life {
    claims: KubeClaims,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Life {
    fn start(mock: &Mock, pod: &str) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let claims = {
            let _inside = runtime.enter();
            replica(mock, pod)
        };
        Self { claims, runtime: Some(runtime) }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whatever fails at whatever step, with two replicas that crash and start again: a one-time window
/// has one session at the most, and a place never two at once. Each seed is a schedule of its own.
#[tokio::test(flavor = "multi_thread")]
async fn never_two_sessions_for_a_one_time_window() {
    let seeds = std::env::var("CLAIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for batch in (0..seeds).collect::<Vec<u64>>().chunks(8) {
        join_all(batch.iter().map(|seed| schedule(*seed))).await;
    }
}

async fn schedule(seed: u64) {
    const PODS: [&str; 2] = ["eu-a", "eu-b"];
    let mock = Mock::start().await;
    let mut random = StdRng::seed_from_u64(seed);
    let mut fates = StdRng::seed_from_u64(seed ^ 0xFA7E);
    mock.fates(move |call| if call.watch || call.page { Fate::Go } else { fate(&mut fates) });
    let once = candidate("o", opens(), true, None);
    let place = candidate("p", opens(), false, Some(1));
    let mut replicas = PODS.map(|pod| Life::start(&mock, pod));
    let mut sessions = 0;
    // By the replica that holds it.
    let mut held: HashMap<usize, super::super::Claim> = HashMap::new();
    for _ in 0..6 {
        {
            let mut asked: FuturesUnordered<_> = [(0, &once), (1, &once), (0, &place), (1, &place)]
                .map(|(which, window)| {
                    let claims = replicas[which].claims.clone();
                    async move { (which, claim(&claims, window).await) }
                })
                .into_iter()
                .collect();
            // Whoever is not answered by then dies, or gives up.
            let patience = tokio::time::sleep(Duration::from_millis(random.random_range(5..600)));
            tokio::pin!(patience);
            loop {
                let next = tokio::select! {
                    next = asked.next() => next,
                    () = &mut patience => None,
                };
                let Some((which, claimed)) = next else { break };
                if let Claimed::Taken(taken) = claimed {
                    if taken.is_once() {
                        sessions += 1;
                    } else {
                        let before = held.insert(which, taken);
                        assert!(before.is_none() && held.len() == 1, "seed {seed}: two at a place");
                    }
                }
            }
        }
        assert!(sessions <= 1, "seed {seed}: {sessions} sessions of a one-time window");
        match random.random_range(0..3) {
            // A replica dies, and its sessions with it; the next container of its pod starts.
            0 => {
                let which = random.random_range(0..2);
                replicas[which].runtime.take().unwrap().shutdown_background();
                std::mem::forget(held.remove(&which));
                replicas[which] = Life::start(&mock, PODS[which]);
            }
            1 => held.clear(),
            _ => {}
        }
    }
    // Nothing that happened stands in the way for good.
    held.clear();
    mock.fates(|_| Fate::Go);
    mock.until("all places are freed", |mock| {
        mock.all(CLAIMS).iter().all(|claim| claim["spec"]["reusable"] == false)
    })
    .await;
    let last = loop {
        match claim(&replicas[0].claims, &once).await {
            // A busy machine.
            Claimed::Away { .. } => {}
            last => break last,
        }
    };
    assert!(matches!(last, Claimed::Taken(_) | Claimed::Used { .. }), "seed {seed}: {last:?}");
    assert!(sessions == 0 || matches!(last, Claimed::Used { .. }), "seed {seed}");
    loop {
        // One that was late may still be on its way out.
        match claim(&replicas[1].claims, &place).await {
            Claimed::Taken(_) => break,
            Claimed::Full { .. } | Claimed::Away { .. } => {}
            other => panic!("seed {seed}: {other:?}"),
        }
    }
}
