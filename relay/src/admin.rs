//! The relay's admin port: `/metrics`, `/healthz`, `/readyz`, and `/terminals`, which tells `kubectl tidegate`
//! the names of those that are connected. Nothing here changes state; what bounds a connection is
//! [`tidegate_process::admin`].

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;
use tidegate_process::admin::rendered;
pub use tidegate_process::admin::{Admin, AdminError};

use crate::metrics::Metrics;

/// What the admin port shows of the core.
pub trait Health: Send + Sync + 'static {
    /// Why this replica should get no new connections, one sentence each; empty: it is ready.
    fn not_ready(&self) -> Vec<String>;

    /// The terminals that are connected to this replica, by name.
    fn attached(&self) -> Vec<Attached>;

    /// Brings the gauges up to date, right before they are rendered.
    fn refresh(&self, metrics: &Metrics);
}

/// A connected terminal: no more than its name and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    pub name: String,
    pub connected_since: Timestamp,
}

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    health: Arc<dyn Health>,
}

/// Serves for ever; to be spawned by the supervisor and dropped to stop.
pub async fn serve(admin: Admin, metrics: Arc<Metrics>, health: Arc<dyn Health>) {
    let pages = Router::new()
        .route("/metrics", get(render))
        .route("/readyz", get(readyz))
        .route("/terminals", get(terminals))
        .with_state(Shown { metrics, health });
    admin.serve_pages(pages, "there are /metrics, /healthz, /readyz and /terminals here\n").await;
}

async fn render(State(Shown { metrics, health }): State<Shown>) -> Response {
    metrics.set_ready(health.not_ready().is_empty());
    health.refresh(&metrics);
    rendered(metrics.render())
}

async fn terminals(State(Shown { health, .. }): State<Shown>) -> Response {
    let text = serde_json::json!({ "terminals": health.attached() }).to_string() + "\n";
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn readyz(State(Shown { health, .. }): State<Shown>) -> Response {
    let reasons = health.not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let mut text = String::new();
    for reason in reasons {
        let _ = writeln!(text, "{}", tidegate_commands::text::line(&reason));
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
