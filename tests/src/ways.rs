//! The ways in to a relay, as OpenSSH takes them: a ProxyCommand of programs that Debian has.

use crate::programs::checkout;

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Ssh,
    Tls,
    WebSocket,
    WebSocketTls,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Ssh, Self::Tls, Self::WebSocket, Self::WebSocketTls];

    /// Its word in the audit and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ssh => "SSH",
            Self::Tls => "TLS",
            Self::WebSocket => "WebSocket",
            Self::WebSocketTls => "WebSocketTLS",
        }
    }

    /// The ProxyCommand to a port of 127.0.0.1; none where OpenSSH dials by itself.
    pub fn proxy_command(self, port: u16) -> Option<String> {
        let websocket = |scheme: &str| {
            let script = checkout().join("tests/websocket-proxy-command.py");
            // Debian's own, which has Debian's library.
            format!("/usr/bin/python3 {} {scheme}://127.0.0.1:{port}/tidegate", script.display())
        };
        match self {
            Self::Ssh => None,
            Self::Tls => Some(format!(
                "openssl s_client -quiet -verify_quiet -servername support.example.com \
                 -connect 127.0.0.1:{port}"
            )),
            Self::WebSocket => Some(websocket("ws")),
            Self::WebSocketTls => Some(websocket("wss")),
        }
    }

    /// Options of `ssh` for a port of 127.0.0.1.
    pub fn options(self, port: u16) -> Vec<String> {
        let by = |command| vec!["-o".to_owned(), format!("ProxyCommand={command}")];
        self.proxy_command(port).map(by).unwrap_or_default()
    }
}
