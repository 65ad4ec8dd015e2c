//! Who is believed about host keys: `known-hosts`, and what makes ssh ask it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tidegate_commands::Answer;
use tidegate_commands::known_hosts::{self, RelayLines, relay_name};
use tidegate_commands::ssh_config::{absolute, program, quoted};

use crate::cluster::{Wanted, World};
use crate::source::Source;

/// Print known_hosts lines for the relay and the terminals.
///
/// In ssh_config: KnownHostsCommand /path/to/kubectl-tidegate known-hosts --mesh NAMESPACE/NAME %H
#[derive(Clone, Debug, Args)]
pub struct KnownHostsArgs {
    /// Print only the lines for this host, under the name as given: name or [name]:port
    pub host: Option<String>,
    #[command(flatten)]
    pub relay_key: RelayKeyArgs,
}

/// Where the relay's own host key is known from. In a cluster the Mesh's status has it.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub struct RelayKeyArgs {
    /// With --manifests: the relay's state directory, where `tidegate-relay serve` keeps its line
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// A known_hosts file with the relay's line: a copy of STATE/known_hosts
    #[arg(long, value_name = "FILE")]
    pub relay_known_hosts: Option<PathBuf>,
}

impl RelayKeyArgs {
    fn offline(&self) -> Option<known_hosts::RelayKeyArgs> {
        let Self { state, relay_known_hosts } = self.clone();
        let given = state.is_some() || relay_known_hosts.is_some();
        given.then_some(known_hosts::RelayKeyArgs { state, relay_known_hosts })
    }
}

/// The relay's own known_hosts lines: from the file that is given, else from the Mesh's status.
pub fn relay_lines(
    world: &World,
    source: &Source,
    args: &RelayKeyArgs,
) -> Result<RelayLines, String> {
    if let Some(args) = args.offline() {
        return RelayLines::read(&args);
    }
    if matches!(source, Source::Manifests { .. }) {
        return Err(
            "manifests hold no host key of a relay; give --state DIR or --relay-known-hosts FILE"
                .into(),
        );
    }
    if world.host_keys.is_empty() {
        return Err(format!(
            "mesh {} does not tell its relays' host key yet (status.hostKeys); wait until the operator has \
             written it, or give --relay-known-hosts FILE",
            world.mesh
        ));
    }
    Ok(published(world))
}

/// The lines as a relay publishes its own: under its name and the domain, with each port but 22.
fn published(world: &World) -> RelayLines {
    let domain = &world.known.snapshot.mesh().domain;
    let relay = relay_name(&world.known.snapshot);
    let mut ports: Vec<u16> =
        world.known.relays.iter().flat_map(|relay| relay.listeners.iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    let named = |host: &str, port: u16| match port {
        22 => host.to_owned(),
        port => format!("[{host}]:{port}"),
    };
    let mut names: Vec<String> =
        ports.iter().flat_map(|port| [named(&relay, *port), named(domain, *port)]).collect();
    if names.is_empty() {
        names = vec![relay, domain.to_string()];
    }
    let mut text = String::new();
    for key in &world.host_keys {
        let mut fields = key.split_whitespace();
        if let (Some(kind), Some(key)) = (fields.next(), fields.next()) {
            let _ = writeln!(text, "{} {kind} {key}", names.join(","));
        }
    }
    RelayLines::parse(&text)
}

/// What of the world `known-hosts` needs: for one host, the terminals of that name alone. ssh runs it several
/// times for one connection.
pub fn wanted(host: Option<&str>) -> Wanted<'_> {
    let all = Wanted { terminals: true, ..Wanted::RELAYS };
    let Some(host) = host else { return all };
    let inner = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let bare = inner.map_or(host, |(inner, _)| inner);
    let name = bare.split('.').next().unwrap_or_default();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let loopback = matches!(bare, "localhost" | "127.0.0.1" | "::1");
    if loopback && inner.is_none() {
        // Without a listenPort it is no terminal. ssh asks so, in order to sort its algorithms.
        return Wanted::RELAYS;
    }
    // With one it may be any, and a selector takes names as they are written.
    if !plain || loopback || name.bytes().any(|b| b.is_ascii_uppercase()) {
        return all;
    }
    Wanted { named: Some(name), ..Wanted::RELAYS }
}

/// The answer of `known-hosts`.
pub fn tell(world: &World, source: &Source, args: &KnownHostsArgs) -> Answer {
    match relay_lines(world, source, &args.relay_key) {
        Ok(lines) => known_hosts::tell(&world.known, &lines, args.host.as_deref()),
        Err(sentence) => Answer::usage(sentence),
    }
}

/// The words of the known-hosts command that asks what is asked now, from any directory, quoted for
/// ssh_config and without the host.
pub fn command(
    source: &Source,
    world: &World,
    args: &RelayKeyArgs,
    given: Option<&Path>,
) -> Result<String, String> {
    let mut words = vec![quoted(&program(given)?)?, "known-hosts".to_owned()];
    let mut option = |name: &str, value: &Path| -> Result<(), String> {
        words.push(name.to_owned());
        words.push(quoted(value)?);
        Ok(())
    };
    match source {
        Source::Manifests { directory, .. } => option("--manifests", &absolute(directory)?)?,
        Source::Cluster(cluster) => {
            // Pinned, so that another current context later asks no other cluster.
            if let Some(file) = &cluster.kubeconfig {
                option("--kubeconfig", &absolute(file)?)?;
            }
            if let Some(context) = &cluster.context {
                option("--context", Path::new(context))?;
            }
            option("--mesh", Path::new(&world.mesh.to_string()))?;
        }
    }
    if let Some(state) = &args.state {
        option("--state", &absolute(state)?)?;
    }
    if let Some(file) = &args.relay_known_hosts {
        option("--relay-known-hosts", &absolute(file)?)?;
    }
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_wants_the_terminals_of_its_name_alone() {
        let named = |host| wanted(Some(host)).named;
        assert_eq!(named("kiosk-17"), Some("kiosk-17"));
        assert_eq!(named("[kiosk-17.support.example.com]:2222"), Some("kiosk-17"));
        assert_eq!(wanted(Some("127.0.0.1")), Wanted::RELAYS);
        for all in ["[localhost]:20017", "Kiosk-17", "a,b", "*", "", "[::1]:22"] {
            assert_eq!(named(all), None, "{all}");
            assert!(wanted(Some(all)).terminals, "{all}");
        }
        assert!(wanted(None).terminals);
    }
}
