//! Writes what the directory source remembers, on a thread of its own: a disk that is slow must not
//! hold up the look that sees a revocation (invariant 3).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::remember;
use crate::state::StateDir;

/// Makes the form of the file: of 100,000 windows that takes a second, in which no look waits.
pub type Form = Box<dyn FnOnce() -> serde_json::Result<Vec<u8>> + Send>;

/// What is to be written.
struct Keep {
    policy: Option<Form>,
    seen: Vec<u8>,
}

/// The thread's other end. Dropping it waits until what was asked for is written.
#[derive(Debug)]
pub struct Keeper {
    queue: Option<Sender<Keep>>,
    failed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub fn start(state: StateDir) -> std::io::Result<Self> {
        let (queue, work) = channel();
        let failed = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&failed);
        let thread = Builder::new()
            .name("policy keeper".to_owned())
            .spawn(move || run(&state, &work, &tell))?;
        Ok(Self { queue: Some(queue), failed, thread: Some(thread) })
    }

    /// Asks for `policy`, where it changed, and then for `seen` to be written. Never waits.
    pub fn keep(&self, policy: Option<Form>, seen: Vec<u8>) {
        let asked =
            self.queue.as_ref().is_some_and(|queue| queue.send(Keep { policy, seen }).is_ok());
        if !asked {
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Whether something could not be written since this was last asked; all of it is to be kept anew.
    pub fn failed(&self) -> bool {
        self.failed.swap(false, Ordering::AcqRel)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(state: &StateDir, work: &Receiver<Keep>, failed: &AtomicBool) {
    while let Ok(mut keep) = work.recv() {
        // Only the newest of each matters.
        while let Ok(newer) = work.try_recv() {
            keep.policy = newer.policy.or(keep.policy);
            keep.seen = newer.seen;
        }
        if let Err(error) = write(state, keep) {
            tracing::error!(%error, "the policy in force cannot be kept for a restart");
            failed.store(true, Ordering::Release);
        }
    }
}

fn write(state: &StateDir, keep: Keep) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(form) = keep.policy {
        remember::write_policy(state, &form()?)?;
    }
    // That a policy was seen is written only after that policy.
    Ok(remember::write_seen(state, &keep.seen)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_written_before_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let keeper = Keeper::start(state.clone()).unwrap();
        for n in 0..20 {
            let policy: Form = Box::new(move || Ok(format!("policy {n}").into_bytes()));
            let policy = (n % 2 == 0).then_some(policy);
            keeper.keep(policy, format!("seen {n}").into_bytes());
        }
        assert!(!keeper.failed());
        drop(keeper);
        let read = |name: &str| std::fs::read_to_string(state.root().join(name)).unwrap();
        assert_eq!(read("policy.json"), "policy 18");
        assert_eq!(read("policy-seen.json"), "seen 19");
    }

    #[test]
    fn what_cannot_be_written_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        std::fs::create_dir(state.root().join("policy.json")).unwrap();
        let keeper = Keeper::start(state.clone()).unwrap();
        keeper.keep(Some(Box::new(|| Ok(b"policy".to_vec()))), b"seen".to_vec());
        let Keeper { failed, .. } = &keeper;
        let failed = Arc::clone(failed);
        drop(keeper);
        assert!(failed.load(Ordering::Acquire));
        assert!(!state.root().join("policy-seen.json").exists(), "seen before it was kept");
    }
}
