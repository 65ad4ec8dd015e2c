//! The table of INTEROP.md: one line for each client, which holds what was seen.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Lines are written one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Compares a client's line with what was seen; with TIDEGATE_BLESS=1 it is written.
pub fn compare(name: &str, cells: &[String]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("INTEROP.md");
    let text = fs::read_to_string(&path).unwrap();
    let seen = format!("| {name} | {} |", cells.join(" | "));
    let begins = format!("| {name} |");
    let line = text.lines().find(|line| line.starts_with(&begins));
    let line = line.unwrap_or_else(|| panic!("INTEROP.md has no line for {name}; seen: {seen}"));
    if line == seen {
        return;
    }
    let blessed = std::env::var_os("TIDEGATE_BLESS").is_some_and(|it| it == "1");
    assert!(
        blessed,
        "INTEROP.md says\n{line}\nbut this was seen:\n{seen}\nTIDEGATE_BLESS=1 writes it anew"
    );
    fs::write(path, text.replace(line, &seen)).unwrap();
}
