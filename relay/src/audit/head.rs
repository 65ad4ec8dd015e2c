//! The pin of the trail's end: `STATE/audit/head` has the `seq` and hash of the last durable line, so
//! that lines taken from the end are noticed.
//!
//! It is written after each batch, without a sync, and synced when the writer is idle, at each new
//! file and at the end. So it is never ahead of the lines, a killed process leaves it exact, and a
//! power cut leaves it a few seconds behind. Whoever can write in the directory can also write a pin:
//! against that only a copy elsewhere helps (the relay prints its lines on stdout).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::line::{HIGHEST_SEQ, Tip};
use crate::state;

/// Always the same size, so that rewriting it in place needs no space on a full disk.
const SIZE: usize = 128;

#[derive(Serialize, Deserialize)]
struct Pin {
    seq: u64,
    sha256: String,
}

/// What is known of the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pinned {
    Missing,
    Unreadable,
    At(Tip),
}

pub fn path(audit: &Path) -> PathBuf {
    audit.join("head")
}

pub fn read(audit: &Path) -> io::Result<Pinned> {
    let Some(bytes) = state::read(&path(audit), 4096).or_else(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => Ok(Some(Vec::new())),
        _ => Err(error),
    })?
    else {
        return Ok(Pinned::Missing);
    };
    let pin = serde_json::from_slice::<Pin>(&bytes).ok();
    let pin = pin.filter(|pin| pin.sha256.len() == 64 && pin.seq <= HIGHEST_SEQ);
    Ok(pin.map_or(Pinned::Unreadable, |pin| Pinned::At(Tip { seq: pin.seq, hash: pin.sha256 })))
}

/// The open pin.
#[derive(Debug)]
pub struct Head {
    audit: PathBuf,
    file: Option<File>,
    unsynced: bool,
    /// A failure is told once, until it is over.
    failed: bool,
}

impl Head {
    pub fn new(audit: &Path) -> Self {
        Self { audit: audit.to_owned(), file: None, unsynced: false, failed: false }
    }

    /// Pins `tip`. A failure leaves an older pin, which is weaker and never wrong, so it fails nothing.
    pub fn pin(&mut self, tip: &Tip) {
        let done = self.try_pin(tip);
        self.told(&done);
    }

    pub fn unsynced(&self) -> bool {
        self.unsynced
    }

    pub fn sync(&mut self) {
        self.unsynced = false;
        let done = self.file.as_ref().map_or(Ok(()), File::sync_data);
        self.told(&done);
    }

    fn try_pin(&mut self, tip: &Tip) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.audit)?,
        };
        let mut text = serde_json::to_vec(&Pin { seq: tip.seq, sha256: tip.hash.clone() })
            .map_err(io::Error::other)?;
        text.resize(SIZE - 1, b' ');
        text.push(b'\n');
        file.write_all_at(&text, 0)?;
        self.file = Some(file);
        self.unsynced = true;
        Ok(())
    }

    fn told(&mut self, done: &io::Result<()>) {
        if let Err(error) = done
            && !self.failed
        {
            tracing::warn!(%error, "cannot pin the end of the audit log");
        }
        self.failed = done.is_err();
    }
}

fn open(audit: &Path) -> io::Result<File> {
    let path = path(audit);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    // Longer only if someone else wrote it.
    if file.metadata()?.len() > SIZE as u64 {
        file.set_len(0)?;
    }
    state::sync_dir(audit)?;
    Ok(file)
}
