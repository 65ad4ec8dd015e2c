//! `check DIR`: everything that is wrong with a directory of manifests, at once. `check --diff OLD
//! NEW`: who gains or loses reach by a change.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_crds::manifest::{Finding, Rule, Severity};
use tidegate_policy::reach::{Change, difference};
use tidegate_process::clock::{self, Now};

use super::{Answer, Output, json, time, whole_second};
use crate::manifests::load::{Loaded, load, load_edit};
use crate::text::{count, row, table};

/// How far `--diff` looks ahead without `--to`.
const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Say what is wrong with a directory of manifests, or who gains or loses reach between two.
///
/// Exit code: 0 when there is nothing to say, 1 when there are findings (notes do not count) or a
/// difference, 2 when the question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The directory to check: *.yaml, *.yml and *.json, read recursively
    #[arg(required_unless_present = "diff", conflicts_with = "diff", value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Compare two directories: who gains or loses reach, by default in the next 7 days, where a
    /// relay follows an edit of the first to the second
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    pub diff: Option<Vec<PathBuf>>,
    /// Compare from this time on (RFC 3339); now by default
    #[arg(long, value_name = "TIME", value_parser = time, requires = "diff")]
    pub from: Option<Timestamp>,
    /// Compare until this time (RFC 3339); 7 days from the beginning by default
    #[arg(long, value_name = "TIME", value_parser = time, requires = "diff")]
    pub to: Option<Timestamp>,
    /// Count also what only terminals with our agent admit
    #[arg(long, requires = "diff")]
    pub agent: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    answer(args, clock::now()).print()
}

/// What `run` prints, at a given time.
pub fn answer(args: &CheckArgs, now: Now) -> Answer {
    match (&args.directory, args.diff.as_deref()) {
        (Some(directory), _) => check(directory, args.output, now),
        (None, Some([old, new])) => diff(args, old, new, now),
        (None, _) => Answer::usage("give a directory, or --diff and two of them"),
    }
}

#[derive(Serialize)]
struct Checked<'a> {
    files: usize,
    objects: usize,
    errors: usize,
    notes: usize,
    findings: &'a [Finding],
}

fn check(directory: &Path, output: Output, now: Now) -> Answer {
    let mut loaded = match load(directory, now) {
        Ok(loaded) => loaded,
        Err(error) => return Answer::usage(error),
    };
    if loaded.snapshot.is_some() && loaded.relays.is_empty() {
        loaded.findings.push(Finding {
            position: None,
            object: None,
            field: None,
            rule: Rule::Required,
            message: "no Relay is in force, so none can serve this; add one".into(),
            severity: Severity::Error,
        });
    }
    let errors = loaded.errors();
    let notes = loaded.findings.len() - errors;
    let stdout = match output {
        Output::Json => json(&Checked {
            files: loaded.files,
            objects: loaded.objects,
            errors,
            notes,
            findings: &loaded.findings,
        }),
        Output::Table => {
            let mut text = listed(&loaded.findings);
            let _ = writeln!(
                text,
                "{} in {}, {}: {}{}",
                count(loaded.objects, "object"),
                count(loaded.files, "file"),
                directory.display(),
                count(errors, "finding"),
                if notes > 0 { format!(", {}", count(notes, "note")) } else { String::new() },
            );
            text
        }
    };
    Answer { stdout, code: u8::from(errors > 0), ..Answer::default() }
}

#[derive(Serialize)]
struct Compared {
    from: Timestamp,
    to: Timestamp,
    gained: Vec<Changed>,
    lost: Vec<Changed>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Changed {
    user: String,
    terminal: String,
    service: String,
    from: Timestamp,
    to: Timestamp,
}

impl From<&Change> for Changed {
    fn from(change: &Change) -> Self {
        Self {
            user: change.user.to_string(),
            terminal: change.terminal.to_string(),
            service: change.service.to_string(),
            from: change.from,
            to: change.to,
        }
    }
}

fn diff(args: &CheckArgs, old: &Path, new: &Path, now: Now) -> Answer {
    let (before, after) = match load_edit(old, new, now) {
        Ok(loaded) => loaded,
        Err(error) => return Answer::usage(error),
    };
    let (Some(old_policy), Some(new_policy)) = (&before.snapshot, &after.snapshot) else {
        let empty = if before.snapshot.is_none() { old } else { new };
        let findings = if before.snapshot.is_none() { &before.findings } else { &after.findings };
        return Answer::usage(format!(
            "{}the manifests in {} hold no Mesh that can be used, so there is nothing to compare",
            listed(findings),
            empty.display()
        ));
    };
    let from = args.from.unwrap_or_else(|| whole_second(now.wall));
    let to = args.to.unwrap_or_else(|| from.checked_add(AHEAD).unwrap_or(Timestamp::MAX));
    if to <= from {
        return Answer::usage("--to must be after --from");
    }
    let difference = difference(old_policy, new_policy, args.agent, from, to);
    let errors = before.errors() + after.errors();
    let same = difference.gained.is_empty() && difference.lost.is_empty();
    let code = u8::from(!same || errors > 0);
    let findings = || -> Vec<Finding> {
        let of = |loaded: &Loaded| loaded.findings.clone();
        [of(&before), of(&after)].concat()
    };
    match args.output {
        Output::Json => {
            let compared = Compared {
                from,
                to,
                gained: difference.gained.iter().map(Changed::from).collect(),
                lost: difference.lost.iter().map(Changed::from).collect(),
                findings: findings(),
            };
            Answer { stdout: json(&compared), code, ..Answer::default() }
        }
        Output::Table => {
            let heads = ["", "USER", "TERMINAL", "SERVICE", "FROM", "TO"];
            let mut rows = Vec::new();
            for (word, changes) in [("gains", &difference.gained), ("loses", &difference.lost)] {
                rows.extend(changes.iter().map(|change| {
                    let Change { user, terminal, service, from, to } = change;
                    row([&word, user, terminal, service, from, to])
                }));
            }
            let mut stdout = if same { String::new() } else { table(&heads, &rows) };
            let _ = writeln!(
                stdout,
                "{} gained, {} lost between {from} and {to}",
                difference.gained.len(),
                difference.lost.len()
            );
            Answer { stdout, stderr: listed(&findings()), code }
        }
    }
}

fn listed(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "{finding}");
    }
    text
}
