//! Reads where a staff channel wants to go: a terminal's name or FQDN with a service's port, or
//! `localhost` with a listen port. Nothing here is ever resolved or dialled.

use std::net::IpAddr;

use tidegate_policy::decide::Target;
use tidegate_policy::snapshot::Snapshot;

use crate::sentences;
use crate::ssh::DirectOpen;

/// The longest host name that is looked at: a label and the longest domain.
const LONGEST: usize = 320;

/// The terminal's name in lower case, as far as it can be one, and the service asked for. Anything
/// that is no terminal's name is passed on as text and refused by the policy.
pub fn parse<'a>(snapshot: &Snapshot, open: &DirectOpen) -> (String, Target<'a>) {
    let port = u16::try_from(open.port).unwrap_or(0);
    let host: String = open.host.chars().take(LONGEST).collect::<String>().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if is_loopback(host)
        && let Some((terminal, _)) = snapshot.terminal_by_listen_port(port)
    {
        return (terminal.meta.key.name.to_string(), Target::Port(port));
    }
    let domain: &str = &snapshot.mesh().domain;
    let bare = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    (bare.to_owned(), Target::Port(port))
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The target as it is shown and written down: printable and short.
pub fn shown(open: &DirectOpen) -> String {
    let host: String = open.host.chars().take(80).collect();
    sentences::clean(&format!("{host}:{}", open.port))
}
