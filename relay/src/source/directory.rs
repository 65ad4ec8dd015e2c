//! The policy source `directory`: GitOps with no cluster. The same YAML, defaults and rules as in a
//! cluster; a complete look is age 0, and a look is taken 100 ms after the last change (400 ms after
//! the first at most), on demand (SIGHUP), every minute, and when a clock was stepped.
//!
//! Looks run on a blocking thread. A new policy is published before it is written down: a revocation
//! never waits for the disk.

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tidegate_commands::Place;
use tidegate_commands::known::{self, CHECK};
use tidegate_commands::manifests::load;
use tidegate_crds::assemble::{Assembled, Inputs, Memory, assemble, revise};
use tidegate_crds::compile::RelaySettings;
use tidegate_crds::manifest::Finding;
use tidegate_policy::snapshot::Snapshot;
use tokio::sync::{Notify, mpsc, watch as feed};

use super::keeper::{Form, Keeper};
use super::look::{Files, LookError, MAX_FINDINGS};
use super::pace::{Pace, SECOND_LOOK};
use super::remember::{self, Instant, RememberError, Remembered};
use super::watch::Watch;
use super::{Feed, Policy, Reload, Told, Unreadable, about};
use crate::clock::{self, Now};
use crate::state::StateDir;
use crate::supervisor::Supervisor;

/// The most looks before the first policy is published.
const FIRST_LOOKS: u32 = 8;
/// Between changes, that a look was complete is written down this often: after a restart the policy
/// reads older by as much.
const SEEN_EVERY: Duration = Duration::from_secs(10);

/// Why there is no policy to start with. Each is a sentence for whoever runs the relay.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Directory(#[from] LookError),
    #[error(transparent)]
    Remembered(#[from] RememberError),
    #[error("the path {path} cannot be made absolute: {error}")]
    Path { path: PathBuf, error: std::io::Error },
    #[error("the thread that keeps the policy cannot be started: {0}")]
    Keeper(std::io::Error),
    #[error(
        "the manifests in {path} hold no Mesh that can be used, and a relay needs one; \
         `tidegate-relay check {path}` lists what is wrong"
    )]
    NoMesh { path: PathBuf, findings: Vec<Finding> },
    #[error("{why}")]
    NoRelay { why: String, findings: Vec<Finding> },
    #[error("the reading of the manifests was stopped")]
    Stopped,
}

impl SourceError {
    /// What is wrong with the manifests, where they could be read.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::NoMesh { findings, .. } | Self::NoRelay { findings, .. } => findings,
            _ => &[],
        }
    }
}

/// A running source.
#[derive(Debug)]
pub struct Started {
    pub feed: Feed,
    pub reload: Reload,
}

/// Reads the manifests below `directory` and follows them for as long as somebody holds the feed.
/// Where the directory cannot be read, the policy that the state directory remembers is in force,
/// with its age. `relay` names the Relay that this process is, as `name` or `namespace/name`; it may
/// be left out where there is one only.
pub async fn start(
    directory: &Path,
    state: &StateDir,
    relay: Option<&str>,
    supervisor: &Supervisor,
) -> Result<Started, SourceError> {
    let path = directory.to_path_buf();
    let root = std::path::absolute(directory)
        .map_err(|error| SourceError::Path { path: path.clone(), error })?;
    let (watch, events) = Watch::new(&root);
    let relay = relay.map(str::to_owned);
    let state = state.clone();
    let first = move || Source::first(path, root, state, relay, watch);
    let (source, receiver) =
        tokio::task::spawn_blocking(first).await.map_err(|_| SourceError::Stopped)??;
    let reload = Reload(Arc::new(Notify::new()));
    let following = follow(source, events, Arc::clone(&reload.0));
    let owner = supervisor.clone();
    supervisor.spawn("policy source", async move {
        // Its end is a failure only if it is a panic: without the source no revocation is seen.
        if let Err(panic) = AssertUnwindSafe(following).catch_unwind().await {
            owner.critical("policy source", async move { resume_unwind(panic) });
        }
    });
    Ok(Started { feed: receiver, reload })
}

/// Looks when it is time to, until nobody holds the feed any more.
async fn follow(mut source: Source, mut events: mpsc::Receiver<()>, reload: Arc<Notify>) {
    let mut pace = Pace::new(clock::now());
    pace.watched = source.hears();
    pace.admits_up_to(source.policy.most());
    let published = source.publisher.clone();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(()) => pace.change(clock::now()),
                // The watcher is gone; regular looks go on.
                None => tokio::time::sleep(pace.wait(clock::now())).await,
            },
            () = reload.notified() => pace.ask(),
            () = tokio::time::sleep(pace.wait(clock::now())) => {}
            () = published.closed() => return,
        }
        let now = clock::now();
        let Some(settled) = pace.due(now) else { continue };
        let look = move || {
            let again = source.look(now, settled);
            (source, again)
        };
        let again;
        (source, again) = match tokio::task::spawn_blocking(look).await {
            Ok(looked) => looked,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime is being shut down.
            Err(_) => return,
        };
        pace.looked(now, again);
        pace.watched = source.hears();
        pace.admits_up_to(source.policy.most());
    }
}

/// All that looks work on.
struct Source {
    /// As it was given, for people.
    path: PathBuf,
    root: PathBuf,
    relay_name: Option<String>,
    watch: Watch,
    files: Files,
    memory: Memory,
    assembled: Assembled,
    policy: Policy,
    publisher: feed::Sender<Arc<Policy>>,
    /// What was last said about the findings, to say each once.
    told: Told,
    boot_id: Option<String>,
    keeper: Keeper,
    /// What was published since was not given to the keeper yet.
    unsaved: bool,
    seen_saved: Option<Now>,
}

impl Source {
    /// The first policy: from the directory, or from memory where the directory cannot be read.
    fn first(
        path: PathBuf,
        root: PathBuf,
        state: StateDir,
        relay_name: Option<String>,
        mut watch: Watch,
    ) -> Result<(Self, Feed), SourceError> {
        let boot_id = remember::boot_id();
        let (remembered, seen) = remember::load(&state)?;
        let remembers = remembered.is_some();
        let remembered = remembered.unwrap_or_default();
        let unreadable = remembered.unreadable.into_iter();
        let unreadable = unreadable.map(|(file, since)| (file, since.now(boot_id.as_deref())));
        let mut files = Files::new(&root, remembered.in_force, unreadable.collect());
        let mut now = clock::now();
        let mut outcome = files.look(now, true);
        for _ in 1..FIRST_LOOKS {
            let Ok(look) = &outcome else { break };
            let unwatched = watch.follow(&root, &look.directories);
            if !look.again && !unwatched {
                break;
            }
            if look.again {
                std::thread::sleep(SECOND_LOOK);
            }
            now = clock::now();
            outcome = files.look(now, true);
        }
        let mut memory = remembered.memory;
        let assembled = build(&mut files, &mut memory, None, now, &mut new_uid);
        let (as_of, unreadable) = match (outcome, seen) {
            (Ok(look), _) if look.complete => (now, None),
            (Ok(_), Some(seen)) => (seen.now(boot_id.as_deref()), None),
            (Ok(_), None) => return Err(files.incomplete().into()),
            (Err(error), Some(seen)) if remembers => {
                let why = error.to_string();
                (seen.now(boot_id.as_deref()), Some(Unreadable { since: now, why }))
            }
            (Err(error), _) => return Err(error.into()),
        };
        let findings = findings(&assembled, &files, unreadable.as_ref());
        let Some(snapshot) = assembled.snapshot.clone() else {
            return Err(SourceError::NoMesh { path, findings });
        };
        let relay = match pick(&assembled.relays, relay_name.as_deref(), &path) {
            Ok(relay) => relay.clone(),
            Err(why) => return Err(SourceError::NoRelay { why, findings }),
        };
        let policy = Policy {
            serial: 1,
            snapshot: Arc::new(snapshot),
            relay: Arc::new(relay),
            findings: findings.into(),
            as_of,
            unreadable,
            kept: Arc::new(files.kept()),
        };
        let (publisher, receiver) = feed::channel(Arc::new(policy.clone()));
        let keeper = Keeper::start(state).map_err(SourceError::Keeper)?;
        let mut source = Self {
            path,
            root,
            relay_name,
            watch,
            files,
            memory,
            assembled,
            policy,
            publisher,
            told: Told::default(),
            boot_id,
            keeper,
            unsaved: true,
            seen_saved: None,
        };
        source.tell();
        if source.policy.unreadable.is_none() {
            source.save();
        }
        Ok((source, receiver))
    }

    /// Whether changes are announced. What cannot be looked at is not watched: it, or what holds it,
    /// may come back without a word.
    fn hears(&self) -> bool {
        self.watch.works() && self.policy.unreadable.is_none()
    }

    /// Looks once at `now`; whether a second look is needed soon.
    fn look(&mut self, now: Now, settled: bool) -> bool {
        let mut look = self.files.look(now, settled);
        if let Ok(found) = &mut look
            && self.watch.follow(&self.root, &found.directories)
        {
            // What happened there before it was watched is seen by another look.
            let changed = found.changed;
            look = self.files.look(now, settled);
            if let Ok(found) = &mut look {
                found.changed |= changed;
            } else if changed {
                self.rebuild(now);
            }
        }
        match look {
            Ok(look) => {
                let recovered = self.policy.unreadable.take().is_some();
                if look.complete {
                    self.policy.as_of = now;
                }
                if look.changed || recovered {
                    self.rebuild(now);
                } else {
                    self.publish(false);
                }
                self.save();
                look.again
            }
            Err(error) => {
                let why = error.to_string();
                let before = self.policy.unreadable.as_ref();
                if before.is_none_or(|before| before.why != why) {
                    let since = before.map_or(now, |before| before.since);
                    self.policy.unreadable = Some(Unreadable { since, why });
                    self.rebuild(now);
                }
                false
            }
        }
    }

    /// Makes the policy anew from what is in force, and publishes it.
    fn rebuild(&mut self, now: Now) {
        let before = Some(&self.assembled);
        self.assembled = build(&mut self.files, &mut self.memory, before, now, &mut new_uid);
        let unreadable = self.policy.unreadable.as_ref();
        let mut findings = findings(&self.assembled, &self.files, unreadable);
        // No Mesh, which is a finding: nobody is let in, and every session is cut.
        let empty = || Snapshot::new(self.policy.snapshot.mesh().clone());
        let snapshot = self.assembled.snapshot.clone().unwrap_or_else(empty);
        self.policy.snapshot = Arc::new(snapshot);
        match pick(&self.assembled.relays, self.relay_name.as_deref(), &self.path) {
            Ok(relay) => self.policy.relay = Arc::new(relay.clone()),
            Err(why) => {
                let why = format!("{why}; the settings of before stay in force");
                findings.push(about(why));
            }
        }
        self.policy.findings = findings.into();
        self.policy.kept = Arc::new(self.files.kept());
        self.unsaved = true;
        self.publish(true);
        self.tell();
    }

    fn publish(&mut self, wake: bool) {
        self.policy.serial += u64::from(wake);
        let policy = Arc::new(self.policy.clone());
        self.publisher.send_if_modified(|published| {
            *published = policy;
            wake
        });
    }

    /// Has what is not yet written down be written, without waiting for it.
    fn save(&mut self) {
        if self.keeper.failed() {
            self.unsaved = true;
        }
        let boot_id = self.boot_id.as_deref();
        let due = self.seen_saved.is_none_or(|saved| {
            self.policy.as_of.boot.since(saved.boot) >= SEEN_EVERY
                || self.policy.as_of.wall < saved.wall
        });
        if !self.unsaved && !due {
            return;
        }
        let policy = self.unsaved.then(|| {
            let unreadable = self.files.unreadable();
            let remembered = Remembered {
                memory: self.memory.clone(),
                in_force: self.files.in_force_files().clone(),
                unreadable: unreadable
                    .into_iter()
                    .map(|(file, since)| (file, Instant::of(since, boot_id)))
                    .collect(),
            };
            let form: Form = Box::new(move || remember::policy_bytes(&remembered));
            form
        });
        match remember::seen_bytes(&Instant::of(self.policy.as_of, boot_id)) {
            Ok(seen) => {
                self.keeper.keep(policy, seen);
                self.unsaved = false;
                self.seen_saved = Some(self.policy.as_of);
            }
            Err(error) => {
                tracing::error!(%error, "the policy in force cannot be kept for a restart");
            }
        }
    }

    /// Logs each finding when it appears, and how many went.
    fn tell(&mut self) {
        self.told.tell(&self.policy);
    }
}

fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// What is in force means; `before`: what it meant, which spares the work where windows alone changed.
fn build(
    files: &mut Files,
    memory: &mut Memory,
    before: Option<&Assembled>,
    now: Now,
    new_uid: &mut dyn FnMut() -> String,
) -> Assembled {
    let edits = files.edits();
    let revised = before
        .zip(edits)
        .and_then(|(before, edits)| revise(before, memory, &edits, now.wall, new_uid));
    let (assembled, next) = revised.unwrap_or_else(|| {
        let in_force = files.in_force();
        let inputs = Inputs {
            documents: &in_force.documents,
            refused: &in_force.refused,
            kept_files: &in_force.kept_files,
        };
        assemble(&inputs, memory, now.wall, new_uid)
    });
    *memory = next;
    assembled
}

/// Everything that is wrong, in the order of files and lines, a bounded number of it.
fn findings(assembled: &Assembled, files: &Files, unreadable: Option<&Unreadable>) -> Vec<Finding> {
    let mut findings = files.findings();
    findings.extend_from_slice(&assembled.findings);
    load::sort(&mut findings);
    if findings.len() > MAX_FINDINGS {
        let more = findings.len() - MAX_FINDINGS;
        findings.truncate(MAX_FINDINGS);
        findings.push(about(format!("{more} more findings are not shown")));
    }
    if let Some(unreadable) = unreadable {
        findings.insert(0, about(unreadable.why.clone()));
    }
    findings
}

/// The Relay that this process is.
fn pick<'a>(
    relays: &'a [RelaySettings],
    wanted: Option<&str>,
    path: &Path,
) -> Result<&'a RelaySettings, String> {
    known::pick(relays, wanted, &Place::Manifests { directory: path.into(), check: CHECK })
}
