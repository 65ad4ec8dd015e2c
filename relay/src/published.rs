//! What other programs read in the state directory: the relay's own known_hosts lines and the
//! addresses that it listens on.

use std::net::SocketAddr;

use crate::ssh::HostKey;
use crate::state::{StateDir, StateError};

/// The relay's own lines for known_hosts, for staff's clients: one for each host key that is offered.
const KNOWN_HOSTS: &str = "known_hosts";
/// The addresses that are listened on, one a line, as bound.
const LISTENERS: &str = "listeners";

/// The files, and what the known_hosts lines are made of.
#[derive(Debug)]
pub struct Published {
    state: StateDir,
    ports: Vec<u16>,
    /// The lines that were last written.
    lines: String,
}

impl Published {
    /// Writes both files.
    pub fn new(
        state: &StateDir,
        keys: &[HostKey],
        bound: &[SocketAddr],
        domain: &str,
    ) -> Result<Self, StateError> {
        let lines: String = bound.iter().flat_map(|at| [at.to_string(), "\n".into()]).collect();
        state.write_atomic(LISTENERS, lines.as_bytes(), 0o644)?;
        let mut ports: Vec<u16> = bound.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        let mut published = Self { state: state.clone(), ports, lines: String::new() };
        published.follow(domain, keys)?;
        Ok(published)
    }

    /// Writes the known_hosts lines anew where the mesh's domain or the keys have changed; the key that
    /// serves comes first.
    pub fn follow(&mut self, domain: &str, keys: &[HostKey]) -> Result<(), StateError> {
        let names = names(domain, &self.ports).join(",");
        let lines = keys.iter().map(|key| format!("{names} {}\n", key.public_line()));
        let lines: String = lines.collect();
        if self.lines != lines {
            self.state.write_atomic(KNOWN_HOSTS, lines.as_bytes(), 0o644)?;
            self.lines = lines;
        }
        Ok(())
    }
}

/// The relay's names as clients look them up: with the port, unless it is 22.
fn names(domain: &str, ports: &[u16]) -> Vec<String> {
    let named = |host: &str, port: u16| match port {
        22 => host.to_owned(),
        port => format!("[{host}]:{port}"),
    };
    let relay = format!("relay.{domain}");
    ports.iter().flat_map(|port| [named(&relay, *port), named(domain, *port)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_relay_by_each_port_and_follows_the_domain() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let key = HostKey::generate(&state.path("key").unwrap()).unwrap();
        let bound = ["127.0.0.1:22", "[::1]:5938", "127.0.0.1:5938"];
        let bound: Vec<SocketAddr> = bound.iter().map(|at| at.parse().unwrap()).collect();
        let keys = [key.clone()];
        let mut published = Published::new(&state, &keys, &bound, "a.example").unwrap();
        let read =
            |name: &str| String::from_utf8(state.read(name, 4096).unwrap().unwrap()).unwrap();
        assert_eq!(read(LISTENERS), "127.0.0.1:22\n[::1]:5938\n127.0.0.1:5938\n");
        let expected = format!(
            "relay.a.example,a.example,[relay.a.example]:5938,[a.example]:5938 {}\n",
            key.public_line()
        );
        assert_eq!(read(KNOWN_HOSTS), expected);
        let next = HostKey::generate(&state.path("next").unwrap()).unwrap();
        published.follow("b.example", &[key, next.clone()]).unwrap();
        let lines = read(KNOWN_HOSTS);
        assert!(lines.lines().all(|line| line.starts_with("relay.b.example,b.example,")));
        assert!(lines.lines().nth(1).is_some_and(|line| line.ends_with(&next.public_line())));
    }
}
