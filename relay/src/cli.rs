//! The command line of `tidegate-relay`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidegate_commands::{check, known_hosts, ssh_config, who_can_reach};

use crate::commands::audit;
use crate::control::{self, CutArgs, SessionsArgs, StatusArgs};
use crate::serve::{self, ServeArgs};

/// The relay of a Tidegate mesh: lets support staff reach terminals inside support windows only.
#[derive(Debug, Parser)]
#[command(name = "tidegate-relay", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate, with its policy from a directory of YAML or from a cluster
    Serve(ServeArgs),
    /// Say what is wrong with a directory of manifests, or who gains or loses reach between two
    Check(check::CheckArgs),
    /// Show how a running relay is
    Status(StatusArgs),
    /// List the sessions of a running relay
    Sessions(SessionsArgs),
    /// End one session of a running relay
    Cut(CutArgs),
    /// Say who may reach a terminal, and when
    WhoCanReach(who_can_reach::WhoCanReachArgs),
    /// Print known_hosts lines for the relay and the terminals
    KnownHosts(known_hosts::KnownHostsArgs),
    /// Print an ssh_config for a login user
    SshConfig(ssh_config::SshConfigArgs),
    /// Work on the audit log
    Audit(audit::AuditArgs),
}

pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => control::run_status(&args),
        Command::Sessions(args) => control::run_sessions(&args),
        Command::Cut(args) => control::run_cut(&args),
        Command::WhoCanReach(args) => who_can_reach::run(&args),
        Command::KnownHosts(args) => known_hosts::run(&args),
        Command::SshConfig(args) => ssh_config::run(&args),
        Command::Audit(args) => audit::run(&args),
    }
}
