//! The command line of `tidegate-operator`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tidegate_process::logging::LogFormat;

/// The operator of Tidegate: turns its resources into a running relay fleet.
#[derive(Debug, Parser)]
#[command(name = "tidegate-operator", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers, or stand by while another replica leads
    Run(RunArgs),
}

/// Run the controllers, or stand by while another replica leads.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The operator's own namespace, where its Lease and the authority's keys are; without it
    /// POD_NAMESPACE, else the namespace of the kubeconfig or of the service account
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// The relays' image; without it RELAY_IMAGE, else the image of the operator's own version
    #[arg(long, value_name = "IMAGE")]
    pub relay_image: Option<String>,
    /// The form of the log on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// A level (error, warn, info, debug, trace) or a filter such as tidegate_operator=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

pub fn run(cli: &Cli) -> ExitCode {
    match &cli.command {
        Command::Run(args) => crate::run::run(args),
    }
}
