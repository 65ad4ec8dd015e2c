//! The admin port, asked as a probe or a scraper asks it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// `GET path` on a loopback port: the status and the body; `None` if nobody answers.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, body))
}

/// The value of the first sample whose line begins with `name` (labels may be part of it).
pub fn metric(port: u16, name: &str) -> Option<f64> {
    Metrics::read(port)?.get(name)
}

/// What `/metrics` said at one look.
pub struct Metrics(String);

impl Metrics {
    /// `None` if nobody answers.
    pub fn read(port: u16) -> Option<Self> {
        Some(Self(get(port, "/metrics")?.1))
    }

    /// As [`metric`].
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let after_name = rest.starts_with([' ', '{']);
            after_name.then(|| rest.rsplit(' ').next()?.parse().ok())?
        })
    }
}
