//! `audit verify STATE`: walks the audit log's chain and names the first line that does not fit.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Answer;
use crate::audit::{Summary, verify, verify_from};

/// Work on the audit log.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditCommand {
    /// Check the chain of the audit log; name the first line that was edited, deleted or moved
    ///
    /// Exit code: 0 when the chain holds, 1 when it is broken, 2 when there is none.
    Verify(VerifyArgs),
}

#[derive(Clone, Debug, Args)]
struct VerifyArgs {
    /// The relay's state directory; a running relay goes on
    #[arg(value_name = "STATE")]
    state: PathBuf,
    /// Begin with the line of this number, which must be the first of its file; for a log whose older
    /// files were moved elsewhere
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
}

pub fn run(args: &AuditArgs) -> ExitCode {
    let AuditCommand::Verify(args) = &args.command;
    answer(args).print()
}

fn answer(args: &VerifyArgs) -> Answer {
    let audit = args.state.join("audit");
    if !audit.is_dir() {
        return Answer::usage(format_args!(
            "{} has no audit log; name the state directory of a relay",
            args.state.display()
        ));
    }
    let verified = match args.from {
        Some(first) => verify_from(&audit, first),
        None => verify(&audit),
    };
    match verified {
        Ok(summary) => Answer::good(told(&summary)),
        Err(broken) => Answer::refused(format_args!("the audit log is broken: {broken}")),
    }
}

fn told(summary: &Summary) -> String {
    let Summary { files, lines, first, last, repairs, unfinished } = summary;
    let (Some(first), Some(last)) = (first, last) else {
        return "the audit log is empty\n".to_owned();
    };
    let mut text = format!(
        "the chain holds: {lines} lines in {files} file{}, from {} at {} to {} at {}\n",
        if *files == 1 { "" } else { "s" },
        first.0,
        first.1,
        last.0,
        last.1
    );
    if *repairs > 0 {
        text.push_str(&format!("{repairs} of them record a repair after a crash\n"));
    }
    if *unfinished > 0 {
        text.push_str(&format!(
            "{unfinished} bytes of a line that is being written are left out\n"
        ));
    }
    text
}
