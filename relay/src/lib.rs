//! The relay: accept, sniff, ssh, authorise, locate, claim, record, join, end.
//!
//! `docs/lifetime-of-a-session.md` walks through the modules in that order.

pub mod accept;
pub mod admin;
pub mod admission;
pub mod audit;
pub mod authorise;
pub mod barred;
pub mod certificate;
pub mod claim;
pub mod cli;
pub use tidegate_process::clock;
pub mod commands;
pub mod connection;
pub mod control;
pub mod denies;
pub mod dials;
pub mod end;
pub mod failpoint;
#[cfg(test)]
mod fuzz;
pub mod gate;
pub mod history;
pub mod hostkeys;
pub mod join;
pub mod kube;
pub mod lastseen;
pub mod locate;
use tidegate_process::lock;
pub use tidegate_process::logging;
pub mod metrics;
mod object;
pub mod origin;
pub mod pace;
pub mod peer;
pub mod present;
pub mod published;
pub mod readiness;
pub mod record;
pub mod refusals;
pub mod sentences;
pub mod serve;
pub mod session;
pub mod settings;
pub mod signals;
pub mod source;
pub mod sources;
pub mod ssh;
pub mod staff;
pub mod state;
pub use tidegate_process::supervisor;
pub mod terminal;
pub mod trail;
pub mod view;
pub mod warden;
