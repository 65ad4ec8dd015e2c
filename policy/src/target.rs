//! What a staff channel asks for: a terminal by name, or a listen port on the relay's loopback.

use std::net::IpAddr;

use crate::model::Label;

/// The most bytes that a host may have: a domain name's 253, and a dot.
const LONGEST: usize = 254;

/// A request's host and port, read by form alone. Whether the terminal exists is the policy's matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Named {
        terminal: Label,
        port: u32,
    },
    /// `localhost` or a loopback address, where the port is a service's listenPort.
    ListenPort(u32),
    /// No terminal can be called that.
    Malformed,
}

impl Target {
    /// Takes a name, or the name under `domain` (lower case, without a trailing dot), in any case and
    /// with one optional trailing dot; or `localhost`, an address of 127.0.0.0/8, or `::1`.
    pub fn parse(host: &str, port: u32, domain: &str) -> Self {
        if host.len() > LONGEST {
            return Self::Malformed;
        }
        let host = host.to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if address.is_some_and(|address| address.to_canonical().is_loopback()) {
            return Self::ListenPort(port);
        }
        let host = host.strip_suffix('.').unwrap_or(&host);
        if host == "localhost" {
            return Self::ListenPort(port);
        }
        let name = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
        match Label::parse(name.unwrap_or(host)) {
            Ok(terminal) => Self::Named { terminal, port },
            Err(_) => Self::Malformed,
        }
    }

    /// The terminal that a person names in one of the forms above, loopback left out.
    pub fn terminal(host: &str, domain: &str) -> Option<Label> {
        match Self::parse(host, 0, domain) {
            Self::Named { terminal, .. } => Some(terminal),
            Self::ListenPort(_) | Self::Malformed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_form() {
        let named =
            |host| Target::terminal(host, "support.example.com").map(|name| name.to_string());
        for good in [
            "kiosk-17",
            "KIOSK-17",
            "kiosk-17.",
            "kiosk-17.support.example.com",
            "Kiosk-17.Support.Example.COM.",
        ] {
            assert_eq!(named(good).as_deref(), Some("kiosk-17"), "{good}");
        }
        let long = "a".repeat(65_536);
        for bad in [
            "",
            ".",
            "kiosk-17..",
            ".kiosk-17",
            "kiosk-17.example.org",
            "kiosk-17.xsupport.example.com",
            "a.kiosk-17.support.example.com",
            "support.example.com",
            ".support.example.com",
            "kiosk-17,kiosk-18",
            "kiosk-*",
            "kiosk-17 ",
            "k\u{456}osk-17",
            "\u{212a}iosk-17",
            "-kiosk",
            "10.0.0.1",
            "::2",
            "kiosk_17",
            "kiosk-17\0",
            &long,
        ] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn loopback_in_every_form() {
        for good in [
            "localhost",
            "LocalHost.",
            "127.0.0.1",
            "127.255.0.3",
            "::1",
            "0:0:0:0:0:0:0:1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(
                Target::parse(good, 20_017, "x.example"),
                Target::ListenPort(20_017),
                "{good}"
            );
        }
        for bad in ["127.1", "127.0.0.1.", "[::1]", "0.0.0.0", "::", "localhost.localdomain"] {
            assert_eq!(Target::parse(bad, 22, "x.example"), Target::Malformed, "{bad}");
        }
    }
}
