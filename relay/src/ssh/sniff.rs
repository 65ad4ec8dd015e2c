//! Looks at a connection's first bytes. What speaks SSH goes on; so does one that says nothing for
//! a while, since it may wait for our banner; anything else gets one clear line and is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::socket::{Socket, Stream};

const PREFIX: &[u8; 4] = b"SSH-";
/// What anyone else is told.
pub const NOT_SSH: &str =
    "This is a Tidegate relay; it speaks SSH on this port, and what you sent is not SSH.\r\n";

/// Takes the first bytes off `stream` and puts them back if they may be SSH. `false`: it was not,
/// and has been told so.
pub(super) async fn speaks_ssh(
    socket: &Arc<Socket>,
    stream: &mut Stream,
    silence: Duration,
) -> bool {
    let mut seen = Vec::with_capacity(PREFIX.len());
    let look = async {
        while seen.len() < PREFIX.len() {
            let mut byte = [0; PREFIX.len()];
            let room = PREFIX.len() - seen.len();
            let Some(room) = byte.get_mut(..room) else { return false };
            match stream.read(room).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => seen.extend(byte.iter().take(count)),
            }
            if !PREFIX.starts_with(&seen) {
                return false;
            }
        }
        true
    };
    let speaks = tokio::time::timeout(silence, look).await.unwrap_or(true);
    if speaks {
        socket.read_again(&seen);
    } else if !seen.is_empty() {
        let _ = stream.write_all(NOT_SSH.as_bytes()).await;
        let _ = stream.shutdown().await;
        // What it still sends would turn our close into a reset that may overtake the line.
        let mut rest = [0; 1024];
        let drain = async { while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
    }
    speaks
}
