//! What a cluster holds of a mesh: reads the API server as kubectl does, and nothing else.
//!
//! Touches the network, through kube's own client alone: it dials the address that the kubeconfig names
//! and no other. Every request has an end in time.

mod choose;
mod connect;
mod list;
mod pods;
mod trouble;
mod world;

pub use connect::Cluster;
pub use list::{Kindred, Page};
pub use pods::presence;
pub use trouble::{Trouble, VIEWER};
pub use world::{Wanted, World};
