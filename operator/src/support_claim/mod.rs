//! The SupportClaim controller.

use std::sync::Arc;

use crate::Context;

/// Runs for ever.
pub async fn run(_ctx: Arc<Context>) {
    std::future::pending::<()>().await;
}
