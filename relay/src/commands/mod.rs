//! The commands that need no running relay. Those that read manifests are in `tidegate-commands`, since
//! `kubectl-tidegate` has them too; what reads a relay's own state directory is here.

pub mod audit;
