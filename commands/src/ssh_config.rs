//! `ssh-config --user NAME`: Host blocks for the relay and for the terminals of a login user's windows,
//! so that stock `ssh` verifies both ends with no yes/no prompt.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tidegate_policy::model::{Label, Login, Terminal, Window};
use tidegate_policy::snapshot::Snapshot;
use tidegate_process::clock::{self, Now};

use super::known::CHECK;
use super::known_hosts::{RelayKeyArgs, RelayLines, relay_name};
use super::{Answer, Known};

/// Print an ssh_config for a login user.
///
/// Use it as `ssh -F FILE …` or by an Include line in ~/.ssh/config.
#[derive(Clone, Debug, Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    pub question: Question,
    /// Directory of manifests
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    #[command(flatten)]
    pub relay_key: RelayKeyArgs,
}

/// Whose configuration, and by which way.
#[derive(Clone, Debug, Args)]
pub struct Question {
    /// The login, as typed: alice, or bob.acme for a tenant's own
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Reach the relay here, where its name does not resolve yet
    #[arg(long, value_name = "HOST[:PORT]")]
    pub relay_address: Option<String>,
    /// The Relay to use, where there are several
    #[arg(long, value_name = "NAME")]
    pub relay: Option<String>,
    /// The program that ssh is to ask for host keys; this one by default
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

pub fn run(args: &SshConfigArgs) -> ExitCode {
    answer(args, clock::now()).print()
}

/// What `run` prints.
pub fn answer(args: &SshConfigArgs, now: Now) -> Answer {
    let known = match Known::read(&args.manifests, CHECK, now) {
        Ok(known) => known,
        Err(answer) => return answer,
    };
    // Says now what ssh would only fail with later.
    let command = || {
        RelayLines::read(&args.relay_key)?;
        known_hosts_command(args)
    };
    tell(&args.question, &known, command)
}

/// The configuration; `command` gives the words of the known-hosts command, quoted for ssh_config, or
/// says why it would not work.
pub fn tell(
    args: &Question,
    known: &Known,
    command: impl FnOnce() -> Result<String, String>,
) -> Answer {
    let Known { snapshot, place, warning, .. } = known;
    let login = Login::parse(&args.user).ok();
    let Some(user) = login.as_ref().and_then(|login| snapshot.user(login)) else {
        let shown = tidegate_policy::text::shown(&args.user, 80);
        return Answer::refused(format!("there is no login user {shown} in {place}"));
    };
    let relay = match known.relay(args.relay.as_deref()) {
        Ok(relay) => relay,
        Err(sentence) => return Answer::usage(sentence),
    };
    let command = match command() {
        Ok(command) => command,
        Err(sentence) => return Answer::usage(sentence),
    };
    let listener = relay.listeners.first().copied().unwrap_or(5938);
    let address = match args.relay_address.as_deref().map(|text| address(text, listener)) {
        None => None,
        Some(Some(address)) => Some(address),
        Some(None) => {
            return Answer::usage("--relay-address takes HOST or HOST:PORT, as in 127.0.0.1:2222");
        }
    };
    let name = relay_name(snapshot);
    let port = address.as_ref().map_or(listener, |(_, port)| *port);
    let mut text =
        format!("# Tidegate: {} at {}\n\nHost {name}\n", user.login, snapshot.mesh().domain);
    if let Some((host, _)) = &address {
        let _ = writeln!(text, "    HostName {host}\n    HostKeyAlias {name}");
    }
    let _ = writeln!(text, "    Port {port}\n    User {}", user.login);
    text.push_str(&trust(&command));
    let jump = format!("{}@{name}:{port}", user.login);
    for (terminal, windows) in terminals(snapshot, &snapshot.windows_of_user(user)) {
        text.push_str(&block(snapshot, &terminal, &windows, &jump, &command));
    }
    Answer { stderr: warning.clone(), ..Answer::good(text) }
}

/// The terminals that windows select, each with those windows, by name.
fn terminals<'a>(
    snapshot: &Snapshot,
    windows: &[&'a Arc<Window>],
) -> Vec<(Arc<Terminal>, Vec<&'a Arc<Window>>)> {
    let mut found: BTreeMap<Label, (Arc<Terminal>, Vec<&Arc<Window>>)> = BTreeMap::new();
    for window in windows {
        for terminal in snapshot.terminals_of_window(window) {
            let name = terminal.meta.key.name.clone();
            let entry = found.entry(name).or_insert_with(|| (Arc::clone(terminal), Vec::new()));
            entry.1.push(window);
        }
    }
    found.into_values().collect()
}

/// One terminal's block; a comment alone where no window of hers gives a service for ssh.
fn block(
    snapshot: &Snapshot,
    terminal: &Terminal,
    windows: &[&Arc<Window>],
    jump: &str,
    command: &str,
) -> String {
    let name = &terminal.meta.key.name;
    let allowed = |service: &Label| windows.iter().any(|window| window.services.contains(service));
    let mut services = terminal.services.iter().filter(|service| allowed(&service.name));
    let by_name = services.clone().find(|service| service.name.as_str() == "ssh");
    let Some(service) = by_name.or_else(|| services.find(|service| service.port == 22)) else {
        return format!("\n# {name}: no window gives its ssh service\n");
    };
    let full = format!("{name}.{}", snapshot.mesh().domain);
    let mut text = format!(
        "\nHost {name} {full}\n    HostName {full}\n    Port {}\n    ProxyJump {jump}\n",
        service.port
    );
    if terminal.host_keys.is_empty() {
        let _ = writeln!(text, "    # {name} declares no spec.hostKeys: ssh refuses it");
    }
    text.push_str(&trust(command));
    text
}

/// Who is believed about host keys: the command alone, and nobody is asked.
fn trust(command: &str) -> String {
    format!(
        "    KnownHostsCommand {command} %H\n    UserKnownHostsFile /dev/null\n    \
         GlobalKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n    CheckHostIP no\n    \
         UpdateHostKeys no\n    ForwardAgent no\n"
    )
}

/// The words of the known-hosts command, with absolute paths, quoted for ssh_config.
fn known_hosts_command(args: &SshConfigArgs) -> Result<String, String> {
    let program = program(args.question.program.as_deref())?;
    let (option, file) = match (&args.relay_key.state, &args.relay_key.relay_known_hosts) {
        (Some(state), _) => ("--state", state),
        (None, Some(file)) => ("--relay-known-hosts", file),
        (None, None) => return Err("give --state or --relay-known-hosts".into()),
    };
    let words =
        [quoted(&program)?, quoted(&absolute(&args.manifests)?)?, quoted(&absolute(file)?)?];
    let [program, manifests, file] = words;
    Ok(format!("{program} known-hosts --manifests {manifests} {option} {file}"))
}

/// The program that ssh is to run, by its absolute path: the one given, or this one.
pub fn program(given: Option<&Path>) -> Result<PathBuf, String> {
    match given {
        Some(program) => absolute(program),
        None => std::env::current_exe()
            .map_err(|error| format!("cannot tell where this program is: {error}; give --program")),
    }
}

/// A path that holds from every directory.
pub fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path)
        .map_err(|error| format!("the path {} cannot be made absolute: {error}", path.display()))
}

/// A path as one word: ssh takes quotes away, then expands percent signs.
pub fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
        format!("ssh_config cannot hold the path {}; use a plainer one", path.display())
    })?;
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                word.push('\\');
                word.push(c);
            }
            '%' => word.push_str("%%"),
            _ => word.push(c),
        }
    }
    word.push('"');
    Ok(word)
}

/// `HOST`, `HOST:PORT`, `[ADDR]:PORT` or a bare IPv6 address.
pub fn address(text: &str, default: u16) -> Option<(String, u16)> {
    let plain = |host: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        (!host.is_empty() && host.chars().all(good)).then(|| host.to_owned())
    };
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((text.to_owned(), default));
    }
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = if rest.is_empty() { default } else { rest.strip_prefix(':')?.parse().ok()? };
        return Some((plain(host)?, port));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Some((plain(host)?, port.parse().ok()?)),
        None => Some((plain(text)?, default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_or_take_the_listeners() {
        let of = |text| address(text, 5938);
        assert_eq!(of("relay.example.com"), Some(("relay.example.com".into(), 5938)));
        assert_eq!(of("127.0.0.1:2222"), Some(("127.0.0.1".into(), 2222)));
        assert_eq!(of("[::1]:2222"), Some(("::1".into(), 2222)));
        assert_eq!(of("::1"), Some(("::1".into(), 5938)));
        for bad in ["", ":22", "a b", "host:port", "host\nProxyCommand x", "[::1]x"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn paths_are_one_word_each() {
        assert_eq!(quoted(Path::new("/a b/50%\"")).unwrap(), "\"/a b/50%%\\\"\"");
        assert!(quoted(Path::new("/a\nProxyCommand x")).is_err());
    }
}
