//! The command line.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "tidegate-relay", version, about)]
pub struct Cli {}

pub fn run(_cli: Cli) -> ExitCode {
    ExitCode::SUCCESS
}
