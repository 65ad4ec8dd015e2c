//! What is remembered of a directory, across restarts: what an API server would know of each object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::{ObjectRef, Position};

/// All objects that were accepted once and are still there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Memory {
    pub(super) objects: BTreeMap<ObjectRef, Remembered>,
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
        self.objects.get(object)
    }

    /// All objects, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.objects.values()
    }
}

/// The form on disk: JSON has no maps with such keys.
#[derive(Serialize, Deserialize)]
struct Stored {
    objects: Vec<Remembered>,
}

impl From<Stored> for Memory {
    fn from(stored: Stored) -> Self {
        Self { objects: stored.objects.into_iter().map(|o| (o.object.clone(), o)).collect() }
    }
}

impl From<Memory> for Stored {
    fn from(memory: Memory) -> Self {
        Self { objects: memory.objects.into_values().collect() }
    }
}
