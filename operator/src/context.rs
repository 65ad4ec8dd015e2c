//! What every controller is given.

use std::sync::Arc;

use tidegate_process::supervisor::Supervisor;

use crate::events::EventRecorder;
use crate::metrics::Metrics;
use crate::write::Writer;

/// What every controller is given. Reads go through `client`, writes through `writer` alone.
#[derive(Clone)]
pub struct Context {
    /// For get, list and watch. It could write, and no controller may: see `writer`.
    pub client: kube::Client,
    /// Sends writes while this replica surely leads, and none after.
    pub writer: Writer,
    /// The operator's own namespace.
    pub namespace: String,
    /// The image of the relays' pods.
    pub relay_image: String,
    pub metrics: Arc<Metrics>,
    pub tasks: Supervisor,
    pub events: EventRecorder,
}
