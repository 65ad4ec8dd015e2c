//! Asks what the command line asks, and prints the answer.

use std::process::ExitCode;

use clap::CommandFactory as _;
use tidegate_commands::{Answer, check, ssh_config, who_can_reach};
use tidegate_process::clock::{self, Now};

use crate::args::{Cli, Command, SshConfigArgs, Where, WhoCanReachArgs};
use crate::cluster::{Cluster, Wanted, World, presence};
use crate::connect::{self, ConnectArgs};
use crate::explain::{self, ExplainArgs, Live};
use crate::output::reshaped;
use crate::presence::Presence;
use crate::sessions::{self, SessionsArgs};
use crate::source::Source;
use crate::{cut, terminals, trust, windows};

/// Prints the answer; its code is the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(answer(cli, clock::now())).print(),
        Err(error) => Answer::usage(format!("cannot start: {error}")).print(),
    }
}

/// What `run` prints, at a given time.
pub async fn answer(cli: Cli, now: Now) -> Answer {
    let Cli { place, command } = cli;
    match command {
        Command::Validate(args) => check::answer(&args, now),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-tidegate", &mut script);
            Answer::good(String::from_utf8_lossy(&script).into_owned())
        }
        Command::Version => {
            Answer::good(format!("kubectl-tidegate {}\n", env!("CARGO_PKG_VERSION")))
        }
        command => asked(&place, command, now).await.unwrap_or_else(|answer| answer),
    }
}

/// The commands that ask a cluster or a directory. Both the good and the other answer are answers.
async fn asked(place: &Where, command: Command, now: Now) -> Result<Answer, Answer> {
    let source = Source::of(place).await?;
    Ok(match command {
        Command::Windows(args) => {
            let World { known, .. } = source.world(Wanted::ALL, now).await?;
            windows::tell(&known, &args, source.listed(), now.wall)
        }
        Command::Terminals(args) => {
            let world = source.world(Wanted::ALL, now).await?;
            let presence = present(&source, &world).await;
            terminals::tell(&world.known, &presence, &args, source.listed(), now.wall)
        }
        Command::WhoCanReach(args) => who(&source, &args, now).await,
        Command::Explain(args) => explain(&source, &args, now).await?,
        Command::Sessions(args) => {
            sessions(cluster(&source, "sessions")?, &source, &args, now).await?
        }
        Command::Cut(args) => cut::run(cluster(&source, "cut SESSION")?, &args).await,
        Command::Connect(args) => connect(&source, &args, now).await?,
        Command::KnownHosts(args) => {
            let world = source.world(trust::wanted(args.host.as_deref()), now).await?;
            trust::tell(&world, &source, &args)
        }
        Command::SshConfig(args) => config(&source, &args, now).await?,
        Command::Validate(_) | Command::Completion { .. } | Command::Version => Answer::default(),
    })
}

/// What only a cluster knows. `same`: the relay's own command for it.
fn cluster<'a>(source: &'a Source, same: &str) -> Result<&'a Cluster, Answer> {
    match source {
        Source::Cluster(cluster) => Ok(cluster),
        Source::Manifests { .. } => Err(Answer::usage(format!(
            "manifests know no sessions; `tidegate-relay {same} --state DIR` asks the relay that serves them"
        ))),
    }
}

async fn present(source: &Source, world: &World) -> Presence {
    match source {
        Source::Cluster(cluster) => presence(cluster, world).await,
        Source::Manifests { .. } => Presence::unknown(
            "manifests do not tell; `tidegate-relay status --state DIR` asks the relay that serves them",
        ),
    }
}

async fn who(source: &Source, args: &WhoCanReachArgs, now: Now) -> Answer {
    let world = source.world(Wanted::ALL, now).await;
    let output = args.output.offline();
    let known = || world.map(|world| world.known);
    reshaped(who_can_reach::tell(&args.question, output, known, now), args.output)
}

async fn explain(source: &Source, args: &ExplainArgs, now: Now) -> Result<Answer, Answer> {
    let world = source.world(Wanted::ALL, now).await?;
    let live = match source {
        // A question about another time is not about who is there now.
        Source::Cluster(cluster) if args.at.is_none() => {
            let sessions = sessions::list(cluster, world.scope.as_deref(), None).await.ok();
            Live { presence: presence(cluster, &world).await, sessions }
        }
        _ => Live { presence: present(source, &world).await, sessions: None },
    };
    Ok(explain::tell(&world.known, &live, args, now.wall))
}

async fn sessions(
    cluster: &Cluster,
    source: &Source,
    args: &SessionsArgs,
    now: Now,
) -> Result<Answer, Answer> {
    let found = sessions::select(cluster, args, source.listed()).await?;
    let schedules = sessions::schedules(cluster, &found).await;
    Ok(sessions::tell(&found, &schedules, args, source.listed(), now.wall))
}

async fn connect(source: &Source, args: &ConnectArgs, now: Now) -> Result<Answer, Answer> {
    let target = connect::target(&args.target)?;
    let world = source.world(trust::wanted(Some(target.terminal)), now).await?;
    let plan = connect::plan(&world, source, args)?;
    Ok(connect::run(&plan, args))
}

async fn config(source: &Source, args: &SshConfigArgs, now: Now) -> Result<Answer, Answer> {
    let world = source.world(Wanted::ALL, now).await?;
    let command = || {
        // Says now what ssh would only fail with later.
        trust::relay_lines(&world, source, &args.relay_key)?;
        trust::command(source, &world, &args.relay_key, args.question.program.as_deref())
    };
    Ok(ssh_config::tell(&args.question, &world.known, command))
}
