//! `tidegate-relay`: parses the command line and calls `run`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    tidegate_relay::cli::run(tidegate_relay::cli::Cli::parse())
}
