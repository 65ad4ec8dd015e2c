//! `audit verify STATE`: whether the chain of the audit log is whole; the first line where it is not.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_commands::text::count;
use tidegate_commands::{Answer, Output, json};

use crate::audit::{Summary, verify, verify_from};

/// Work on a relay's audit log.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: AuditCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the chain; name the first line that breaks it
    ///
    /// Also while the relay runs. Exit code: 0 when the chain is whole, 1 when it is broken, 2 when
    /// the question could not be asked.
    Verify(VerifyArgs),
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// The relay's state directory
    pub state: PathBuf,
    /// Begin with this file (its number is the seq of its first line), where older ones were moved elsewhere
    #[arg(long, value_name = "SEQ")]
    pub from: Option<u64>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

pub fn run(args: &AuditArgs) -> ExitCode {
    match &args.command {
        AuditCommand::Verify(args) => answer(args).print(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    files: usize,
    lines: u64,
    first: Option<End>,
    last: Option<End>,
    repairs: u64,
    unfinished_bytes: u64,
}

#[derive(Serialize)]
struct End {
    seq: u64,
    time: Timestamp,
}

#[derive(Serialize)]
struct Torn {
    file: String,
    line: u64,
    why: String,
}

/// What `run` prints for `verify`.
pub fn answer(args: &VerifyArgs) -> Answer {
    let directory = args.state.join("audit");
    if !directory.is_dir() {
        return Answer::usage(format!(
            "there is no audit log in {}; give the relay's state directory",
            args.state.display()
        ));
    }
    let verified = match args.from {
        None => verify(&directory),
        Some(first) => verify_from(&directory, first),
    };
    match (verified, args.output) {
        (Ok(summary), Output::Table) => Answer::good(sentence(&summary)),
        (Ok(summary), Output::Json) => {
            let end = |(seq, time)| End { seq, time };
            Answer::good(json(&Whole {
                files: summary.files,
                lines: summary.lines,
                first: summary.first.map(end),
                last: summary.last.map(end),
                repairs: summary.repairs,
                unfinished_bytes: summary.unfinished,
            }))
        }
        (Err(broken), Output::Table) => Answer::refused(broken),
        (Err(broken), Output::Json) => {
            let file = broken.file.display().to_string();
            let torn = Torn { file, line: broken.line, why: broken.why };
            Answer { stdout: json(&torn), code: 1, ..Answer::default() }
        }
    }
}

fn sentence(summary: &Summary) -> String {
    let lines = usize::try_from(summary.lines).unwrap_or(usize::MAX);
    let mut text =
        format!("the chain is whole: {} in {}", count(lines, "line"), count(summary.files, "file"));
    if let (Some((first, since)), Some((last, until))) = (summary.first, summary.last) {
        let _ = write!(text, ", from {first} ({since}) to {last} ({until})");
    }
    if summary.repairs > 0 {
        let _ = write!(text, ", {} repaired after a crash", summary.repairs);
    }
    if summary.unfinished > 0 {
        let _ = write!(text, ", and {} unfinished bytes at its end", summary.unfinished);
    }
    text + "\n"
}
