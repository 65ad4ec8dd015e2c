//! The relay's end of the control socket.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::place::Place;
use super::protocol::{Cut, Request, Response, SOCKET, Status};
use crate::view::SessionView;

/// The longest request line, in bytes.
const LONGEST_REQUEST: u64 = 4096;
/// For the next request to come, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a cut may take; the promise is 1 s.
const CUT_PATIENCE: Duration = Duration::from_secs(10);
/// Connections served at once; more wait in the socket's backlog.
const CONNECTIONS: usize = 16;

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
    pub source: io::Error,
}

/// The bound socket; removed when dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next relay replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Control {
    /// Makes `dir/control.sock`. The caller holds the lock of the state directory, so a socket that
    /// is already there is left from a dead process and is replaced. Needs a tokio runtime.
    ///
    /// The socket is made in a directory of its own that nobody else can enter, and is moved to its
    /// place with mode 0600: it is never reachable with a wider mode, whatever the umask.
    pub fn bind(dir: &Path) -> Result<Self, ControlError> {
        let path = dir.join(SOCKET);
        let listener =
            make(dir, &path).map_err(|source| ControlError { path: path.clone(), source })?;
        Ok(Self { listener, path })
    }

    /// Serves for ever; to be spawned by the supervisor and dropped to stop. Requests run inside this
    /// one future; one that panics ends its own connection alone.
    pub async fn serve<C: Controlled>(self, core: Arc<C>) {
        let mut served = FuturesUnordered::new();
        loop {
            let free = served.len() < CONNECTIONS;
            tokio::select! {
                Some(outcome) = served.next(), if !served.is_empty() => {
                    if let Err(_panic) = outcome {
                        tracing::error!("a control request panicked");
                    }
                }
                accepted = self.listener.accept(), if free => match accepted {
                    Ok((stream, _)) => {
                        let core = Arc::clone(&core);
                        served.push(AssertUnwindSafe(converse(stream, core)).catch_unwind());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket cannot accept");
                        // Out of descriptors, most likely: nothing tells when there are some again.
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                },
            }
        }
    }
}

fn make(dir: &Path, path: &Path) -> io::Result<UnixListener> {
    let mut name = OsString::from(".control-");
    name.push(std::process::id().to_string());
    let private = dir.join(name);
    // Left from a process that died in here and had our id.
    let _ = fs::remove_dir_all(&private);
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = (|| {
        let place = Place::of(&private, "s")?;
        let listener = UnixListener::bind(place.path())?;
        let socket = private.join("s");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        fs::rename(&socket, path)?;
        Ok(listener)
    })();
    let _ = fs::remove_dir_all(&private);
    made
}

/// Serves one connection until it ends, errs or falls silent.
async fn converse<C: Controlled>(mut stream: UnixStream, core: Arc<C>) {
    let own = rustix::process::geteuid().as_raw();
    let permitted = |uid: u32| uid == own || uid == 0;
    match stream.peer_cred() {
        Ok(peer) if permitted(peer.uid()) => {}
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "a control connection of another user was refused");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "a control connection without credentials was refused");
            return;
        }
    }
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut read).take(LONGEST_REQUEST);
        let Ok(Ok(count)) = timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await else {
            return;
        };
        if count == 0 {
            return;
        }
        let complete = line.ends_with(b"\n");
        let response = if complete {
            respond(&line, &*core).await
        } else {
            let refused = format!("a request is one line of at most {LONGEST_REQUEST} bytes");
            Response::Refused(refused)
        };
        let mut text = match serde_json::to_vec(&response) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "an answer of the control socket cannot be written");
                return;
            }
        };
        text.push(b'\n');
        let sent = timeout(PATIENCE, write.write_all(&text)).await;
        if !matches!(sent, Ok(Ok(()))) || !complete {
            return;
        }
    }
}

async fn respond<C: Controlled>(line: &[u8], core: &C) -> Response {
    match serde_json::from_slice(line) {
        Ok(Request::Status) => Response::Status(Box::new(core.status())),
        Ok(Request::Sessions) => Response::Sessions(core.sessions()),
        Ok(Request::Cut { session }) => {
            tracing::info!(%session, "cut asked for over the control socket");
            match timeout(CUT_PATIENCE, core.cut(&session)).await {
                Ok(Ok(cut)) => Response::Cut(cut),
                Ok(Err(sentence)) => Response::Refused(sentence),
                Err(_) => Response::Refused("the cut is still under way; see: sessions".to_owned()),
            }
        }
        Err(error) => Response::Refused(format!("not a request that this relay knows: {error}")),
    }
}
