//! Where policy comes from. A source publishes the latest [`Policy`] on a [`Feed`]; whoever decides
//! takes the one that is there and asks it whether it is fresh enough to admit somebody new.
//!
//! Invariant 3: a running session goes on without a source, a new one is admitted only from policy
//! younger than the mesh's `maxPolicyAge`. The age counts from the last complete look at the source,
//! by whichever of the two clocks says more, and survives a restart.

pub mod directory;
mod keeper;
pub mod kube;
mod look;
mod pace;
pub(crate) mod remember;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_crds::compile::RelaySettings;
use tidegate_crds::manifest::{Finding, Kind, ObjectRef, Rule, Severity};
use tidegate_policy::model::{LoginUser, ObjectKey, Terminal, Window};
use tidegate_policy::snapshot::Snapshot;
use tokio::sync::Notify;

use crate::clock::Now;
use crate::sentences::duration;

/// The latest policy. `changed()` wakes when snapshot, relay or findings changed; that a look found
/// everything as before moves `as_of` without waking anybody.
pub type Feed = tokio::sync::watch::Receiver<Arc<Policy>>;

/// The policy of now, to be held for one decision.
pub fn current(feed: &Feed) -> Arc<Policy> {
    Arc::clone(&feed.borrow())
}

/// Asks a running source for a look now, as SIGHUP does.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// What a replica decides from, and how well it is known.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Counts the policies of this process, from 1: two with the same number differ in `as_of` alone.
    pub serial: u64,
    pub snapshot: Arc<Snapshot>,
    /// The Relay that this process is.
    pub relay: Arc<RelaySettings>,
    /// What is wrong with the source at present, in the order of files and lines.
    pub findings: Arc<[Finding]>,
    /// The beginning of the last complete look at the source; of a cluster, the last sign of life of
    /// the watch that has been silent for the longest.
    pub as_of: Now,
    /// Since when, and why, the source cannot be looked at.
    pub unreadable: Option<Unreadable>,
    /// Objects that stay in force though their file cannot be read any more.
    pub kept: Arc<BTreeMap<ObjectRef, Kept>>,
}

/// A source that cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub since: Now,
    /// One sentence for whoever runs the relay; it names the directory.
    pub why: String,
}

/// An object whose file is empty or cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Relative name of the file.
    pub file: Arc<str>,
    /// When the file was last known to hold it.
    pub since: Now,
}

/// Why policy does not admit anybody new: one sentence that staff may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Stale(pub String);

impl Policy {
    /// Time since the last complete look, by the clock that says more; `None` where the wall clock
    /// stands before it, so that nothing is known.
    pub fn age(&self, now: Now) -> Option<Duration> {
        age(self.as_of, now)
    }

    /// Whether anybody new may be admitted at all.
    pub fn fresh(&self, now: Now) -> Result<(), Stale> {
        let most = self.most();
        match self.age(now) {
            None => Err(Stale(
                "the relay's clock stands before its last look at the policy, so nobody new is let in; \
                 ask the relay's operator to set the clock"
                    .into(),
            )),
            Some(age) if age > most => Err(Stale(format!(
                "the relay last saw its policy {} ago and the mesh allows {}, so nobody new is let in; \
                 ask the relay's operator",
                duration(age),
                duration(most)
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Whether these three may still be trusted for somebody new: [`Policy::fresh`], and none of the
    /// objects that the decision rests on was kept for longer than `maxPolicyAge` from a file that
    /// cannot be read. To be asked after `decide`, for the candidate that is about to be claimed.
    pub fn admits(
        &self,
        now: Now,
        user: &LoginUser,
        terminal: &Terminal,
        window: &Window,
    ) -> Result<(), Stale> {
        self.fresh(now)?;
        self.unstale(now, Kind::Mesh, &self.snapshot.mesh().meta.key)?;
        self.unstale(now, Kind::LoginUser, &user.meta.key)?;
        self.unstale(now, Kind::Terminal, &terminal.meta.key)?;
        self.unstale(now, Kind::SupportWindow, &window.meta.key)?;
        for object in [&user.meta.key, &terminal.meta.key, &window.meta.key] {
            self.known(now, &namespace(object.namespace.as_str()))?;
        }
        Ok(())
    }

    /// Whether one object may still be trusted for somebody new; see [`Policy::admits`].
    pub fn unstale(&self, now: Now, kind: Kind, key: &ObjectKey) -> Result<(), Stale> {
        if self.kept.is_empty() {
            return Ok(());
        }
        self.known(
            now,
            &ObjectRef { kind, namespace: key.namespace.to_string(), name: key.name.to_string() },
        )
    }

    fn known(&self, now: Now, object: &ObjectRef) -> Result<(), Stale> {
        let Some(kept) = self.kept.get(object) else { return Ok(()) };
        let most = self.most();
        match age(kept.since, now) {
            Some(age) if age <= most => Ok(()),
            age => {
                let long = age.map_or_else(|| "some time".into(), duration);
                Err(Stale(format!(
                    "the manifest of {object} has been unreadable for {long} and the mesh allows {}; \
                     ask the relay's operator",
                    duration(most)
                )))
            }
        }
    }

    /// The age up to which it admits.
    fn most(&self) -> Duration {
        Duration::try_from(self.snapshot.mesh().max_policy_age).unwrap_or(Duration::ZERO)
    }
}

/// A finding about the whole source.
fn about(message: String) -> Finding {
    Finding {
        position: None,
        object: None,
        field: None,
        rule: Rule::Unreadable,
        message,
        severity: Severity::Error,
    }
}

/// What was last said about the findings, to say each once.
#[derive(Debug, Default)]
struct Told(BTreeSet<String>);

impl Told {
    /// Logs each finding when it appears, and how many went.
    fn tell(&mut self, policy: &Policy) {
        let now: BTreeSet<String> = policy.findings.iter().map(ToString::to_string).collect();
        for finding in policy.findings.iter() {
            let text = finding.to_string();
            if self.0.contains(&text) {
                continue;
            }
            match finding.severity {
                Severity::Error => tracing::warn!(rule = %finding.rule, "{text}"),
                Severity::Note => tracing::info!(rule = %finding.rule, "{text}"),
            }
        }
        let gone = self.0.difference(&now).count();
        if gone > 0 {
            tracing::info!(gone, left = now.len(), "findings in the manifests went");
        }
        self.0 = now;
        let snapshot = &policy.snapshot;
        tracing::info!(
            users = snapshot.users().count(),
            terminals = snapshot.terminals().count(),
            windows = snapshot.windows().count(),
            findings = policy.findings.len(),
            "policy in force"
        );
    }
}

fn namespace(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Namespace, namespace: String::new(), name: name.into() }
}

fn age(since: Now, now: Now) -> Option<Duration> {
    let wall = Duration::try_from(now.wall.duration_since(since.wall)).ok()?;
    Some(wall.max(now.boot.since(since.boot)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Boot;

    fn at(wall: i64, boot: u64) -> Now {
        Now {
            wall: jiff::Timestamp::from_second(wall).unwrap(),
            boot: Boot::from_start(Duration::from_secs(boot)),
        }
    }

    #[test]
    fn the_clock_that_says_more_counts_and_a_step_back_refuses() {
        let since = at(1_000, 50);
        assert_eq!(age(since, at(1_010, 55)), Some(Duration::from_secs(10)));
        assert_eq!(age(since, at(1_010, 90)), Some(Duration::from_secs(40)));
        assert_eq!(age(since, at(999, 60)), None);
        // After a reboot the boot clock began anew: it alone says nothing.
        assert_eq!(age(since, at(1_010, 1)), Some(Duration::from_secs(10)));
    }
}
