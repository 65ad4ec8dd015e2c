//! What the core tells: each message of the peer yields one event at most.

use std::ops::Range;

use crate::algorithm::Negotiated;
use crate::channel::Id;
use crate::cipher::Opener;
use crate::global::Token;

/// What a channel was refused for want of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The connection has as many as it may.
    Channels,
    /// The replica's memory for windows is used up.
    Memory,
}

/// What a peer did. Texts in here are printable ASCII, whatever the peer sent; what was not is '?'.
#[derive(Debug)]
pub enum Event {
    /// The peer's new keys are in force: to be installed in [`Inbound`](crate::Inbound) before the
    /// next packet is opened.
    Keys {
        opener: Opener,
        /// Sequence numbers begin anew (strict key exchange).
        reset_sequence: bool,
        /// What was agreed on; [`Negotiated::strict`] and the ciphers are for the audit.
        negotiated: Negotiated,
        /// It is the connection's first exchange.
        first: bool,
    },
    /// The peer proved a key that the door lets in. Told once; nothing of the following comes before.
    Authenticated {
        /// At most 255 bytes.
        user: String,
        /// The public key blob.
        key: Vec<u8>,
    },
    /// `direct-tcpip`: what `ssh -W`, `-J` and `-L` send. To be answered by
    /// [`Core::confirm`](crate::Core::confirm) or [`Core::refuse`](crate::Core::refuse).
    Open {
        channel: Id,
        /// Not checked, at most 255 bytes.
        host: String,
        port: u32,
        /// Address and port that the client names as the origin; made up by most.
        originator: (String, u32),
    },
    /// `tcpip-forward`: what `ssh -R` sends. To be answered by
    /// [`Core::answer_forward`](crate::Core::answer_forward).
    Forward {
        token: Token,
        /// Not checked, at most 255 bytes.
        host: String,
        port: u32,
    },
    /// `cancel-tcpip-forward`. To be answered by [`Core::answer_cancel`](crate::Core::answer_cancel).
    Cancel { token: Token, host: String, port: u32 },
    /// A session channel is asked for a shell, a command or a subsystem, for the first and only time.
    /// To be answered by [`Core::answer_request`](crate::Core::answer_request).
    Request {
        channel: Id,
        kind: RequestKind,
        /// A pty was asked for before: lines must end in CRLF.
        pty: bool,
    },
    /// The peer confirmed a channel of [`Core::open_forwarded`](crate::Core::open_forwarded).
    Opened { channel: Id },
    /// The peer refused it; the Id is void.
    OpenFailed {
        channel: Id,
        /// The peer's own number.
        code: u32,
        /// The peer's own words, at most 200 bytes.
        text: String,
    },
    /// Data for a channel that is joined: `bytes` of the message just handled. It counts as waiting
    /// until [`Core::consumed`](crate::Core::consumed).
    Data { channel: Id, bytes: Range<usize> },
    /// The peer sends no more data on the channel.
    Eof { channel: Id },
    /// The peer closed the channel, and so have we, past what was queued: the Id is void, but for
    /// [`Core::consumed`](crate::Core::consumed) of what came in before, and
    /// [`Core::close`](crate::Core::close). Not told of channels that the relay has closed.
    Closed { channel: Id },
    /// The peer answered a [`Core::ping`](crate::Core::ping).
    Alive,
    /// The peer asked for proof of these host keys (indexes in `Config::host_keys`), and has it: it
    /// is about to learn them (hostkeys-prove-00@openssh.com).
    HostKeysProved { keys: Vec<usize> },
    /// The peer opens channels faster than it may; this one was refused.
    TooFast,
    /// A channel was refused, since there is no room for it.
    NoRoom(Shortage),
    /// Something that a relay never does was asked for and refused.
    Refused { what: &'static str },
    /// The peer said goodbye.
    Disconnected { code: u32, text: String },
}

/// What a session channel is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestKind {
    Shell,
    /// A command line as it came.
    Exec(Vec<u8>),
    /// A subsystem's name as it came.
    Subsystem(Vec<u8>),
}
