//! What every long-running program of Tidegate stands on: the clocks, the supervisor of its tasks,
//! its log, its admin port. The only places that read a clock, or spawn a task.

pub mod admin;
pub mod clock;
pub mod lock;
pub mod logging;
pub mod supervisor;
