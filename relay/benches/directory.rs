//! One edited window among 100,000 of a directory, from the file to the policy in force, as the relay
//! follows it: `just bench-policy`. Here time is what goes by, since threads and the kernel take part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench may"
)]

#[path = "../../commands/tests/manifests/mod.rs"]
mod manifests;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifests::{Manifests, window};
use tidegate_policy::model::{Label, ObjectKey};
use tidegate_relay::source::directory::{Started, start};
use tidegate_relay::source::{Feed, Policy};
use tidegate_relay::state::StateDir;
use tidegate_relay::supervisor::Supervisor;

const WINDOWS: usize = 100_000;
const EDITS: usize = 15;
/// A look is taken that long after the last change: `relay/src/source/pace.rs`.
const QUIET: Duration = Duration::from_millis(100);
/// What is kept for a restart is written beside; the next edit waits for the disk to be quiet again.
const BETWEEN: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(5);

fn name(n: usize) -> String {
    format!("window-{n}")
}

/// The windows of one file; the one in the middle has this case.
fn file(at: usize, per_file: usize, case: usize) -> String {
    let windows = (at * per_file..(at + 1) * per_file).map(|n| {
        let own = if n == at * per_file + per_file / 2 { case } else { 1 };
        window(&name(n), &own.to_string())
    });
    windows.collect::<Vec<_>>().join("---\n")
}

fn case(policy: &Policy, n: usize) -> Option<&str> {
    let label = |text: &str| Label::parse(text).unwrap();
    let key = ObjectKey { namespace: label("support"), name: label(&name(n)) };
    Some(&policy.snapshot.window(&key)?.case.as_ref()?.number)
}

async fn until(feed: &mut Feed, good: impl Fn(&Policy) -> bool) -> Arc<Policy> {
    let found = tokio::time::timeout(PATIENCE, feed.wait_for(|policy| good(policy))).await;
    Arc::clone(&found.expect("in time").expect("a source"))
}

async fn follow(per_file: usize) {
    let (manifests, state, supervisor) =
        (Manifests::new(), tempfile::tempdir().unwrap(), Supervisor::new());
    let path = |at: usize| manifests.path().join(format!("windows/{}/{at}.yaml", at % 100));
    for at in 0..WINDOWS / per_file {
        fs::create_dir_all(path(at).parent().unwrap()).unwrap();
        fs::write(path(at), file(at, per_file, 1)).unwrap();
    }
    let begun = Instant::now();
    let state = StateDir::open(&state.path().join("state")).unwrap();
    let Started { mut feed, reload } =
        start(manifests.path(), &state, None, &supervisor).await.unwrap();
    assert!(feed.borrow_and_update().snapshot.windows().count() >= WINDOWS);
    let first = begun.elapsed();
    println!("start: directory, files of {per_file}\t{:.1} s", first.as_secs_f64());
    let mut took = Vec::new();
    for turn in 0..EDITS {
        tokio::time::sleep(BETWEEN).await;
        let at = (turn * 37) % (WINDOWS / per_file);
        let number = 1_000 + turn;
        let new = manifests.path().join(".new");
        fs::write(&new, file(at, per_file, number)).unwrap();
        let edited = Instant::now();
        fs::rename(&new, path(at)).unwrap();
        let n = at * per_file + per_file / 2;
        until(&mut feed, |policy| case(policy, n) == Some(number.to_string().as_str())).await;
        took.push(edited.elapsed().saturating_sub(QUIET));
    }
    took.sort();
    let milliseconds = took[EDITS / 2].as_secs_f64() * 1e3;
    println!(
        "change: directory, from a file of {per_file} to what is in force\t{milliseconds:.2} ms"
    );
    drop((feed, reload));
    tokio::time::timeout(PATIENCE, supervisor.idle()).await.unwrap();
}

fn main() {
    // As `cargo bench` gives it, beside what is to be run.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.is_some_and(|wanted| !"change: directory".contains(&wanted)) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for per_file in [1_000, 100, 10] {
        runtime.block_on(follow(per_file));
    }
}
