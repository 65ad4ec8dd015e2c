//! Looks at a connection's first bytes without taking them: what speaks SSH, or says nothing for
//! three seconds, goes on; anything else gets one clear line and is closed.

use std::time::Duration;

use tokio::net::TcpStream;

/// All SSH clients speak first; one that stays silent this long is shown our banner.
const SILENCE: Duration = Duration::from_secs(3);
/// Enough to tell `SSH-` from everything else.
const PREFIX: &[u8; 4] = b"SSH-";
/// What anyone else is told.
pub const NOT_SSH: &str = "This is a Tidegate relay: it speaks SSH here, and what you sent is not SSH.\r\n";

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    Ssh,
    Other,
    /// The peer closed first.
    Gone,
}

pub async fn sniff(tcp: &TcpStream) -> Sniffed {
    let look = async {
        let mut seen = [0; PREFIX.len()];
        loop {
            let Ok(count) = tcp.peek(&mut seen).await else { return Sniffed::Gone };
            let Some(prefix) = seen.get(..count) else { return Sniffed::Gone };
            if count == 0 {
                return Sniffed::Gone;
            }
            if !PREFIX.starts_with(prefix) {
                return Sniffed::Other;
            }
            if count == PREFIX.len() {
                return Sniffed::Ssh;
            }
            // Some of the prefix is here: peek returns at once, so wait for a change of length.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SILENCE, look).await.unwrap_or(Sniffed::Ssh)
}
