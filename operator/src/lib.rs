//! The operator: turns Tidegate's resources into a running relay fleet, and says of each of them
//! whether it is accepted.

pub mod relay;
