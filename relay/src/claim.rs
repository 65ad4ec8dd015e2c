//! Claims: what makes a one-time window admit one session, and a limited one no more than it says
//! (invariant 6).

use std::future::Future;

use jiff::Timestamp;
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Login, ObjectKey};

use crate::record::SessionId;
use crate::state::{StateDir, StateError};

/// Whether a session may have a window.
#[derive(Debug)]
pub enum Claimed {
    /// The window limits nothing.
    Free,
    /// Ours; to be kept for as long as the session lives.
    Taken(Claim),
    /// As many sessions as maxSessions allows are live; those that hold it.
    Full { holders: Vec<Holder> },
    /// A one-time window that has had its session, or may have had it.
    Used { holder: Option<Holder> },
    /// The claim cannot be made, or not for certain; then it counts as used.
    Unavailable { why: String },
}

/// Who has a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    pub session: String,
    /// The login as typed; empty where the claim cannot be read.
    pub user: String,
    pub since: Timestamp,
}

/// A claim that was made. Dropping it releases it where it can be used again; one-time claims stay.
#[derive(Debug)]
pub struct Claim {}

/// Where claims are made. Embedded: [`FileClaims`]; in a cluster, SupportClaim objects.
pub trait Claims: Send + Sync {
    /// Claims `candidate`'s window for `session`. Dropping the future gives up: what it may have
    /// taken meanwhile is released as a dropped [`Claim`] is.
    fn claim(
        &self,
        candidate: &Candidate,
        session: SessionId,
        by: &Login,
        now: Timestamp,
    ) -> impl Future<Output = Claimed> + Send;

    /// Whether a claim could be had now, without taking it: `Free`, `Full`, `Used`, or `None` where
    /// one would be tried.
    fn look(&self, candidate: &Candidate) -> Option<Claimed>;

    /// Gives a claim back and returns when the next one can have it.
    fn release(&self, claim: Claim) -> impl Future<Output = ()> + Send;

    /// Forgets one-time claims whose window no longer `exists` and closed more than a day before
    /// `now`.
    fn retain(
        &self,
        exists: &(dyn Fn(&ObjectKey) -> bool + Sync),
        now: Timestamp,
    ) -> impl Future<Output = ()> + Send;
}

/// Claims as files under `STATE/claims`. Clones share them.
#[derive(Clone, Debug)]
pub struct FileClaims {}

impl FileClaims {
    /// Reads the one-time claims and frees all others: the lock on the state directory proves that no
    /// session of a former process lives.
    pub fn open(_state: &StateDir, _relay: &str) -> Result<Self, StateError> {
        unimplemented!()
    }
}

impl Claims for FileClaims {
    async fn claim(
        &self,
        _candidate: &Candidate,
        _session: SessionId,
        _by: &Login,
        _now: Timestamp,
    ) -> Claimed {
        unimplemented!()
    }

    fn look(&self, _candidate: &Candidate) -> Option<Claimed> {
        unimplemented!()
    }

    async fn release(&self, _claim: Claim) {
        unimplemented!()
    }

    async fn retain(&self, _exists: &(dyn Fn(&ObjectKey) -> bool + Sync), _now: Timestamp) {
        unimplemented!()
    }
}
