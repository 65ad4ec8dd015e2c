//! The operator: turns Tidegate's resources into a running relay fleet, and says of each of them
//! whether it is accepted.
//!
//! One replica leads, by a Lease; only the leader runs controllers, and each write that a controller
//! sends goes through [`write::Writer`], which sends none once the lease is not surely held. One
//! folder per controller: `mesh`, `relay`, `world` with `support_window`, `login_user` and `terminal`,
//! `records` with `support_session` and `support_claim`.

pub mod backoff;
pub mod cli;
pub mod context;
pub mod events;
pub mod fence;
pub mod guarded;
pub mod holding;
pub mod lease;
pub mod login_user;
pub mod mesh;
pub mod metrics;
pub mod names;
pub mod records;
pub mod relay;
pub mod run;
pub mod status_writer;
pub mod support_claim;
pub mod support_session;
pub mod support_window;
pub mod terminal;
pub mod watching;
pub mod world;
pub mod write;

pub use context::Context;
