//! `kubectl-tidegate`: what support desks and platform teams ask of a mesh.
//!
//! Every answer is made by the functions that the relay decides with, from what a cluster holds or from
//! a directory of the same YAML. Touches the network (the API server alone, by kube's client), the disk
//! and the clock. Exit codes: 0 for the good answer, 1 for the other, 2 when the question could not be
//! asked; `connect` gives ssh's own.

pub mod args;
pub mod cluster;
pub mod connect;
pub mod cut;
pub mod explain;
pub mod output;
pub mod presence;
pub mod run;
pub mod sessions;
pub mod source;
pub mod terminals;
pub mod trust;
pub mod windows;

pub use args::Cli;
pub use run::run;
