//! Tidegate's policy: schedules, the snapshot, and `decide`.
//!
//! Pure: no I/O, no clock of its own, no Kubernetes. Operator, relay, agent and CLI call the same
//! functions, so that what one of them says the others enforce.

pub mod cron;
pub mod decide;
pub mod model;
pub mod reach;
pub mod schedule;
mod sentence;
pub mod snapshot;
mod starts;
pub mod target;
pub mod text;
