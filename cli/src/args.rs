//! The command line of `kubectl-tidegate`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use tidegate_commands::check::CheckArgs;
use tidegate_commands::{Answer, ssh_config, who_can_reach};

use crate::connect::ConnectArgs;
use crate::cut::CutArgs;
use crate::explain::ExplainArgs;
use crate::output::Output;
use crate::sessions::SessionsArgs;
use crate::terminals::TerminalsArgs;
use crate::trust::KnownHostsArgs;
use crate::windows::WindowsArgs;

/// Ask a Tidegate mesh who may reach which terminals, when and why, and connect or cut.
///
/// Exit code: 0 for the good answer, 1 for the other, 2 when the question could not be asked.
#[derive(Debug, Parser)]
#[command(name = "kubectl-tidegate", bin_name = NAME, version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub place: Where,
    #[command(subcommand)]
    pub command: Command,
}

/// As people type it, where it is kubectl's plugin.
pub const NAME: &str = "kubectl tidegate";

/// Where the answer is taken from.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Where to look")]
pub struct Where {
    /// Ask a directory of manifests instead of a cluster
    #[arg(long, global = true, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// The kubeconfig file [default: as kubectl]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace to list [default: the context's]; of several Meshes, it chooses its own
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// List all namespaces of the mesh
    #[arg(short = 'A', long, global = true)]
    pub all_namespaces: bool,
    /// The Mesh, where there are several
    #[arg(long, global = true, value_name = "[NAMESPACE/]NAME")]
    pub mesh: Option<String>,
}

impl Where {
    /// Whether it makes sense together; clap sees what stands before a subcommand and behind it apart.
    pub(crate) fn clash(&self) -> Result<(), Answer> {
        let cluster = self.kubeconfig.is_some() || self.context.is_some() || self.mesh.is_some();
        if self.manifests.is_some() && cluster {
            return Err(Answer::usage(
                "--manifests asks a directory, so --kubeconfig, --context and --mesh make no sense with it",
            ));
        }
        if self.all_namespaces && self.namespace.is_some() {
            return Err(Answer::usage("give one of -n and -A"));
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List support windows: which are open now, and when the others open
    Windows(WindowsArgs),
    /// List terminals: which are connected, and which a window opens now
    Terminals(TerminalsArgs),
    /// Say who may reach a terminal, and when
    WhoCanReach(WhoCanReachArgs),
    /// Say why a login user may or may not reach a terminal, in the relay's words
    Explain(ExplainArgs),
    /// List the sessions of a cluster's relays
    Sessions(SessionsArgs),
    /// End sessions, and wait until they have ended
    Cut(CutArgs),
    /// Reach a terminal with ssh, both host keys verified, with no yes/no question
    Connect(ConnectArgs),
    /// Print known_hosts lines for the relay and the terminals
    KnownHosts(KnownHostsArgs),
    /// Print an ssh_config for a login user
    SshConfig(SshConfigArgs),
    /// Say what is wrong with a directory of manifests, or who gains or loses reach between two
    Validate(CheckArgs),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Say who may reach a terminal, and when.
///
/// Without a time: now. Exit code: 0, also when nobody may; 1 when there is no such terminal; 2 when the
/// question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct WhoCanReachArgs {
    #[command(flatten)]
    pub question: who_can_reach::Question,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Print an ssh_config for a login user.
///
/// Use it as `ssh -F FILE …` or by an Include line in ~/.ssh/config.
#[derive(Clone, Debug, Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    pub question: ssh_config::Question,
    #[command(flatten)]
    pub relay_key: crate::trust::RelayKeyArgs,
}
