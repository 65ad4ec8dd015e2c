//! `kubectl-tidegate`: parses the command line and calls `run`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    tidegate_cli::run(tidegate_cli::Cli::parse())
}
