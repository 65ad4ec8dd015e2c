//! What the directory source keeps in the state directory: `policy.json`, written when policy
//! changed, and `policy-seen.json`, written at each complete look. Touches the disk, blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_crds::assemble::Memory;
use tidegate_crds::manifest::ObjectRef;

use crate::clock::{Boot, Now};
use crate::state::{StateDir, StateError};

const POLICY: &str = "policy.json";
const SEEN: &str = "policy-seen.json";
/// Far more than MAX_FILES manifests make.
const MAX_BYTES: u64 = 4 << 30;

/// The last good policy, and what later policy is compared with.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    pub memory: Memory,
    /// The objects in force and their files.
    #[serde(with = "pairs")]
    pub in_force: OrdMap<ObjectRef, Arc<str>>,
    /// Since when files could not be read.
    pub unreadable: BTreeMap<Arc<str>, Instant>,
}

/// JSON has no maps with such keys.
mod pairs {
    use super::{Arc, Deserialize, ObjectRef, OrdMap};
    use serde::{Deserializer, Serializer};

    type Map = OrdMap<ObjectRef, Arc<str>>;

    pub fn serialize<S: Serializer>(map: &Map, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map, D::Error> {
        let pairs: Vec<(ObjectRef, Arc<str>)> = Vec::deserialize(deserializer)?;
        Ok(pairs.into_iter().collect())
    }
}

/// An instant that outlives the process: the boot clock counts only within the same boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instant {
    wall: Timestamp,
    boot_id: Option<String>,
    boot_nanoseconds: u64,
}

impl Instant {
    pub fn of(now: Now, boot_id: Option<&str>) -> Self {
        let nanoseconds = now.boot.since_start().as_nanos();
        Self {
            wall: now.wall,
            boot_id: boot_id.map(Into::into),
            boot_nanoseconds: u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        }
    }

    /// As this boot's clocks would have read then. Before this boot, the boot clock starts from zero,
    /// so that an age is at least the time since the machine was started.
    pub fn now(&self, boot_id: Option<&str>) -> Now {
        let same = boot_id.is_some() && self.boot_id.as_deref() == boot_id;
        let nanoseconds = if same { self.boot_nanoseconds } else { 0 };
        Now { wall: self.wall, boot: Boot::from_start(Duration::from_nanos(nanoseconds)) }
    }
}

/// What tells this boot of the machine from others; `None` where the kernel does not say.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().into())
}

/// What an earlier process left.
#[derive(Debug, thiserror::Error)]
pub enum RememberError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot understand {path}: {error}; move it away to start anew")]
    Damaged { path: String, error: serde_json::Error },
}

/// The last good policy and the beginning of the last complete look; `None` in a new directory.
pub fn load(state: &StateDir) -> Result<(Option<Remembered>, Option<Instant>), RememberError> {
    Ok((parse(state, POLICY)?, parse(state, SEEN)?))
}

fn parse<T: for<'a> Deserialize<'a>>(
    state: &StateDir,
    name: &str,
) -> Result<Option<T>, RememberError> {
    let Some(bytes) = state.read(name, MAX_BYTES)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| RememberError::Damaged {
        path: state.root().join(name).display().to_string(),
        error,
    })
}

pub fn policy_bytes(remembered: &Remembered) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(remembered)
}

pub fn seen_bytes(seen: &Instant) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(seen)
}

pub fn write_policy(state: &StateDir, bytes: &[u8]) -> Result<(), StateError> {
    state.write_atomic(POLICY, bytes, 0o600)
}

pub fn write_seen(state: &StateDir, bytes: &[u8]) -> Result<(), StateError> {
    state.write_atomic(SEEN, bytes, 0o600)
}
