//! The relay's end of the control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;

use super::protocol::{Cut, Status};
use crate::view::SessionView;

/// What the control socket needs of the core.
pub trait Controlled: Send + Sync + 'static {
    fn status(&self) -> Status;

    fn sessions(&self) -> Vec<SessionView>;

    /// Cuts a session and returns once no byte of it passes any more. `Err` is the sentence: no such
    /// session, or already ended.
    fn cut(&self, session: &str) -> impl Future<Output = Result<Cut, String>> + Send;
}

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the control socket {path}: {source}")]
pub struct ControlError {
    pub path: PathBuf,
    #[source]
    pub source: std::io::Error,
}

/// The bound socket; removed when dropped.
#[derive(Debug)]
pub struct Control {
    _listener: UnixListener,
    _path: PathBuf,
}

impl Control {
    /// Makes `dir/control.sock`. The caller holds the lock of the state directory, so a socket that
    /// is already there is left from a dead process and is replaced.
    pub fn bind(_dir: &Path) -> Result<Self, ControlError> {
        unimplemented!()
    }

    /// Serves for ever; to be spawned by the supervisor and dropped to stop.
    pub async fn serve<C: Controlled>(self, _core: Arc<C>) {
        unimplemented!()
    }
}
