//! Tidegate's policy: schedules, the snapshot, and `decide`.
//!
//! Pure: no I/O, no clock of its own, no Kubernetes. Operator, relay, agent and CLI call the same
//! functions, so that what one of them says the others enforce.
//!
//! `text`, `cron` and `schedule` read what people wrote; `starts` walks it in its `zone`. `model` has the resources,
//! `snapshot` their indexes (`listed` is one value's list of windows). `decide` answers one request (`target` reads its host, `reason` and
//! `sentence` say why not), `recheck` what a change does to a running session, `reach` who can get
//! where and when.

pub mod cron;
pub mod decide;
mod listed;
pub mod model;
pub mod reach;
mod reason;
mod recheck;
pub mod schedule;
mod sentence;
pub mod snapshot;
mod starts;
pub mod target;
pub mod text;
pub mod way;
mod zone;
