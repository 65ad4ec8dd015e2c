//! What an operator on this machine may ask a running relay: STATE/control.sock.
//!
//! One JSON object per line each way. Only the relay's own uid and root are served (SO_PEERCRED), and
//! the socket is 0600. Touches that socket alone. Bounded: request length, connections, time.

mod client;
mod place;
mod protocol;
mod server;
mod tables;

pub use client::{
    AskError, CutArgs, OutputFormat, SessionsArgs, StatusArgs, ask, run_cut, run_sessions,
    run_status,
};
pub use protocol::{
    AuditStatus, Cut, FindingView, HostKeyStatus, PolicyStatus, Request, Response, SOCKET, Status,
    TerminalStatus,
};
pub use server::{Control, ControlError, Controlled};

pub use crate::view::{SessionView, WindowRef};
