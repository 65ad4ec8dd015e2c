//! The policy source `directory`, with real files and inotify.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests"
)]

#[path = "../../commands/tests/manifests/mod.rs"]
mod manifests;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use manifests::{MESH, Manifests, relay, terminal, user, window};
use tempfile::TempDir;
use tidegate_crds::manifest::Severity;
use tidegate_policy::model::{Label, Login, ObjectKey, Window};
use tidegate_relay::clock::{Now, now};
use tidegate_relay::source::directory::{SourceError, Started, start};
use tidegate_relay::source::{Feed, Policy, current};
use tidegate_relay::state::StateDir;
use tidegate_relay::supervisor::Supervisor;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    manifests: Manifests,
    state: TempDir,
    supervisor: Supervisor,
}

impl Bench {
    fn new() -> Self {
        Self {
            manifests: Manifests::new(),
            state: tempfile::tempdir().unwrap(),
            supervisor: Supervisor::new(),
        }
    }

    async fn try_start(&self, relay: Option<&str>) -> Result<Started, SourceError> {
        let state = StateDir::open(&self.state.path().join("state")).unwrap();
        start(self.manifests.path(), &state, relay, &self.supervisor).await
    }

    async fn start(&self) -> Started {
        self.try_start(None).await.unwrap()
    }

    /// Ends a source, so that another may use the state directory.
    async fn stop(&self, started: Started) {
        drop(started);
        tokio::time::timeout(PATIENCE, self.supervisor.idle()).await.unwrap();
    }
}

fn key(name: &str) -> ObjectKey {
    let label = |text| Label::parse(text).unwrap();
    ObjectKey { namespace: label("support"), name: label(name) }
}

fn case(policy: &Policy, name: &str) -> Option<String> {
    Some(policy.snapshot.window(&key(name))?.case.as_ref()?.number.to_string())
}

/// Waits for a published policy that is as it should be.
async fn until(feed: &mut Feed, what: &str, good: impl Fn(&Policy) -> bool) -> Arc<Policy> {
    let found = tokio::time::timeout(PATIENCE, feed.wait_for(|policy| good(policy))).await;
    Arc::clone(&found.unwrap_or_else(|_| panic!("never: {what}")).unwrap())
}

/// Waits for a complete look that began after `since`.
async fn looked_since(feed: &Feed, since: Now) -> Arc<Policy> {
    let look = async {
        loop {
            let policy = current(feed);
            if policy.as_of.boot > since.boot {
                return policy;
            }
            // A look that changes nothing wakes nobody: there is nothing to await.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("no complete look")
}

fn later(by: i64) -> Now {
    let now = now();
    Now {
        wall: now.wall.checked_add(SignedDuration::from_secs(by)).unwrap(),
        boot: now.boot.plus(Duration::from_secs(u64::try_from(by).unwrap())),
    }
}

fn errors(policy: &Policy) -> Vec<String> {
    let errors = policy.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_additions_and_deletions_are_seen() {
    let bench = Bench::new();
    let Started { mut feed, .. } = bench.start().await;
    let first = current(&feed);
    assert_eq!(first.serial, 1);
    assert_eq!(errors(&first), Vec::<String>::new());
    assert_eq!(first.relay.name.as_str(), "eu");
    assert_eq!(first.relay.listeners, [5938, 80]);
    assert_eq!(case(&first, "berlin").as_deref(), Some("48213"));
    first.fresh(now()).unwrap();

    bench.manifests.write("windows/berlin.yaml", &window("berlin", "1"));
    until(&mut feed, "an edit", |p| case(p, "berlin").as_deref() == Some("1")).await;

    bench.manifests.write("new/deep/hamburg.yaml", &window("hamburg", "2"));
    until(&mut feed, "a file in new directories", |p| case(p, "hamburg").is_some()).await;
    bench.manifests.write("new/deep/hamburg.yaml", &window("hamburg", "3"));
    until(&mut feed, "an edit there", |p| case(p, "hamburg").as_deref() == Some("3")).await;

    fs::rename(bench.manifests.at("new"), bench.state.path().join("new")).unwrap();
    until(&mut feed, "a directory moved away", |p| case(p, "hamburg").is_none()).await;
    bench.manifests.remove("windows/berlin.yaml");
    until(&mut feed, "a deletion", |p| case(p, "berlin").is_none()).await;

    for name in ["mesh.yaml", "relay.yaml", "people/alice.yaml", "terminals/kiosk-17.yaml"] {
        bench.manifests.remove(name);
    }
    let last = until(&mut feed, "everything deleted", |p| p.snapshot.users().count() == 0).await;
    assert_eq!(last.relay.name.as_str(), "eu", "its settings stay");
    assert!(!errors(&last).is_empty());
    drop(feed);
    tokio::time::timeout(PATIENCE, bench.supervisor.idle()).await.unwrap();
    assert_eq!(bench.supervisor.panics(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_is_followed() {
    let bench = Bench::new();
    let root = bench.manifests.path();
    bench.manifests.remove("windows/berlin.yaml");
    let version = |name: &str, case: &str| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("berlin.yaml"), window("berlin", case)).unwrap();
    };
    version("..one", "1");
    symlink("..one", root.join("..data")).unwrap();
    symlink("..data/berlin.yaml", root.join("berlin.yaml")).unwrap();
    let Started { mut feed, .. } = bench.start().await;
    assert_eq!(case(&current(&feed), "berlin").as_deref(), Some("1"));
    version("..two", "2");
    symlink("..two", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    fs::remove_dir_all(root.join("..one")).unwrap();
    until(&mut feed, "the swap", |p| case(p, "berlin").as_deref() == Some("2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_directory_stays_fresh_and_wakes_nobody() {
    let bench = Bench::new();
    let Started { mut feed, reload } = bench.start().await;
    feed.mark_unchanged();
    let before = current(&feed);
    let asked = now();
    reload.now();
    let after = looked_since(&feed, asked).await;
    assert!(Arc::ptr_eq(&before.snapshot, &after.snapshot));
    assert_eq!(after.serial, before.serial);
    assert!(!feed.has_changed().unwrap());
    assert!(after.age(now()).unwrap() < before.age(now()).unwrap());
    after.fresh(later(299)).unwrap();
    let stale = after.fresh(later(400)).unwrap_err().to_string();
    assert!(stale.contains("the mesh allows 5m"), "{stale}");
    let earlier = Now { wall: before.as_of.wall - SignedDuration::from_hours(1), ..now() };
    assert_eq!(after.age(earlier), None);
    let stale = after.fresh(earlier).unwrap_err().to_string();
    assert!(stale.contains("clock"), "{stale}");
    assert!(stale.is_ascii() && stale.len() <= 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_file_keeps_its_objects_until_they_are_too_old() {
    let bench = Bench::new();
    bench.manifests.write("windows/hamburg.yaml", &window("hamburg", "2"));
    let Started { mut feed, .. } = bench.start().await;
    bench.manifests.write("windows/berlin.yaml", "kind: [");
    let broken = until(&mut feed, "the finding", |p| !p.kept.is_empty()).await;
    assert_eq!(case(&broken, "berlin").as_deref(), Some("48213"));
    assert!(errors(&broken)[0].starts_with("windows/berlin.yaml:"), "{:?}", errors(&broken));

    let parts = |policy: &Policy, name: &str| {
        let user = policy.snapshot.user(&Login::parse("alice").unwrap()).unwrap().clone();
        let terminal = policy.snapshot.terminal(&key("kiosk-17").name).unwrap().clone();
        let window: Arc<Window> = policy.snapshot.window(&key(name)).unwrap().clone();
        (user, terminal, window)
    };
    let admits = |policy: &Policy, name: &str, at: Now| {
        let (user, terminal, window) = parts(policy, name);
        policy.admits(at, &user, &terminal, &window)
    };
    admits(&broken, "berlin", now()).unwrap();
    // Six minutes later, the rest of the directory having been seen all the while.
    let then = later(360);
    let policy = Policy { as_of: then, ..(*broken).clone() };
    admits(&policy, "hamburg", then).unwrap();
    let stale = admits(&policy, "berlin", then).unwrap_err().to_string();
    assert!(stale.contains("support/berlin") && stale.contains("5m"), "{stale}");
    assert!(stale.is_ascii() && stale.len() <= 300);

    bench.manifests.write("windows/berlin.yaml", &window("berlin", "3"));
    let mended = until(&mut feed, "the mended file", |p| p.kept.is_empty()).await;
    assert_eq!(case(&mended, "berlin").as_deref(), Some("3"));
    assert_eq!(errors(&mended), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_revokes_nothing_and_ages() {
    let bench = Bench::new();
    let Started { mut feed, reload } = bench.start().await;
    let away = bench.state.path().join("away");
    fs::rename(bench.manifests.path(), &away).unwrap();
    let gone = until(&mut feed, "the loss", |p| p.unreadable.is_some()).await;
    assert!(case(&gone, "berlin").is_some());
    assert!(errors(&gone)[0].contains("cannot read the manifests"), "{:?}", errors(&gone));
    reload.now();
    gone.fresh(later(400)).unwrap_err();
    fs::rename(&away, bench.manifests.path()).unwrap();
    let back = until(&mut feed, "its return", |p| p.unreadable.is_none()).await;
    assert!(back.as_of.boot > gone.as_of.boot);
    assert!(case(&back, "berlin").is_some());
    // It is watched as before.
    bench.manifests.write("windows/berlin.yaml", &window("berlin", "7"));
    until(&mut feed, "an edit", |p| case(p, "berlin").as_deref() == Some("7")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_directory_goes_on_from_memory() {
    let bench = Bench::new();
    let started = bench.start().await;
    let before = current(&started.feed);
    bench.stop(started).await;
    let away = bench.state.path().join("away");
    fs::rename(bench.manifests.path(), &away).unwrap();

    let started = bench.start().await;
    let after = current(&started.feed);
    assert!(after.unreadable.is_some());
    assert_eq!(after.as_of, before.as_of, "its age survives");
    let uid = |policy: &Policy| policy.snapshot.window(&key("berlin")).unwrap().meta.uid.clone();
    assert_eq!(uid(&after), uid(&before));
    after.fresh(now()).unwrap();
    after.fresh(later(400)).unwrap_err();
    bench.stop(started).await;

    fs::rename(&away, bench.manifests.path()).unwrap();
    bench.manifests.remove("windows/berlin.yaml");
    let Started { feed, .. } = bench.start().await;
    assert_eq!(case(&current(&feed), "berlin"), None, "deleted while nobody looked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_comes_back_after_a_restart_is_seen_at_once() {
    let bench = Bench::new();
    let started = bench.start().await;
    bench.stop(started).await;
    let away = bench.state.path().join("away");
    fs::rename(bench.manifests.path(), &away).unwrap();
    let Started { mut feed, .. } = bench.start().await;
    assert!(current(&feed).unreadable.is_some());
    // Long before the look of each minute.
    fs::rename(&away, bench.manifests.path()).unwrap();
    until(&mut feed, "its return", |p| p.unreadable.is_none()).await;
    bench.manifests.remove("windows/berlin.yaml");
    until(&mut feed, "a deletion", |p| case(p, "berlin").is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_start_from_is_told_in_one_sentence() {
    let bench = Bench::new();
    bench.manifests.write("relay2.yaml", &relay("us"));
    let why = bench.try_start(None).await.unwrap_err().to_string();
    assert!(why.contains("--relay") && why.contains("support/eu, support/us"), "{why}");
    let started = bench.try_start(Some("us")).await.unwrap();
    assert_eq!(current(&started.feed).relay.name.as_str(), "us");
    bench.stop(started).await;

    let bench = Bench::new();
    let why = bench.try_start(Some("mars")).await.unwrap_err().to_string();
    assert!(why.contains("\"mars\"") && why.contains("support/eu"), "{why}");
    bench.manifests.remove("relay.yaml");
    let why = bench.try_start(None).await.unwrap_err().to_string();
    assert!(why.contains("no Relay"), "{why}");
    bench.manifests.remove("mesh.yaml");
    let why = bench.try_start(None).await.unwrap_err().to_string();
    assert!(why.contains("no Mesh"), "{why}");
    fs::remove_dir_all(bench.manifests.path()).unwrap();
    let why = bench.try_start(None).await.unwrap_err().to_string();
    assert!(why.contains("cannot read the manifests"), "{why}");
    fs::create_dir(bench.manifests.path()).unwrap();
}

/// Runs a shell loop in the manifests' directory until it has turned `turns` times.
fn shell_loop(manifests: &Manifests, turns: u32, body: &str) -> std::process::Child {
    let script = format!("set -e; i=0; while [ $i -lt {turns} ]; do {body}; i=$((i+1)); done");
    let null = Stdio::null;
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(manifests.path()).stdout(null()).stderr(null());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_of_cp_sed_and_git_checkout_cut_nobody() {
    let bench = Bench::new();
    let manifests = &bench.manifests;
    // Long enough that a copy is seen half done, with the window at its end.
    let padding = "# padding\n".repeat(40_000);
    let scratch = tempfile::tempdir().unwrap();
    for case in ["1", "2"] {
        let text = format!("{}---\n{padding}{}", window("first", case), window("copied", case));
        fs::write(scratch.path().join(case), text).unwrap();
    }
    manifests.write("copied.yaml", &fs::read_to_string(scratch.path().join("1")).unwrap());
    manifests.write("edited.yaml", &window("edited", "1"));
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
        let done = git.args(arguments).current_dir(manifests.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q", "-b", "one"]);
    fs::write(manifests.at(".git/info/exclude"), "copied.yaml\nedited.yaml\n").unwrap();
    for (branch, case) in [("one", "1"), ("two", "2")] {
        git(&["checkout", "-q", "-B", branch]);
        manifests.write("checked-out.yaml", &window("checked-out", case));
        manifests.write("more/checked-out.yaml", &window("deeper", case));
        git(&["add", "-A"]);
        git(&["commit", "-q", "-m", case]);
    }

    let Started { mut feed, .. } = bench.start().await;
    let windows = ["berlin", "first", "copied", "edited", "checked-out", "deeper"];
    let missing =
        move |policy: &Policy| windows.iter().find(|name| case(policy, name).is_none()).copied();
    assert_eq!(missing(&current(&feed)), None);
    let done = Arc::new(AtomicBool::new(false));
    let watching = {
        let (mut feed, done) = (feed.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut last = current(&feed).serial;
            let mut seen = 0;
            while !done.load(Ordering::Acquire) {
                feed.changed().await.unwrap();
                let policy = Arc::clone(&feed.borrow_and_update());
                assert!(policy.serial <= last + 1, "a policy went by unseen");
                last = policy.serial;
                assert_eq!(missing(&policy), None, "cut by policy {last}");
                seen += 1;
            }
            seen
        })
    };
    let source = scratch.path().display();
    let mut loops = [
        shell_loop(
            manifests,
            150,
            &format!("cp {source}/2 copied.yaml; cp {source}/1 copied.yaml"),
        ),
        shell_loop(manifests, 200, "sed -i 's/number: \"[0-9]*\"/number: \"'$i'\"/' edited.yaml"),
        shell_loop(manifests, 60, "git checkout -q one; git checkout -q two"),
    ];
    let loops = tokio::task::spawn_blocking(move || {
        loops.iter_mut().map(|child| child.wait().unwrap().success()).collect::<Vec<_>>()
    });
    let loops = tokio::time::timeout(PATIENCE, loops).await.expect("the loops hang").unwrap();
    assert_eq!(loops, [true; 3]);
    // What they left is what is in force.
    until(&mut feed, "the loops' last words", |p| {
        case(p, "copied").as_deref() == Some("1")
            && case(p, "edited").as_deref() == Some("199")
            && case(p, "deeper").as_deref() == Some("2")
    })
    .await;
    done.store(true, Ordering::Release);
    manifests.write("edited.yaml", &window("edited", "last"));
    let seen = tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
    assert!(seen > 1, "the loops were seen while they ran: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_holds_it_all_and_what_goes_from_it_is_revoked() {
    let bench = Bench::new();
    for name in
        ["relay.yaml", "people/alice.yaml", "terminals/kiosk-17.yaml", "windows/berlin.yaml"]
    {
        bench.manifests.remove(name);
    }
    let both = |windows: &[&str]| {
        let windows: Vec<String> = windows.iter().map(|name| window(name, "1")).collect();
        [&[MESH.to_owned(), relay("eu"), user(), terminal()], &windows[..]].concat().join("---\n")
    };
    bench.manifests.write("mesh.yaml", &both(&["berlin", "hamburg"]));
    let Started { mut feed, .. } = bench.start().await;
    assert!(case(&current(&feed), "hamburg").is_some());
    bench.manifests.write("mesh.yaml", &both(&["berlin"]));
    let after = until(&mut feed, "the revocation", |p| case(p, "hamburg").is_none()).await;
    assert!(case(&after, "berlin").is_some());
}
