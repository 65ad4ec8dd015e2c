//! `known-hosts`: known_hosts lines for the relay and the terminals, from manifests and the relay's
//! own line, never from a relay. Made to be a `KnownHostsCommand`.
//!
//! OpenSSH asks twice, with the bare name to order its algorithms and with `[host]:port` to verify: the
//! name is printed as it was given.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tidegate_policy::model::{Label, Terminal};
use tidegate_policy::snapshot::Snapshot;
use tidegate_process::clock::{self, Now};

use super::known::CHECK;
use super::{Answer, Known};

/// The largest file of the relay's own lines that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Where the relay's own host key is known from.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RelayKeyArgs {
    /// The relay's state directory, where `serve` keeps its line
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// A known_hosts file with the relay's line: a copy of STATE/known_hosts
    #[arg(long, value_name = "FILE")]
    pub relay_known_hosts: Option<PathBuf>,
}

impl RelayKeyArgs {
    /// The file that the relay's lines are in.
    pub fn file(&self) -> PathBuf {
        match (&self.state, &self.relay_known_hosts) {
            (Some(state), _) => state.join("known_hosts"),
            (None, Some(file)) => file.clone(),
            (None, None) => PathBuf::new(),
        }
    }
}

/// Print known_hosts lines for the relay and the terminals.
///
/// In ssh_config: KnownHostsCommand /path/to/tidegate-relay known-hosts --manifests DIR --state DIR %H
#[derive(Clone, Debug, Args)]
pub struct KnownHostsArgs {
    /// Print only the lines for this host, under the name as given: name or [name]:port
    pub host: Option<String>,
    /// Directory of manifests
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    #[command(flatten)]
    pub relay: RelayKeyArgs,
}

pub fn run(args: &KnownHostsArgs) -> ExitCode {
    answer(args, clock::now()).print()
}

/// What `run` prints.
pub fn answer(args: &KnownHostsArgs, now: Now) -> Answer {
    // ssh runs this several times for one connection.
    let known = match Known::read_without_windows(&args.manifests, CHECK, now) {
        Ok(known) => known,
        Err(answer) => return answer,
    };
    match RelayLines::read(&args.relay) {
        Ok(relay) => tell(&known, &relay, args.host.as_deref()),
        Err(sentence) => Answer::usage(sentence),
    }
}

/// The lines for one host, under the name as given, or all of them.
pub fn tell(known: &Known, relay: &RelayLines, host: Option<&str>) -> Answer {
    match host {
        // ssh takes any word on stderr for the user, and any code but 0 for the end.
        Some(host) => Answer::good(lines_for(&known.snapshot, relay, host)),
        None => Answer {
            stderr: known.warning.clone(),
            ..Answer::good(all_lines(&known.snapshot, relay))
        },
    }
}

/// The relay's own known_hosts lines.
#[derive(Clone, Debug, Default)]
pub struct RelayLines {
    /// The lines as they are.
    text: String,
    /// Names without brackets and ports, in lower case.
    names: BTreeSet<String>,
    /// `type base64`, each once.
    keys: BTreeSet<String>,
}

impl RelayLines {
    /// Reads them from where `serve` wrote them, or from a copy.
    pub fn read(args: &RelayKeyArgs) -> Result<Self, String> {
        let file = args.file();
        let path = file.display();
        let size = fs::metadata(&file).map(|data| data.len());
        let text = match size {
            Ok(size) if size > MAX_BYTES => {
                return Err(format!("{path} is larger than {MAX_BYTES} bytes"));
            }
            _ => fs::read_to_string(&file).map_err(|error| {
                format!(
                    "cannot read the relay's host key from {path}: {error}; \
                     `tidegate-relay serve` writes it to STATE/known_hosts"
                )
            })?,
        };
        let lines = Self::parse(&text);
        if lines.keys.is_empty() {
            return Err(format!("{path} holds no known_hosts line of a relay"));
        }
        Ok(lines)
    }

    /// Takes lines of the form `names type base64`; others are passed over.
    pub fn parse(text: &str) -> Self {
        let mut lines = Self::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let (Some(names), Some(kind), Some(key)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // Comments, and markers such as @revoked, say nothing that is true of a relay.
            if names.starts_with(['#', '@', '|']) {
                continue;
            }
            let _ = writeln!(lines.text, "{line}");
            lines.names.extend(names.split(',').map(|name| bare(name).to_ascii_lowercase()));
            lines.keys.insert(format!("{kind} {key}"));
        }
        lines
    }
}

/// The relay's name under the mesh's domain.
pub fn relay_name(snapshot: &Snapshot) -> String {
    format!("relay.{}", snapshot.mesh().domain)
}

/// The terminal that a name means: its name, or that under the mesh's domain, in any case and with
/// one trailing dot at most.
pub fn terminal_name(snapshot: &Snapshot, host: &str) -> Option<Label> {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let suffix = format!(".{}", snapshot.mesh().domain);
    Label::parse(host.strip_suffix(&suffix).unwrap_or(host)).ok()
}

/// `[host]:port` or `host`, without the rest.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    inner.map_or(host, |(inner, _)| inner)
}

fn port(host: &str) -> Option<u16> {
    host.rsplit_once("]:")?.1.parse().ok()
}

/// The lines for one host, under the name as given; none where the name is not ours.
fn lines_for(snapshot: &Snapshot, relay: &RelayLines, host: &str) -> String {
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
        return String::new();
    }
    let name = bare(host).to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let mut text = String::new();
    if name == relay_name(snapshot) || relay.names.contains(name) {
        for key in &relay.keys {
            let _ = writeln!(text, "{host} {key}");
        }
        return text;
    }
    let terminal = match terminal_name(snapshot, name) {
        // Over the relay, localhost and a listenPort is a terminal too.
        _ if is_loopback(name) => {
            port(host).and_then(|port| snapshot.terminal_by_listen_port(port))
        }
        Some(label) => snapshot.terminal(&label),
        None => None,
    };
    for key in terminal.iter().flat_map(|terminal| &terminal.host_keys) {
        let _ = writeln!(text, "{host} {key}");
    }
    text
}

fn is_loopback(name: &str) -> bool {
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

/// Every line: the relay's, then those of the terminals that have host keys, by name.
fn all_lines(snapshot: &Snapshot, relay: &RelayLines) -> String {
    let mut text = relay.text.clone();
    let name = relay_name(snapshot);
    if !relay.names.contains(&name) {
        for key in &relay.keys {
            let _ = writeln!(text, "{name} {key}");
        }
    }
    let mut terminals: Vec<_> = snapshot.terminals().collect();
    terminals.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));
    for terminal in terminals {
        let hosts = hosts(snapshot, terminal).join(",");
        for key in &terminal.host_keys {
            let _ = writeln!(text, "{hosts} {key}");
        }
    }
    text
}

/// All the names by which ssh may know a terminal: bare for port 22, with the port for others.
fn hosts(snapshot: &Snapshot, terminal: &Terminal) -> Vec<String> {
    let name = &terminal.meta.key.name;
    let full = format!("{name}.{}", snapshot.mesh().domain);
    let mut hosts = vec![full.clone(), name.to_string()];
    for service in terminal.services.iter().filter(|service| service.port != 22) {
        hosts.push(format!("[{full}]:{}", service.port));
        hosts.push(format!("[{name}]:{}", service.port));
    }
    for port in terminal.services.iter().filter_map(|service| service.listen_port) {
        hosts.push(format!("[localhost]:{port}"));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_brackets_and_port() {
        assert_eq!(bare("[relay.example.com]:5938"), "relay.example.com");
        assert_eq!(bare("relay.example.com"), "relay.example.com");
        assert_eq!(port("[relay.example.com]:5938"), Some(5938));
        assert_eq!(port("relay.example.com"), None);
    }

    #[test]
    fn only_plain_lines_of_a_relay_are_taken() {
        let text = "# a comment\n@revoked * ssh-ed25519 AAAB\n|1|a|b ssh-ed25519 AAAC\n\
                    [Relay.example.com]:5938,[relay.example.com]:80 ssh-ed25519 AAAA relay\n";
        let lines = RelayLines::parse(text);
        assert_eq!(lines.names.iter().collect::<Vec<_>>(), ["relay.example.com"]);
        assert_eq!(lines.keys.iter().collect::<Vec<_>>(), ["ssh-ed25519 AAAA"]);
    }
}
