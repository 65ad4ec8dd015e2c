//! The numbers of RFC 4250 and of OpenSSH's PROTOCOL, and the error that ends a connection.

use std::fmt;

/// Numbers of messages (RFC 4250 section 4.1.2; RFC 8308 section 2.3; OpenSSH PROTOCOL section 1.8).
pub mod number {
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    /// The client's share: KEX_ECDH_INIT (RFC 5656 section 4), KEX_HYBRID_INIT; one number for all.
    pub const KEX_INIT: u8 = 30;
    /// Our share, host key and signature: KEX_ECDH_REPLY, KEX_HYBRID_REPLY.
    pub const KEX_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_BANNER: u8 = 53;
    pub const USERAUTH_PK_OK: u8 = 60;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
    /// ping@openssh.com, in the range of local extensions.
    pub const PING: u8 = 192;
    pub const PONG: u8 = 193;
}

/// Why a connection ends (RFC 4250 section 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DisconnectCode {
    HostNotAllowed = 1,
    Protocol = 2,
    KeyExchange = 3,
    Mac = 5,
    Compression = 6,
    ServiceNotAvailable = 7,
    VersionNotSupported = 8,
    HostKeyNotVerifiable = 9,
    ConnectionLost = 10,
    ByApplication = 11,
    TooManyConnections = 12,
    AuthCancelled = 13,
    NoMoreAuthMethods = 14,
    IllegalUserName = 15,
}

impl DisconnectCode {
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// Why a channel was not opened (RFC 4250 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OpenFailure {
    AdministrativelyProhibited = 1,
    ConnectFailed = 2,
    UnknownChannelType = 3,
    ResourceShortage = 4,
}

impl OpenFailure {
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// What ends a connection: the peer is told so in a DISCONNECT, and nothing more is read or sent.
///
/// `text` is one sentence of printable ASCII, at most 300 bytes, whatever the peer sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fatal {
    pub code: DisconnectCode,
    pub text: String,
}

impl Fatal {
    /// The most that a text has, in bytes.
    pub const TEXT: usize = 300;

    pub fn new(code: DisconnectCode, text: impl fmt::Display) -> Self {
        Self { code, text: printable(&text.to_string(), Self::TEXT) }
    }

    /// The peer broke the protocol (code 2).
    pub fn protocol(text: impl fmt::Display) -> Self {
        Self::new(DisconnectCode::Protocol, text)
    }

    /// Keys could not be agreed on (code 3).
    pub fn key_exchange(text: impl fmt::Display) -> Self {
        Self::new(DisconnectCode::KeyExchange, text)
    }
}

/// `text` with everything but printable ASCII as '?', at most `most` bytes of it.
pub fn printable(text: &str, most: usize) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .take(most)
        .collect()
}
