//! The commands that need no running relay: they read manifests, or are given what a cluster holds, and
//! say what follows from it.
//!
//! Each module has the question, a function that answers it from what is [`Known`], and the arguments and
//! `run` of the form that reads a directory of manifests. Exit codes: 0 for the good answer, 1 for the
//! other, 2 when the question could not be asked. Touches the disk, blocks, and is told the time but for
//! `run`.

pub mod check;
pub mod known;
pub mod known_hosts;
pub mod manifests;
pub mod ssh_config;
pub mod text;
pub mod who_can_reach;

pub use known::{Known, Place};

use std::io::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

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

/// Takes a time as the resources write it: strict RFC 3339.
pub fn time(text: &str) -> Result<Timestamp, String> {
    tidegate_policy::text::timestamp(text).map_err(|error| error.to_string())
}

/// The second that `at` is in: what people are shown, and ask about, where they name no time.
pub fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// As programs read it: pretty, with a newline at the end.
pub fn json(value: &impl Serialize) -> String {
    // Plain structs of texts and numbers: nothing in them can fail to serialise.
    serde_json::to_string_pretty(value).map_or_else(|_| "{}\n".into(), |text| text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_strict() {
        assert!(time("2026-11-23T09:00:00+01:00").is_ok());
        assert!(time("tomorrow").is_err());
    }
}
