//! The operator's index of everything that windows are about.

use std::sync::Arc;

use crate::Context;

/// Runs for ever.
pub async fn run(_ctx: Arc<Context>) {
    std::future::pending::<()>().await;
}
