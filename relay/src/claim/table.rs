//! Which claims there are. One thread changes them; the lock is never held while the disk works.

use std::collections::{BTreeMap, HashMap};
use std::io;

use jiff::{SignedDuration, Timestamp};
use tidegate_crds::SupportClaimSpec;
use tidegate_crds::support_claim::{CLOSES_AT, ClaimedWindow, USER};
use tidegate_policy::decide::Candidate;
use tidegate_policy::model::{Label, ObjectKey};
use uuid::Uuid;

use super::files::{ClaimObject, Files, Made};
use crate::object::Metadata;
use crate::state::sha256_hex;

/// How long a one-time claim outlives its window's end, after the window itself has gone.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Who has a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// `ss-<uuidv7>`
    pub session: String,
    /// The login as typed; empty where the claim cannot be read.
    pub user: String,
    pub since: Timestamp,
}

/// How a window limits its sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    Once,
    Places(u32),
}

/// What a session asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub window: ObjectKey,
    pub limit: Limit,
    pub opens: Timestamp,
    pub closes: Timestamp,
}

impl Wanted {
    /// `None`: the window limits nothing.
    pub fn of(candidate: &Candidate) -> Option<Self> {
        let window = &candidate.window;
        let limit =
            if window.one_time { Limit::Once } else { Limit::Places(window.limits.max_sessions?) };
        let occurrence = candidate.occurrence;
        let window = window.meta.key.clone();
        Some(Self { window, limit, opens: occurrence.opens, closes: occurrence.closes })
    }

    /// The name of the claim, or what its places' names begin with. A one-time window is one whatever
    /// its schedule says and however often it is made anew.
    pub fn name(&self) -> String {
        let ObjectKey { namespace, name } = &self.window;
        // No label has a NUL or a newline, so that no two windows hash the same text.
        sha256_hex(
            match self.limit {
                Limit::Once => format!("tidegate.dev/claim\nonce\n{namespace}\n{name}\n"),
                Limit::Places(_) => {
                    format!("tidegate.dev/claim\nplace\n{namespace}\n{name}\n{}\n", self.opens)
                }
            }
            .as_bytes(),
        )
    }
}

/// A one-time claim.
#[derive(Clone, Debug)]
struct Once {
    /// `None`: it cannot be read, or may not even be there; it counts all the same.
    known: Option<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    uid: String,
    holder: Holder,
    window: ObjectKey,
    closes: Timestamp,
}

#[derive(Default, Debug)]
pub struct Table {
    once: HashMap<String, Once>,
    places: HashMap<String, BTreeMap<u32, (String, Holder)>>,
}

/// Why there is no claim to be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    Used(Option<Holder>),
    Full(Vec<Holder>),
}

impl Table {
    pub fn look(&self, wanted: &Wanted) -> Option<Taken> {
        let name = wanted.name();
        match wanted.limit {
            Limit::Once => {
                let once = self.once.get(&name)?;
                Some(Taken::Used(once.known.as_ref().map(|known| known.holder.clone())))
            }
            Limit::Places(most) => {
                let places = self.places.get(&name);
                let held = places.map_or(0, BTreeMap::len);
                let full = u32::try_from(held).unwrap_or(u32::MAX) >= most;
                let holders = || places.iter().flat_map(|p| p.values()).map(|(_, h)| h.clone());
                full.then(|| Taken::Full(holders().collect()))
            }
        }
    }

    /// The lowest index that nobody holds.
    fn free(&self, name: &str) -> u32 {
        let held = self.places.get(name);
        (0..u32::MAX).find(|i| held.is_none_or(|h| !h.contains_key(i))).unwrap_or(u32::MAX)
    }

    /// The one-time claims whose window does not exist and closed long before `now`.
    pub fn stale(
        &self,
        exists: &dyn Fn(&ObjectKey) -> bool,
        now: Timestamp,
    ) -> Vec<(String, String)> {
        let old = |known: &&Known| {
            let until = known.closes.saturating_add(KEPT).unwrap_or(Timestamp::MAX);
            until <= now && !exists(&known.window)
        };
        let known = |(name, once): (&String, &Once)| {
            let known = once.known.as_ref().filter(old)?;
            Some((name.clone(), known.uid.clone()))
        };
        self.once.iter().filter_map(known).collect()
    }
}

/// Gives the table for a moment. It is never held while the disk works.
pub type With<'a> = &'a dyn Fn(&mut dyn FnMut(&mut Table));

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    pub session: &'a str,
    pub user: &'a str,
    pub relay: &'a str,
    pub at: Timestamp,
}

impl Asker<'_> {
    /// What a claim of this one says, and its annotations, whether it becomes a file or an object of a
    /// cluster. `index`: the place, `None` for a one-time claim.
    pub fn claim(
        &self,
        wanted: &Wanted,
        index: Option<u32>,
    ) -> (SupportClaimSpec, BTreeMap<String, String>) {
        let spec = SupportClaimSpec {
            window: ClaimedWindow {
                namespace: wanted.window.namespace.to_string(),
                name: wanted.window.name.to_string(),
            },
            opens_at: wanted.opens.to_string(),
            index: i32::try_from(index.unwrap_or(0)).unwrap_or(i32::MAX),
            session: self.session.to_owned(),
            relay_pod: self.relay.to_owned(),
            reusable: index.is_some(),
        };
        let annotations = [
            (USER.to_owned(), self.user.to_owned()),
            (CLOSES_AT.to_owned(), wanted.closes.to_string()),
        ];
        (spec, annotations.into())
    }
}

/// A claim that was made: what it takes to give it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub name: String,
    /// `None`: a one-time claim, which is never given back.
    pub index: Option<u32>,
    pub uid: String,
}

#[derive(Debug)]
pub enum Outcome {
    Made(Token),
    Taken(Taken),
    Failed(io::Error),
    Uncertain(io::Error),
}

/// Reads the one-time claims and frees all others.
pub fn load(files: &mut Files) -> io::Result<Table> {
    let mut table = Table::default();
    for (name, claim) in files.load()? {
        if name.len() > 64 {
            if let Err(error) = files.remove(&name) {
                // It cannot stand in the way: see `place`.
                tracing::warn!(name, %error, "cannot free a claim of a former process");
            }
            continue;
        }
        let known = claim.as_deref().and_then(known);
        if known.is_none() {
            tracing::error!(name, "a one-time claim cannot be read; its window stays used");
        }
        table.once.insert(name, Once { known });
    }
    Ok(table)
}

fn known(claim: &ClaimObject) -> Option<Known> {
    let window = &claim.spec.window;
    let annotation = |key: &str| claim.metadata.annotations.get(key);
    Some(Known {
        uid: claim.metadata.uid.clone(),
        holder: Holder {
            session: claim.spec.session.clone(),
            user: annotation(USER).cloned().unwrap_or_default(),
            since: claim.metadata.creation_timestamp.as_ref()?.parse().ok()?,
        },
        window: ObjectKey {
            namespace: Label::parse(&window.namespace).ok()?,
            name: Label::parse(&window.name).ok()?,
        },
        closes: annotation(CLOSES_AT)?.parse().ok()?,
    })
}

/// One attempt to make a claim.
pub fn attempt(files: &mut Files, with: With<'_>, wanted: &Wanted, asker: &Asker<'_>) -> Outcome {
    let mut before = None;
    with(&mut |table| before = table.look(wanted));
    if let Some(taken) = before {
        return Outcome::Taken(taken);
    }
    match wanted.limit {
        Limit::Once => once(files, with, wanted, asker),
        Limit::Places(_) => place(files, with, wanted, asker),
    }
}

fn once(files: &mut Files, with: With<'_>, wanted: &Wanted, asker: &Asker<'_>) -> Outcome {
    let claim = object(wanted, wanted.name(), None, asker);
    let name = claim.metadata.name.clone();
    let (known, outcome) = match files.make(&claim) {
        Made::Failed(error) => return Outcome::Failed(error),
        Made::Ours => {
            let token = Token { name: name.clone(), index: None, uid: claim.metadata.uid.clone() };
            (known(&claim), Outcome::Made(token))
        }
        Made::Taken(there) => {
            let known = there.as_deref().and_then(known);
            let holder = known.as_ref().map(|known| known.holder.clone());
            (known, Outcome::Taken(Taken::Used(holder)))
        }
        // From now on it is used, whatever the disk says later.
        Made::Uncertain(error) => (None, Outcome::Uncertain(error)),
    };
    with(&mut |table| {
        table.once.insert(name.clone(), Once { known: known.clone() });
    });
    outcome
}

fn place(files: &mut Files, with: With<'_>, wanted: &Wanted, asker: &Asker<'_>) -> Outcome {
    let prefix = wanted.name();
    let mut index = 0;
    with(&mut |table| index = table.free(&prefix));
    let claim = object(wanted, format!("{prefix}-{index}"), Some(index), asker);
    let name = claim.metadata.name.clone();
    let mut made = files.make(&claim);
    if let Made::Taken(_) = made {
        // The table knows every place that is held: this is the rest of a former process.
        made = match files.remove(&name) {
            Ok(()) => files.make(&claim),
            Err(error) => Made::Failed(error),
        };
    }
    let error = match made {
        Made::Ours => {
            let uid = claim.metadata.uid.clone();
            let held = (uid.clone(), holder(asker));
            with(&mut |table| {
                table.places.entry(prefix.clone()).or_default().insert(index, held.clone());
            });
            return Outcome::Made(Token { name: prefix, index: Some(index), uid });
        }
        Made::Taken(_) => io::Error::other("a claim of another program is in the way"),
        Made::Failed(error) => return Outcome::Failed(error),
        Made::Uncertain(error) => error,
    };
    // Nobody will ever hold it, so if it is there it can go.
    let _ = files.remove(&name);
    Outcome::Failed(error)
}

/// Gives a place back.
pub fn release(files: &mut Files, with: With<'_>, token: &Token) {
    let Some(index) = token.index else { return };
    let mut ours = false;
    with(&mut |table| {
        let held = table.places.get(&token.name).and_then(|places| places.get(&index));
        ours = held.is_some_and(|(uid, _)| *uid == token.uid);
    });
    if !ours {
        return;
    }
    let name = format!("{}-{index}", token.name);
    if let Err(error) = files.remove(&name) {
        tracing::warn!(name, %error, "cannot remove the file of a claim that was given back");
    }
    with(&mut |table| {
        if let Some(places) = table.places.get_mut(&token.name) {
            places.remove(&index);
            if places.is_empty() {
                table.places.remove(&token.name);
            }
        }
    });
}

/// Forgets one-time claims by name and uid, as [`Table::stale`] gave them.
pub fn forget(files: &mut Files, with: With<'_>, stale: &[(String, String)]) {
    for (name, uid) in stale {
        let mut same = false;
        with(&mut |table| {
            let known = table.once.get(name).and_then(|once| once.known.as_ref());
            same = known.is_some_and(|known| known.uid == *uid);
        });
        if !same {
            continue;
        }
        match files.remove(name) {
            Ok(()) => with(&mut |table| drop(table.once.remove(name))),
            Err(error) => {
                tracing::warn!(name, %error, "cannot remove the claim of a window that is gone");
            }
        }
    }
}

fn holder(asker: &Asker<'_>) -> Holder {
    Holder { session: asker.session.to_owned(), user: asker.user.to_owned(), since: asker.at }
}

fn object(wanted: &Wanted, name: String, index: Option<u32>, asker: &Asker<'_>) -> ClaimObject {
    let (spec, annotations) = asker.claim(wanted, index);
    let metadata = Metadata {
        name,
        // In a cluster it is the Mesh's; a file is in none, where no window's deletion reaches it.
        namespace: String::new(),
        // Of this very attempt.
        uid: Uuid::new_v4().to_string(),
        creation_timestamp: Some(asker.at.to_string()),
        annotations,
    };
    ClaimObject::new("SupportClaim", metadata, spec)
}
