//! What the API server is still to be told of sessions. The record files are the outbox: a session
//! whose process died, or that ended while the API server was away, is told of later all the same.
//!
//! Records beyond what memory holds wait on disk; of each of those only the id is kept here.

use jiff::Timestamp;

use super::store::{Records, lock};
use super::{Ended, EndedBy, Published, Record, SessionId, files};
use crate::{sentences, state};

/// The records that are to be published. Clones share them.
#[derive(Clone, Debug)]
pub struct Outbox(Records);

impl Records {
    /// From now on every record is published before it may go.
    pub fn publish(&self) -> Outbox {
        let gone = {
            let mut shared = lock(&self.shared);
            shared.publishing = true;
            let open = |record: &&Record| record.published != Published::Ended;
            let open: Vec<_> =
                shared.records.values().filter(open).map(|record| record.begun.id).collect();
            shared.pending.extend(open);
            shared.shed()
        };
        for id in gone {
            self.save(id);
        }
        self.pending.notify_one();
        Outbox(self.clone())
    }

    /// An API server is going to be told of every record: none goes before it has been, also while
    /// [`Self::publish`] is not yet called.
    pub fn hold(&self) {
        lock(&self.shared).publishing = true;
    }

    /// Resolves when the API server has been told of every session that ended; at once where there is
    /// none.
    pub async fn published(&self) {
        loop {
            let published = self.published.notified();
            tokio::pin!(published);
            published.as_mut().enable();
            {
                let shared = lock(&self.shared);
                let open = |r: &Record| r.ended.is_some() && r.published != Published::Ended;
                let waiting = !shared.on_disk.is_empty() || shared.records.values().any(open);
                if !shared.publishing || !waiting {
                    return;
                }
            }
            published.await;
        }
    }

    /// How many sessions the API server is yet to be told of: that they began, or how they ended.
    pub fn unpublished(&self) -> usize {
        let shared = lock(&self.shared);
        if !shared.publishing {
            return 0;
        }
        let open = |record: &&Record| match record.published {
            Published::Nothing => true,
            Published::Begun(_) => record.ended.is_some(),
            Published::Ended => false,
        };
        shared.on_disk.len().saturating_add(shared.records.values().filter(open).count())
    }
}

impl Outbox {
    /// The oldest of which there is something to tell.
    pub fn take(&self) -> Option<SessionId> {
        lock(&self.0.shared).pending.pop_first()
    }

    /// There is something to tell of it again.
    pub fn again(&self, id: SessionId) {
        self.0.publish_soon(id);
    }

    /// Resolves when something was added since the last call.
    pub async fn added(&self) {
        self.0.pending.notified().await;
    }

    /// The record, from memory or from disk.
    pub fn get(&self, id: SessionId) -> Option<Record> {
        if let Some(record) = self.0.get(id) {
            return Some(record);
        }
        if !lock(&self.0.shared).on_disk.contains(&id) {
            return None;
        }
        let path = self.0.directory.join(files::name(id));
        let text = state::read(&path, files::MOST).unwrap_or_else(|error| {
            tracing::error!(%id, %error, "cannot read a session's record");
            None
        });
        files::parse(id, &text?)
    }

    /// Whether an object of this name is the session's; `None`: no record knows the session.
    pub fn is_of(&self, id: SessionId, namespace: &str, uid: &str) -> Option<bool> {
        let shared = lock(&self.0.shared);
        let Some(record) = shared.records.get(&id) else {
            // It has ended: nothing can be asked of it.
            return shared.on_disk.contains(&id).then_some(false);
        };
        let known = match &record.published {
            Published::Begun(known) => known == uid,
            Published::Nothing | Published::Ended => true,
        };
        Some(known && record.begun.window.namespace.as_str() == namespace)
    }

    /// The object exists.
    pub fn begun(&self, id: SessionId, uid: &str) {
        if let Some(record) = lock(&self.0.shared).records.get_mut(&id) {
            record.published = Published::Begun(uid.to_owned());
        } else {
            return;
        }
        self.0.save(id);
    }

    /// Nothing is left to be told.
    pub fn done(&self, id: SessionId) {
        {
            let mut shared = lock(&self.0.shared);
            shared.on_disk.remove(&id);
            if let Some(record) = shared.records.get_mut(&id) {
                record.published = Published::Ended;
            }
        }
        self.0.save(id);
        self.0.published.notify_waiters();
    }

    /// Sessions whose object exists and whose end is not told: namespace and id.
    pub fn existing(&self) -> Vec<(String, SessionId)> {
        let shared = lock(&self.0.shared);
        let exists = |record: &&Record| matches!(record.published, Published::Begun(_));
        let named = |r: &Record| (r.begun.window.namespace.to_string(), r.begun.id);
        shared.records.values().filter(exists).map(named).collect()
    }

    /// Takes over a session of this pod that no record knows, whose object is `text`: this process does
    /// not carry it, so unless its end is told it ended as a crash ends it, at the latest at `now`.
    pub fn adopt(&self, id: SessionId, text: &[u8], uid: &str, now: Timestamp) {
        let Some(mut record) = files::parse(id, text) else { return };
        let begun = &record.begun;
        let at = now.min(begun.deadline).max(begun.opened_at);
        record.ended.get_or_insert_with(|| Ended {
            at,
            by: EndedBy::Fault,
            reason: sentences::relay_crashed(),
            overrun_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
        });
        record.published = Published::Begun(uid.to_owned());
        self.0.put(record);
    }
}
