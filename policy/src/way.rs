//! By which way a connection came in: EgressPolicy is about these.

/// What a connection speaks below SSH, in EgressPolicy's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    Ssh,
    Tls,
    WebSocket,
    WebSocketTls,
}

impl Transport {
    pub const ALL: [Self; 4] = [Self::Ssh, Self::Tls, Self::WebSocket, Self::WebSocketTls];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "SSH",
            Self::Tls => "TLS",
            Self::WebSocket => "WebSocket",
            Self::WebSocketTls => "WebSocketTLS",
        }
    }
}

/// A port of the relay's, and what was spoken there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Way {
    pub port: u16,
    pub transport: Transport,
}
