//! The relay: accept, sniff, ssh, authorise, locate, claim, record, join, end.
//!
//! `docs/lifetime-of-a-session.md` walks through the modules in that order.

pub mod accept;
pub mod admin;
pub mod audit;
pub mod authorise;
pub mod claim;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod control;
pub mod end;
pub mod history;
pub mod join;
pub mod metrics;
mod object;
pub mod record;
pub mod registry;
pub mod serve;
pub mod source;
pub mod ssh;
pub mod state;
pub mod supervisor;
pub mod view;
