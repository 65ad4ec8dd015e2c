//! The commands that need no running relay: they read manifests, and say what follows from them.
//!
//! Each module has its arguments, a function that makes the text, and `run`, which prints it. Exit
//! codes: 0 for the good answer, 1 for the other, 2 when the question could not be asked.

pub mod audit;
pub mod check;
pub mod known_hosts;
pub mod ssh_config;
pub mod who_can_reach;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use jiff::Timestamp;
use tidegate_policy::snapshot::Snapshot;

use crate::clock::Now;
use crate::source::load::{Loaded, load};
use crate::source::scan::ListError;

/// The form of a command's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs; instants in UTC.
    Json,
}

/// What a command prints, and its exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub stdout: String,
    pub stderr: String,
    pub code: u8,
}

impl Answer {
    pub fn good(stdout: String) -> Self {
        Self { stdout, ..Self::default() }
    }

    /// The question could not be asked: one sentence.
    pub fn usage(sentence: impl std::fmt::Display) -> Self {
        Self { stderr: format!("{sentence}\n"), code: 2, ..Self::default() }
    }

    /// The answer is the other one, and this is why.
    pub fn refused(sentence: impl std::fmt::Display) -> Self {
        Self { stderr: format!("{sentence}\n"), code: 1, ..Self::default() }
    }

    /// Prints it. A reader that went away is nobody's fault.
    pub fn print(&self) -> ExitCode {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(self.stdout.as_bytes()).and_then(|()| stdout.flush());
        let _ = std::io::stderr().lock().write_all(self.stderr.as_bytes());
        ExitCode::from(self.code)
    }
}

/// Reads manifests that must hold a Mesh; what else is wrong with them goes to stderr, as far as
/// `warn` says. The error is the answer then.
fn policy(manifests: &Path, now: Now) -> Result<(Snapshot, Loaded), Answer> {
    usable(manifests, load(manifests, now))
}

fn usable(
    manifests: &Path,
    loaded: Result<Loaded, ListError>,
) -> Result<(Snapshot, Loaded), Answer> {
    let mut loaded = loaded.map_err(Answer::usage)?;
    if let Some(snapshot) = loaded.snapshot.take() {
        return Ok((snapshot, loaded));
    }
    let mut stderr = String::new();
    for finding in &loaded.findings {
        let _ = writeln!(stderr, "{finding}");
    }
    let path = manifests.display();
    let _ = writeln!(stderr, "the manifests in {path} hold no Mesh that can be used");
    Err(Answer { stderr, code: 2, ..Answer::default() })
}

/// A sentence for stderr where some manifests do not apply; empty where all do.
fn warning(manifests: &Path, loaded: &Loaded) -> String {
    match loaded.errors() {
        0 => String::new(),
        errors => {
            let path = manifests.display();
            format!(
                "warning: {errors} findings in {path} are left out of this answer; \
                 `tidegate-relay check {path}` lists them\n"
            )
        }
    }
}

/// Takes a time as the resources write it: strict RFC 3339.
fn time(text: &str) -> Result<Timestamp, String> {
    tidegate_policy::text::timestamp(text).map_err(|error| error.to_string())
}

/// The second that `at` is in: what people are shown, and ask about, where they name no time.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Columns, as wide as their widest entry, two blanks apart. No trailing blanks.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let rows = [row([&"USER", &"SERVICE"]), row([&"alice.acme", &"ssh"])];
        assert_eq!(table(&rows), "USER        SERVICE\nalice.acme  ssh\n");
    }

    #[test]
    fn times_are_strict() {
        assert!(time("2026-11-23T09:00:00+01:00").is_ok());
        assert!(time("tomorrow").is_err());
    }
}
