//! The command line of `tidegate-relay`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The relay of a Tidegate mesh: lets support staff reach terminals inside support windows only.
#[derive(Debug, Parser)]
#[command(name = "tidegate-relay", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate, with its policy from a directory of YAML.
    Serve(Serve),
    /// Say what is wrong with a directory of manifests, or who gains or loses reach between two.
    Check(Check),
    /// Show how a running relay is.
    Status(Running),
    /// List the sessions of a running relay.
    Sessions(Running),
    /// End one session of a running relay.
    Cut(Cut),
    /// Say who may reach a terminal, and when.
    WhoCanReach(WhoCanReach),
    /// Print known_hosts lines for the relay and the terminals.
    KnownHosts(crate::known_hosts::Options),
    /// Print an ssh_config for a login user.
    SshConfig(crate::ssh_config::Options),
    /// Work on the audit log.
    Audit(Audit),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Directory of manifests: *.yaml, *.yml and *.json, read recursively.
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Directory of what the relay keeps: keys, audit log, claims, session records.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Listen here instead of on the Relay's listeners; may be given more than once.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Serve /metrics, /healthz and /readyz here.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// The Relay resource that this process is; needed where the manifests hold more than one.
    #[arg(long, value_name = "NAME")]
    pub relay: Option<String>,
    /// The form of the log on standard error.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log: LogFormat,
    /// Copy the audit log's lines to standard output.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub audit_stdout: bool,
    /// Start a new file of the audit log at this size.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub audit_rotate: u64,
}

#[derive(Debug, Args)]
struct Check {
    /// The directory to check.
    #[arg(required_unless_present = "diff", conflicts_with = "diff")]
    dir: Option<PathBuf>,
    /// Compare two directories: who gains or loses reach in the next 7 days.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    diff: Option<Vec<PathBuf>>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct Running {
    /// The state directory of the running relay.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct Cut {
    /// The session's name, as `sessions` shows it.
    session: String,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, Args)]
struct WhoCanReach {
    /// The terminal's name.
    terminal: String,
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// At this instant, RFC 3339; now by default.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["from", "to"])]
    at: Option<jiff::Timestamp>,
    #[arg(long, value_name = "TIME", requires = "to")]
    from: Option<jiff::Timestamp>,
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<jiff::Timestamp>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the chain of the audit log; names the first line that does not fit.
    Verify {
        /// The relay's state directory.
        state: PathBuf,
    },
}
