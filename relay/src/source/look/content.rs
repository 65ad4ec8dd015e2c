//! One file's content over time: when it is read again, and when it is believed.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_commands::manifests::scan::{self, Listing, ReadError, Stamp};
use tidegate_commands::manifests::unreadable;
use tidegate_crds::manifest::{Finding, Read};

use super::Files;
use crate::clock::{Boot, Now};
use crate::source::pace::SECOND_LOOK;

/// A stamp cannot tell two writes within one tick of the file system's clock: a file is read again
/// for as long after its last change.
const SAME_TICK: Duration = Duration::from_secs(3);
/// Content that never rests is taken after this long, if it can be read.
const LONGEST_DOUBT: Duration = Duration::from_millis(500);

pub(super) type Hash = [u8; 32];

#[derive(Debug)]
pub(super) struct Known {
    pub(super) stamp: Stamp,
    /// When it was first seen with this stamp.
    since: Boot,
    /// The content in force.
    pub(super) taken: Option<(Hash, Arc<Read>)>,
    /// The content that the last look found and did not take yet.
    pub(super) seen: Option<Seen>,
}

#[derive(Debug)]
pub(super) struct Seen {
    hash: Hash,
    /// When it was seen first, and when any content was that is not taken yet.
    at: Boot,
    since: Boot,
    pub(super) read: Arc<Read>,
}

#[derive(Clone, Debug)]
pub(super) struct Bad {
    pub(super) hash: Hash,
    pub(super) since: Now,
    pub(super) findings: Vec<Finding>,
}

/// What a look at one file found.
pub(super) enum Found {
    Same,
    Changed,
    /// Changed, and not to be believed before it was seen twice.
    InDoubt,
    Gone,
}

impl Files {
    /// Looks at one listed file, and reads it unless it is as before.
    pub(super) fn file(
        &mut self,
        name: &Arc<str>,
        listing: &Listing,
        now: Now,
        settled: bool,
    ) -> Found {
        let Some(entry) = listing.files.get(name) else { return Found::Gone };
        let known = self.known.get(name);
        let since = match known {
            Some(known) if known.stamp == entry.stamp => known.since,
            _ => now.boot,
        };
        let resting = now.boot.since(since) >= SAME_TICK;
        if resting && known.is_some_and(|known| known.stamp == entry.stamp && known.seen.is_none())
        {
            return Found::Same;
        }
        let (hash, content) = match scan::read(&entry.path) {
            Ok(bytes) => (Sha256::digest(&bytes).into(), Ok(bytes)),
            Err(ReadError::Gone) => return Found::Gone,
            Err(ReadError::Bad(why)) => (Sha256::digest(why.as_bytes()).into(), Err(why)),
        };
        let known = self.known.entry(Arc::clone(name)).or_insert_with(|| Known {
            stamp: entry.stamp,
            since,
            taken: None,
            seen: None,
        });
        known.stamp = entry.stamp;
        known.since = since;
        let seen = known.seen.take();
        let doubtful = seen.as_ref().map_or(now.boot, |seen| seen.since);
        let seen = seen.filter(|seen| seen.hash == hash);
        let bad = self.bad.get(name);
        let taken = known.taken.as_ref().map(|(hash, _)| *hash);
        if bad.map(|bad| bad.hash).or(taken) == Some(hash) {
            return Found::Same;
        }
        if taken == Some(hash) {
            // It was unreadable for a moment and is what it was.
            self.bad.remove(name);
            return Found::Changed;
        }
        let at = seen.as_ref().map_or(now.boot, |seen| seen.at);
        let read = match (seen, content) {
            (Some(seen), _) => seen.read,
            (None, Ok(bytes)) => Arc::new((self.reader)(name, &bytes)),
            (None, Err(why)) => Arc::new(unreadable(name, &why)),
        };
        let taken = settled
            || now.boot.since(at) >= SECOND_LOOK
            || now.boot.since(doubtful) >= LONGEST_DOUBT && !read.unreadable;
        if !taken {
            known.seen = Some(Seen { hash, at, since: doubtful, read });
            return Found::InDoubt;
        }
        if read.unreadable {
            let since = bad.map_or(now, |bad| bad.since);
            self.bad.insert(Arc::clone(name), Bad { hash, since, findings: read.findings.clone() });
        } else {
            self.bad.remove(name);
            let old = known.taken.replace((hash, Arc::clone(&read)));
            let old = old.as_ref().map(|(_, read)| &**read);
            self.touched.extend(self.named.change(name, old, Some(&read)));
        }
        Found::Changed
    }
}
