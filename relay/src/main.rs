//! `tidegate-relay`: parses the command line and calls `run`.

use std::process::ExitCode;

use clap::Parser as _;

/// Set up by `.cargo/config.toml`; docs/adr/0010 says why.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidegate_relay::cli::run(tidegate_relay::cli::Cli::parse())
}
