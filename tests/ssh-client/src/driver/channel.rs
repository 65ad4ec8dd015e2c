//! A channel whose bytes go to and fro. What comes and is not taken yet is bounded by the window.

use std::io::Result;

use tokio::sync::mpsc;

use super::{Command, ended};

/// What came on a channel.
pub(super) enum Came {
    Data(Vec<u8>),
    Eof,
}

/// What an open gives.
pub(super) struct Ends {
    pub number: u32,
    pub came: mpsc::UnboundedReceiver<Came>,
}

/// An open channel; dropping it closes it, with what it still had to send.
pub struct Channel {
    commands: mpsc::Sender<Command>,
    ends: Ends,
    ended: bool,
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let close = Command::Close(self.ends.number);
        if let Err(mpsc::error::TrySendError::Full(close)) = self.commands.try_send(close) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(close).await });
        }
    }
}

impl Channel {
    pub(super) fn new(commands: mpsc::Sender<Command>, ends: Ends) -> Self {
        Self { commands, ends, ended: false }
    }

    /// Queues data; whoever sends bounds how much is under way.
    pub async fn send(&self, bytes: Vec<u8>) -> Result<()> {
        self.command(Command::Data(self.ends.number, bytes)).await
    }

    /// EOF after what is queued.
    pub async fn finish(&self) -> Result<()> {
        self.command(Command::Eof(self.ends.number)).await
    }

    async fn command(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| ended())
    }

    /// The bytes that come next; `None` after the other side's EOF or CLOSE.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        match self.ends.came.recv().await {
            Some(Came::Data(bytes)) => {
                let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                // Where the connection has ended, what came before is still worth having.
                let _ = self.command(Command::Taken(self.ends.number, count)).await;
                Ok(Some(bytes))
            }
            Some(Came::Eof) => {
                self.ended = true;
                Ok(None)
            }
            None => {
                self.ended = true;
                Err(ended())
            }
        }
    }
}
