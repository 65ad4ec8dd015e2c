//! Which service a terminal's `tcpip-forward` names.
//!
//! Pure. Invariant 5: whatever is asked, the answer is one of the terminal's own declared services or
//! a refusal.

use std::net::IpAddr;

use tidegate_policy::model::{Service, Terminal};

/// How a terminal asked: the bind address and port of its `tcpip-forward`, as sent. The forwarded
/// channel must echo exactly this address, and the port of [`Named::port`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bind {
    pub address: String,
    /// As sent: 0 to 65535 (larger ones are refused).
    pub port: u32,
}

/// A forward that is granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    pub service: Service,
    /// The port that a reply to port 0 carries and that forwarded channels echo: the asked one, or
    /// for port 0 the service's listenPort, else its port.
    pub port: u32,
}

/// Finds the service that `bind` names on `terminal`.
///
/// A request names it by port = listenPort (bind address empty, `*`, loopback or the terminal's own
/// name), or by bind address = own name and port = the service's port, or by port 0: the first
/// service for which `taken` is false. Names compare without case; `domain` makes the FQDN.
/// The error is the sentence that the terminal is shown.
pub fn name_service(
    terminal: &Terminal,
    domain: &str,
    bind: &Bind,
    taken: impl Fn(&Service) -> bool,
) -> Result<Named, String> {
    let own = is_own_name(terminal, domain, &bind.address);
    if !own && !is_anywhere(&bind.address) {
        return Err(format!(
            "{} may offer services only under its own name, not under {}",
            terminal.meta.key.name,
            shown(&bind.address)
        ));
    }
    if bind.port == 0 {
        return match terminal.services.iter().find(|s| !taken(s)) {
            Some(service) => {
                let port = u32::from(service.listen_port.unwrap_or(service.port));
                Ok(Named { service: service.clone(), port })
            }
            None => Err(format!(
                "{} offers all of its declared services already on this connection: {}",
                terminal.meta.key.name,
                declared(terminal)
            )),
        };
    }
    let by_listen_port =
        terminal.services.iter().find(|s| s.listen_port.map(u32::from) == Some(bind.port));
    let by_port = || terminal.services.iter().find(|s| own && u32::from(s.port) == bind.port);
    match by_listen_port.or_else(by_port) {
        Some(service) => Ok(Named { service: service.clone(), port: bind.port }),
        None => Err(format!(
            "{} declares no listenPort {}; declared are {}",
            terminal.meta.key.name,
            bind.port,
            declared(terminal)
        )),
    }
}

/// `ssh (listenPort 20017), web (port 443)`, at most a few.
fn declared(terminal: &Terminal) -> String {
    const SHOWN: usize = 4;
    let one = |s: &Service| match s.listen_port {
        Some(port) => format!("{} (listenPort {port})", s.name),
        None => format!("{} ({}:{})", s.name, terminal.meta.key.name, s.port),
    };
    let mut list: Vec<String> = terminal.services.iter().take(SHOWN).map(one).collect();
    if terminal.services.len() > SHOWN {
        list.push(format!("{} more", terminal.services.len() - SHOWN));
    }
    list.join(", ")
}

fn is_own_name(terminal: &Terminal, domain: &str, address: &str) -> bool {
    let address = address.strip_suffix('.').unwrap_or(address);
    let name = terminal.meta.key.name.as_str();
    let Some((head, tail)) = address.split_at_checked(name.len()) else { return false };
    let fqdn = || tail.strip_prefix('.').is_some_and(|d| d.eq_ignore_ascii_case(domain));
    head.eq_ignore_ascii_case(name) && (tail.is_empty() || fqdn())
}

/// The empty address, `*`, and loopback: what clients send when the user names none.
fn is_anywhere(address: &str) -> bool {
    let loopback = || match address.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => false,
    };
    address.is_empty() || address == "*" || address.eq_ignore_ascii_case("localhost") || loopback()
}

/// Untrusted text for a sentence: printable ASCII, at most 40 bytes.
fn shown(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_policy::model::{Attach, Label, Meta, ObjectKey};

    use super::*;

    fn kiosk() -> Terminal {
        let label = |s: &str| Label::parse(s).unwrap();
        let service = |name, port, listen_port| Service { name: label(name), port, listen_port };
        Terminal {
            meta: Meta {
                key: ObjectKey { namespace: label("default"), name: label("kiosk-17") },
                uid: "u".into(),
                generation: 1,
                created: jiff::Timestamp::UNIX_EPOCH,
            },
            labels: BTreeMap::new(),
            public_keys: vec![],
            host_keys: vec![],
            services: vec![service("ssh", 22, Some(20017)), service("web", 443, None)],
            owner: None,
            attach: Attach::Always,
            suspended: false,
            relays: None,
        }
    }

    fn ask(address: &str, port: u32) -> Result<(String, u32), String> {
        let bind = Bind { address: address.into(), port };
        name_service(&kiosk(), "support.example.com", &bind, |_| false)
            .map(|n| (n.service.name.to_string(), n.port))
    }

    #[test]
    fn a_listen_port_names_its_service_from_every_usual_address() {
        for address in [
            "",
            "*",
            "localhost",
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "kiosk-17",
            "KIOSK-17.",
            "kiosk-17.support.example.com",
        ] {
            assert_eq!(ask(address, 20017), Ok(("ssh".into(), 20017)), "{address}");
        }
    }

    #[test]
    fn the_own_name_and_port_name_a_service() {
        assert_eq!(ask("kiosk-17", 443), Ok(("web".into(), 443)));
        assert_eq!(ask("Kiosk-17.Support.Example.Com", 22), Ok(("ssh".into(), 22)));
        assert!(ask("", 443).is_err(), "a bare port is a listenPort");
    }

    #[test]
    fn port_zero_takes_the_first_free_service() {
        assert_eq!(ask("localhost", 0), Ok(("ssh".into(), 20017)));
        let bind = Bind { address: String::new(), port: 0 };
        let second = name_service(&kiosk(), "d", &bind, |s| s.name.as_str() == "ssh").unwrap();
        assert_eq!((second.service.name.as_str(), second.port), ("web", 443));
        assert!(name_service(&kiosk(), "d", &bind, |_| true).is_err());
    }

    #[test]
    fn foreign_names_and_undeclared_ports_are_refused_with_a_sentence() {
        assert_eq!(
            ask("kiosk-18", 20017),
            Err("kiosk-17 may offer services only under its own name, not under kiosk-18".into())
        );
        assert_eq!(
            ask("", 22),
            Err("kiosk-17 declares no listenPort 22; declared are ssh (listenPort 20017), web (kiosk-17:443)".into())
        );
        for address in
            ["kiosk-1", "kiosk-17x", "kiosk-17.example.org", "10.0.0.1", "k\u{131}osk-17"]
        {
            assert!(ask(address, 20017).is_err(), "{address}");
        }
        assert!(ask(&"a".repeat(65536), 1).unwrap_err().len() <= 300);
    }
}
