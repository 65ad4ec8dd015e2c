//! The Relay controller: turns a Relay into a running fleet, and says how the fleet is.
//!
//! Five steps: dereference (from watches) → validate → build (both pure) → apply → update the status.

pub mod build;
pub mod dereference;
pub mod validate;

/// The replicas' admin port: probes, metrics.
pub const ADMIN_PORT: u16 = 9090;
/// Between replicas.
pub const MESH_PORT: u16 = 7938;
/// The headless Service of the Relay `R` is `R-mesh`.
pub const MESH_SERVICE_SUFFIX: &str = "-mesh";
/// The Secret of a Mesh's shared SSH host key. One name for all Meshes, of which a namespace has one:
/// so the operator's right on Secrets can be held to this name everywhere.
pub const HOST_KEY_SECRET: &str = "tidegate-host-key";
/// The key within that Secret, and the file that it is mounted as.
pub const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";
