//! `tidegate-relay status | sessions | cut SESSION`: the operator's end of the control socket.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OutputFormat {
    /// Tables for people.
    #[default]
    Text,
    Json,
}

#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The state directory of the running relay
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: OutputFormat,
}

#[derive(Args, Clone, Debug)]
pub struct SessionsArgs {
    /// The state directory of the running relay
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: OutputFormat,
}

#[derive(Args, Clone, Debug)]
pub struct CutArgs {
    /// The session's name: ss-…
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// The state directory of the running relay
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: OutputFormat,
}

pub fn run_status(_args: &StatusArgs) -> ExitCode {
    unimplemented!()
}

pub fn run_sessions(_args: &SessionsArgs) -> ExitCode {
    unimplemented!()
}

pub fn run_cut(_args: &CutArgs) -> ExitCode {
    unimplemented!()
}
