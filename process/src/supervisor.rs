//! The only place that spawns a task: every task has a name, is counted, and its panic is noticed.
//!
//! A panic ends the task that panicked and nothing else (DESIGN.md section 8). A *critical* task is
//! one without which the relay must not run on, such as the sweeper of deadlines: when one ends,
//! [`Supervisor::failed`] resolves, and the process is to end with that error.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// Why the process cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program stops, since its task '{task}' {}", if *.panicked { "panicked" } else { "ended" })]
pub struct Failure {
    pub task: &'static str,
    pub panicked: bool,
}

#[derive(Debug)]
struct Inner {
    tasks: AtomicUsize,
    panics: AtomicU64,
    /// Told whenever the last task has ended.
    idle: Notify,
    failure: watch::Sender<Option<Failure>>,
    /// That of the first task, so that later ones may be spawned from any thread.
    runtime: OnceLock<Handle>,
}

/// Spawns tasks and knows how many live. Clones share everything. The first task must be spawned
/// within the runtime, later ones from any thread.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Inner>);

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            tasks: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
            idle: Notify::new(),
            failure: watch::Sender::new(None),
            runtime: OnceLock::new(),
        }))
    }

    /// Runs `future` on its own. `name` is a short noun for the logs, never a user's or a peer's.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, future, false);
    }

    /// Runs a task without which the relay must not run: its end, panic or not, is a [`Failure`].
    pub fn critical<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, future, true);
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    fn start<F>(&self, name: &'static str, future: F, critical: bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Ok(current) = Handle::try_current() {
            let _ = self.0.runtime.set(current);
        }
        let Some(runtime) = self.0.runtime.get() else {
            tracing::error!(task = name, "a task was not started, since there is no runtime");
            return;
        };
        let counted = Counted::new(self.clone());
        runtime.spawn(async move {
            let supervisor = &counted.0;
            let panicked = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(()) => false,
                Err(payload) => {
                    supervisor.panicked(name, &*payload);
                    // A payload's own destructor may panic; it is not worth a task.
                    std::mem::forget(payload);
                    true
                }
            };
            if critical {
                tracing::error!(task = name, panicked, "a task that the program needs has ended");
                supervisor.0.failure.send_if_modified(|failure| {
                    let first = failure.is_none();
                    failure.get_or_insert(Failure { task: name, panicked });
                    first
                });
            }
        });
    }

    /// Counts a panic that was caught elsewhere, in a task of a library that is run by `name`.
    pub fn panicked(&self, name: &'static str, payload: &(dyn std::any::Any + Send)) {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(task = name, panic = text.unwrap_or("not a text"), "a task panicked");
    }

    /// How many tasks live.
    pub fn tasks(&self) -> usize {
        self.0.tasks.load(Ordering::Acquire)
    }

    /// How many tasks have panicked since the start.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    /// Resolves when the first critical task has ended.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.0.failure.subscribe();
        loop {
            if let Some(failure) = *failure.borrow_and_update() {
                return failure;
            }
            if failure.changed().await.is_err() {
                // Not reached: `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves when no task lives, at that instant.
    pub async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.tasks() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// One task, from before it is spawned until its future is gone, however that happens.
struct Counted(Supervisor);

impl Counted {
    fn new(supervisor: Supervisor) -> Self {
        supervisor.0.tasks.fetch_add(1, Ordering::AcqRel);
        Self(supervisor)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.0.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn counts_and_waits() {
        let supervisor = Supervisor::new();
        let (go, wait) = oneshot::channel::<()>();
        supervisor.spawn("one", async move { drop(wait.await) });
        supervisor.spawn("two", async {});
        assert!(supervisor.tasks() >= 1);
        go.send(()).unwrap();
        supervisor.idle().await;
        assert_eq!((supervisor.tasks(), supervisor.panics()), (0, 0));
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_alone() {
        let supervisor = Supervisor::new();
        let (go, wait) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel::<u8>();
        supervisor.spawn("neighbour", async move {
            drop(wait.await);
            tell.send(7).unwrap();
        });
        supervisor.spawn("broken", async { panic!("on purpose") });
        while supervisor.panics() == 0 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        assert_eq!(told.await, Ok(7));
        supervisor.idle().await;
        assert_eq!(supervisor.panics(), 1);
    }

    #[tokio::test]
    async fn the_end_of_a_critical_task_is_told() {
        for panics in [false, true] {
            let supervisor = Supervisor::new();
            supervisor.critical("sweeper", async move { assert!(!panics, "on purpose") });
            let failure = supervisor.failed().await;
            assert_eq!(failure, Failure { task: "sweeper", panicked: panics });
            assert!(
                failure.to_string().starts_with("the program stops, since its task 'sweeper' ")
            );
        }
    }
}
