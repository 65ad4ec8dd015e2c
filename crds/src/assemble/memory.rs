//! What is remembered of a directory, across restarts: what an API server would know of each object.

use std::sync::Arc;

use imbl::OrdMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::manifest::{ObjectRef, Position};

/// All objects that were accepted once and are still there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Stored<Remembered>")]
pub struct Memory {
    /// Shared with the memories before, where nothing changed: most of it, at each edit. A copy costs
    /// nothing.
    pub(super) objects: OrdMap<ObjectRef, Arc<Remembered>>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    pub object: ObjectRef,
    pub uid: String,
    /// Grows when the spec changes.
    pub generation: i64,
    /// When it was first accepted, by which "the oldest" is told.
    pub created: Timestamp,
    /// Whether it is part of the policy, and so holds its name, keys and listen ports. An object whose
    /// namespace left the Mesh is remembered, but holds nothing.
    pub in_force: bool,
    /// Where its last good version was read.
    pub position: Position,
    /// Its last good version.
    pub value: Value,
}

impl Memory {
    /// What is remembered of one object.
    pub fn get(&self, object: &ObjectRef) -> Option<&Remembered> {
        self.shared(object).map(|remembered| &**remembered)
    }

    pub(super) fn shared(&self, object: &ObjectRef) -> Option<&Arc<Remembered>> {
        self.objects.get(object)
    }

    /// All objects, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.objects.values().map(|remembered| &**remembered)
    }
}

/// The form on disk: JSON has no maps with such keys.
#[derive(Serialize, Deserialize)]
struct Stored<T> {
    objects: Vec<T>,
}

impl From<Stored<Remembered>> for Memory {
    fn from(stored: Stored<Remembered>) -> Self {
        let named = |o: Remembered| (o.object.clone(), Arc::new(o));
        Self { objects: stored.objects.into_iter().map(named).collect() }
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { objects: self.iter().collect() }.serialize(serializer)
    }
}
