//! `tidegate-operator`: parses the command line and calls `run`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    tidegate_operator::cli::run(&tidegate_operator::cli::Cli::parse())
}
