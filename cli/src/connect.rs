//! `connect`: stock ssh through the relay to a terminal, both host keys verified by `known-hosts`, nobody
//! asked. It becomes ssh, so that the terminal, signals and the exit code are ssh's own.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use tidegate_commands::known_hosts::relay_name;
use tidegate_commands::{Answer, ssh_config};
use tidegate_policy::model::{Login, Service, Terminal};
use tidegate_policy::text::shown;

use crate::cluster::World;
use crate::source::Source;
use crate::terminals::find;
use crate::trust::{self, RelayKeyArgs};

/// Reach a terminal with ssh, both host keys verified, with no yes/no question.
///
/// It does what `ssh -J LOGIN@relay USER@TERMINAL` does, with the host keys of the cluster or the
/// manifests. A service that is not ssh is made reachable on a local port instead. Exit code: ssh's; 1 when
/// there is no such terminal or service, 2 when the question could not be asked.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Who you are to the relay, and where to
    #[arg(value_name = "LOGIN@TERMINAL[/SERVICE]")]
    pub target: String,
    /// A command to run there
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// The user at the terminal [default: as ssh has it]
    #[arg(short = 'l', long, value_name = "NAME")]
    pub user: Option<String>,
    /// Your private key [default: as ssh has it]
    #[arg(short, long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// For a service that is not ssh: the local port [default: a free one]
    #[arg(short = 'p', long, value_name = "PORT")]
    pub local_port: Option<u16>,
    /// Take the service for ssh, whatever its name
    #[arg(long, conflicts_with = "local_port")]
    pub ssh: bool,
    /// Reach the relay here, where its name does not resolve yet
    #[arg(long, value_name = "HOST[:PORT]")]
    pub relay_address: Option<String>,
    /// The Relay to use, where there are several
    #[arg(long, value_name = "NAME")]
    pub relay: Option<String>,
    #[command(flatten)]
    pub relay_key: RelayKeyArgs,
    /// Print the ssh command and do not run it
    #[arg(long)]
    pub print: bool,
}

/// Who to whom, as typed.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub login: Login,
    pub terminal: &'a str,
    pub service: Option<&'a str>,
}

/// Takes `LOGIN@TERMINAL[/SERVICE]`.
pub fn target(typed: &str) -> Result<Target<'_>, Answer> {
    let bad = || {
        Answer::usage(format!(
            "{} is no target; write LOGIN@TERMINAL or LOGIN@TERMINAL/SERVICE, as in alice@kiosk-17",
            shown(typed, 80)
        ))
    };
    let (login, place) = typed.split_once('@').ok_or_else(bad)?;
    let login = Login::parse(login).map_err(|_| bad())?;
    let (terminal, service) = match place.split_once('/') {
        None => (place, None),
        Some((terminal, service)) => (terminal, Some(service)),
    };
    if terminal.is_empty() || service == Some("") {
        Err(bad())
    } else {
        Ok(Target { login, terminal, service })
    }
}

/// The ssh that is to run, and a word for the user before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Without the program itself.
    pub words: Vec<String>,
    pub note: Option<String>,
}

/// What is to be run, or the answer why not.
pub fn plan(world: &World, source: &Source, args: &ConnectArgs) -> Result<Plan, Answer> {
    let Target { login, terminal: typed, service } = target(&args.target)?;
    let terminal = find(&world.known, typed)?;
    let service = pick(terminal, service)?;
    let relay = world.known.relay(args.relay.as_deref()).map_err(Answer::usage)?;
    trust::relay_lines(world, source, &args.relay_key).map_err(Answer::usage)?;
    let asks = trust::command(source, world, &args.relay_key, None).map_err(Answer::usage)?;
    let listener = relay.listeners.first().copied().unwrap_or(5938);
    let address = match &args.relay_address {
        None => None,
        Some(text) => Some(ssh_config::address(text, listener).ok_or_else(|| {
            Answer::usage("--relay-address takes HOST or HOST:PORT, as in 127.0.0.1:2222")
        })?),
    };
    let mut common = options(&asks);
    if let Some(identity) = &args.identity {
        let path = ssh_config::quoted(identity).map_err(Answer::usage)?;
        common.extend([
            "-o".to_owned(),
            format!("IdentityFile={path}"),
            "-o".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
        ]);
    }
    let relay_host = relay_name(&world.known.snapshot);
    let mut hop = common.clone();
    let port = address.as_ref().map_or(listener, |(_, port)| *port);
    if let Some((host, _)) = &address {
        for option in [format!("HostName={host}"), format!("HostKeyAlias={relay_host}")] {
            hop.extend(["-o".to_owned(), option]);
        }
    }
    hop.extend(["-p".to_owned(), port.to_string()]);
    let door = format!("{login}@{relay_host}");
    let name = &terminal.meta.key.name;
    let host = format!("{name}.{}", world.known.snapshot.mesh().domain);
    if !(args.ssh || is_ssh(service)) {
        return forward(args, hop, door, &host, terminal, service);
    }
    if terminal.host_keys.is_empty() {
        return Err(Answer::refused(format!(
            "{name} declares no spec.hostKeys, so nothing could tell it from another machine; add its sshd's \
             public host keys"
        )));
    }
    let mut words = common;
    let proxy = hop.iter().map(|word| shell(word).replace('%', "%%")).collect::<Vec<_>>().join(" ");
    words.push("-o".into());
    words.push(format!("ProxyCommand=ssh {proxy} -W [%h]:%p -- {}", shell(&door)));
    words.extend(["-p".to_owned(), service.port.to_string()]);
    if let Some(user) = &args.user {
        let plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '\\');
        if user.is_empty() || user.starts_with('-') || !user.chars().all(plain) {
            return Err(Answer::usage(format!("{} is no name of a user", shown(user, 80))));
        }
        words.extend(["-l".to_owned(), user.clone()]);
    }
    words.extend(["--".to_owned(), host]);
    words.extend(args.command.iter().cloned());
    Ok(Plan { words, note: None })
}

/// The service that is meant: the one named, else the one for ssh.
fn pick<'a>(terminal: &'a Terminal, service: Option<&str>) -> Result<&'a Service, Answer> {
    let name = &terminal.meta.key.name;
    let all =
        || terminal.services.iter().map(|s| s.name.to_string()).collect::<Vec<_>>().join(", ");
    match service {
        Some(service) => terminal.service(service).ok_or_else(|| {
            let service = shown(service, 63);
            Answer::refused(format!("{name} has no service {service}; it declares {}", all()))
        }),
        None => terminal
            .service("ssh")
            .or_else(|| terminal.services.iter().find(|service| service.port == 22))
            .ok_or_else(|| {
                Answer::refused(format!("{name} has no service for ssh; name one of {}", all()))
            }),
    }
}

fn is_ssh(service: &Service) -> bool {
    service.name.as_str() == "ssh" || service.port == 22
}

/// A local port that leads to the service, by the connection to the relay alone.
fn forward(
    args: &ConnectArgs,
    hop: Vec<String>,
    door: String,
    host: &str,
    terminal: &Terminal,
    service: &Service,
) -> Result<Plan, Answer> {
    let name = &terminal.meta.key.name;
    if !args.command.is_empty() || args.user.is_some() {
        return Err(Answer::usage(format!(
            "{name}/{} is not ssh, so there is nobody to log in as and nothing to run; give --ssh if it is",
            service.name
        )));
    }
    let local = match args.local_port {
        Some(port) => port,
        None => {
            free_port().ok_or_else(|| Answer::usage("no local port is free; give --local-port"))?
        }
    };
    let mut words = hop;
    words.extend(["-N", "-o", "ExitOnForwardFailure=yes", "-L"].map(String::from));
    words.push(format!("127.0.0.1:{local}:{host}:{}", service.port));
    words.extend(["--".to_owned(), door]);
    let note =
        format!("{name}/{} is at 127.0.0.1:{local} until you end this with Ctrl-C", service.name);
    Ok(Plan { words, note: Some(note) })
}

fn free_port() -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    listener.local_addr().ok().map(|address| address.port())
}

/// What both hops of ssh are told: the command alone is believed, and nobody is asked.
fn options(asks: &str) -> Vec<String> {
    let options = [
        format!("KnownHostsCommand={asks} %H"),
        "UserKnownHostsFile=/dev/null".into(),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=yes".into(),
        "CheckHostIP=no".into(),
        "UpdateHostKeys=no".into(),
        "ForwardAgent=no".into(),
    ];
    options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Prints the command, or becomes ssh. Comes back only with an answer.
pub fn run(plan: &Plan, args: &ConnectArgs) -> Answer {
    if args.print {
        let words: Vec<String> = std::iter::once("ssh")
            .chain(plan.words.iter().map(String::as_str))
            .map(shell)
            .collect();
        return Answer::good(words.join(" ") + "\n");
    }
    if let Some(note) = &plan.note {
        eprintln!("{note}");
    }
    let error = Command::new("ssh").args(&plan.words).exec();
    Answer::usage(format!("cannot run ssh: {error}; install OpenSSH's client"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_login_terminal_and_perhaps_a_service() {
        let login = Login::parse("bob.acme").unwrap();
        assert_eq!(
            target("bob.acme@kiosk-17/web").unwrap(),
            Target { login, terminal: "kiosk-17", service: Some("web") }
        );
        for bad in ["kiosk-17", "@kiosk-17", "alice@", "alice@kiosk-17/", "Alice@k", "-x@k"] {
            assert_eq!(target(bad).unwrap_err().code, 2, "{bad}");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell("alice@relay"), "alice@relay");
        assert_eq!(shell("a b'c$(d)"), r"'a b'\''c$(d)'");
        assert_eq!(shell(""), "''");
    }
}
