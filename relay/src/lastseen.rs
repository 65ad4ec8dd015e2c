//! When and from where terminals were last connected, across restarts. Nothing is decided by it.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_policy::model::Label;

use crate::locate::LastSeen;
use crate::state::StateDir;

/// The file in the state directory.
const FILE: &str = "last-seen.json";
/// More than this is not ours: 100,000 terminals take about 12 MiB.
const LONGEST: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    terminal: String,
    at: Timestamp,
    from: SocketAddr,
}

/// What an earlier process remembered; nothing where the file is missing or damaged, which is told.
pub fn load(state: &StateDir) -> Vec<(Label, LastSeen)> {
    let lines: Vec<Line> = match state.read(FILE, LONGEST) {
        Ok(None) => Vec::new(),
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, file = FILE, "forgetting when terminals were last seen");
            Vec::new()
        }),
        Err(error) => {
            tracing::warn!(%error, file = FILE, "forgetting when terminals were last seen");
            Vec::new()
        }
    };
    let seen = |line: Line| {
        Some((Label::parse(&line.terminal).ok()?, LastSeen { at: line.at, from: line.from }))
    };
    lines.into_iter().filter_map(seen).collect()
}

/// Keeps it for the next process.
pub fn save(state: &StateDir, seen: Vec<(Label, LastSeen)>) {
    let line = |(terminal, seen): (Label, LastSeen)| Line {
        terminal: terminal.to_string(),
        at: seen.at,
        from: seen.from,
    };
    let lines: Vec<Line> = seen.into_iter().map(line).collect();
    let bytes = serde_json::to_vec(&lines).unwrap_or_default();
    if let Err(error) = state.write_atomic(FILE, &bytes, 0o600) {
        tracing::warn!(%error, file = FILE, "cannot keep when terminals were last seen");
    }
}
