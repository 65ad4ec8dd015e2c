//! Claims: what makes a one-time window admit one session, and a limited one no more than it says
//! (invariant 6).
//!
//! Embedded, claims are files ([`FileClaims`]); in a cluster they are SupportClaim objects, made by
//! being created ([`KubeClaims`]). A one-time claim is never given back: it stays while a window of its
//! name exists, and until a day after its end. When in doubt, the answer is no.

mod cluster;
mod disk;
pub(crate) mod files;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::future::Future;

use jiff::Timestamp;
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Login, ObjectKey};

use crate::record::SessionId;
pub use cluster::KubeClaims;
pub use disk::FileClaims;
pub use table::Holder;

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
    /// No claim was made, and the reason is the relay's own; another try may do better.
    Unavailable { why: String },
    /// No claim was made, since the API server did not answer or did not take it.
    Away { why: String },
    /// A one-time claim may have been made or not: from now on the window counts as used.
    Uncertain { why: String },
}

/// A claim that was made. Dropping it gives it back where it can be used again; one-time claims stay.
#[derive(Debug)]
pub struct Claim(Kept);

#[derive(Debug)]
enum Kept {
    File(disk::Kept),
    Object(cluster::Kept),
}

impl Claim {
    /// Whether the claim uses its window up.
    pub fn is_once(&self) -> bool {
        match &self.0 {
            Kept::File(kept) => kept.is_once(),
            Kept::Object(kept) => kept.is_once(),
        }
    }

    /// Gives the claim back, and returns when the next one can have it; with the API server away,
    /// soon, and it is given back once that can be told.
    pub async fn release(self) {
        match self.0 {
            Kept::File(kept) => kept.release().await,
            Kept::Object(kept) => kept.release().await,
        }
    }
}

impl From<disk::Kept> for Claim {
    fn from(kept: disk::Kept) -> Self {
        Self(Kept::File(kept))
    }
}

impl From<cluster::Kept> for Claim {
    fn from(kept: cluster::Kept) -> Self {
        Self(Kept::Object(kept))
    }
}

/// Where claims are made. Embedded: [`FileClaims`]; in a cluster, SupportClaim objects.
pub trait Claims: Send + Sync {
    /// Claims `candidate`'s window for `session`. Dropping the future gives up: what it may have
    /// taken meanwhile is given back as a dropped [`Claim`] is.
    fn claim(
        &self,
        candidate: &Candidate,
        session: SessionId,
        by: &Login,
        now: Timestamp,
    ) -> impl Future<Output = Claimed> + Send;

    /// Whether a claim could be had now, without taking it: `Free`, `Full` or `Used`, and `None` where
    /// one would be tried. Quick: it touches no disk.
    fn look(&self, candidate: &Candidate) -> Option<Claimed>;

    /// Gives a claim back and returns when the next one can have it.
    fn release(&self, claim: Claim) -> impl Future<Output = ()> + Send {
        claim.release()
    }

    /// Forgets one-time claims whose window no longer `exists` and closed more than a day before
    /// `now`. `exists` must speak of a policy that is complete. In a cluster the operator does, and
    /// this does nothing.
    fn retain(
        &self,
        exists: &(dyn Fn(&ObjectKey) -> bool + Sync),
        now: Timestamp,
    ) -> impl Future<Output = ()> + Send;
}

/// The claims of one relay, wherever they are.
#[derive(Clone, Debug)]
pub enum AnyClaims {
    Files(FileClaims),
    Kube(KubeClaims),
}

impl From<FileClaims> for AnyClaims {
    fn from(claims: FileClaims) -> Self {
        Self::Files(claims)
    }
}

impl From<KubeClaims> for AnyClaims {
    fn from(claims: KubeClaims) -> Self {
        Self::Kube(claims)
    }
}

impl Claims for AnyClaims {
    async fn claim(
        &self,
        candidate: &Candidate,
        session: SessionId,
        by: &Login,
        now: Timestamp,
    ) -> Claimed {
        match self {
            Self::Files(claims) => claims.claim(candidate, session, by, now).await,
            Self::Kube(claims) => claims.claim(candidate, session, by, now).await,
        }
    }

    fn look(&self, candidate: &Candidate) -> Option<Claimed> {
        match self {
            Self::Files(claims) => claims.look(candidate),
            Self::Kube(claims) => claims.look(candidate),
        }
    }

    async fn retain(&self, exists: &(dyn Fn(&ObjectKey) -> bool + Sync), now: Timestamp) {
        match self {
            Self::Files(claims) => claims.retain(exists, now).await,
            Self::Kube(claims) => claims.retain(exists, now).await,
        }
    }
}

/// `alice and bob.acme`: the users who hold a window, each once, the longest first.
pub fn users(holders: &[Holder]) -> String {
    let mut sorted: Vec<_> = holders.iter().collect();
    sorted.sort_by_key(|holder| holder.since);
    let mut users: Vec<&str> = Vec::new();
    for holder in sorted {
        if !users.contains(&holder.user.as_str()) {
            users.push(&holder.user);
        }
    }
    let mut text = String::new();
    for (index, user) in users.iter().enumerate() {
        let joint = match index {
            0 => "",
            _ if index + 1 == users.len() => " and ",
            _ => ", ",
        };
        let _ = write!(text, "{joint}{user}");
    }
    text
}
