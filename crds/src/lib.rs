//! Tidegate's custom resources: their types, what makes them valid, and how they become policy.

pub mod assemble;
pub mod common;
pub mod compile;
pub mod login_user;
pub mod manifest;
pub mod mesh;
pub mod relay;
pub mod support_claim;
pub mod support_session;
pub mod support_window;
pub mod terminal;
