//! Looks at a connection's first bytes. What speaks SSH goes on; so does one that says nothing for
//! a while, since it may wait for our banner; anything else gets one clear line and is closed.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use super::socket::{Socket, Written};

const PREFIX: &[u8; 4] = b"SSH-";
/// What anyone else is told.
pub const NOT_SSH: &str =
    "This is a Tidegate relay; it speaks SSH on this port, and what you sent is not SSH.\r\n";
/// How long one that was told so may take to close.
const LEAVING: Duration = Duration::from_secs(1);

async fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| socket.poll_read(cx, buffer)).await
}

/// Takes the first bytes off the socket; `None`: they were not SSH, and it has been told so.
pub(super) async fn speaks_ssh(socket: &Socket, silence: Duration) -> Option<Vec<u8>> {
    let mut seen = Vec::with_capacity(PREFIX.len());
    let look = async {
        while seen.len() < PREFIX.len() {
            let mut bytes = [0; PREFIX.len()];
            let room = bytes.get_mut(seen.len()..).unwrap_or_default();
            match read(socket, room).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => {
                    let came = seen.len();
                    seen.extend(bytes.iter().skip(came).take(count));
                }
            }
            if !PREFIX.starts_with(&seen) {
                return false;
            }
        }
        true
    };
    let speaks = tokio::time::timeout(silence, look).await.unwrap_or(true);
    if speaks {
        return Some(seen);
    }
    if !seen.is_empty() && socket.write(socket.sweep(), NOT_SSH.as_bytes()) != Written::Broken {
        socket.finish();
        // What it still sends would turn our close into a reset that may overtake the line.
        let mut rest = [0; 1024];
        let drain = async { while read(socket, &mut rest).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(LEAVING, drain).await;
    }
    None
}
