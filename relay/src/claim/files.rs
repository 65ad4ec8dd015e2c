//! Claims on disk, step by step.
//!
//! A claim is made by these steps, and by the link alone: (1) the whole content goes to a temporary
//! file, (2) which is synced, (3) a hard link gives it the claim's name, which fails if the name is
//! taken, (4) the temporary name goes, (5) the directory is synced. Only after (5) does a session
//! begin. So what a crash leaves is either no claim and no session, or a claim whose content is whole:
//!
//! | it stops | the next process finds | a one-time window |
//! |---|---|---|
//! | before (3) | perhaps a temporary file, which it removes | is still to be had; no session began |
//! | after (3), process killed | the claim | is used up, though no session began |
//! | after (3), before (5) has ended, power cut | the claim or nothing | either; no session began |
//! | after (5) | the claim | is used up |
//!
//! An error that does not say for certain that nothing was made is answered by reading back: only the
//! `uid` of this very attempt makes it ours, and what cannot be told counts as used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tidegate_crds::SupportClaimSpec;

use crate::failpoint::{Point, reach};
use crate::object::Object;
use crate::state;

/// The most bytes that a claim's file has.
const MOST: u64 = 16 << 10;

pub type ClaimObject = Object<SupportClaimSpec, ()>;

/// The steps, for tests that fail or stop at each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Write,
    Link,
    Unlink,
    SyncDirectory,
    Read,
    Release,
}

/// What becomes of a step; always `Go` but in tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests alone make steps fail"))]
pub enum Fate {
    Go,
    /// It fails and nothing was done.
    FailBefore(i32),
    /// It was done, and an error is reported all the same.
    FailAfter(i32),
    /// The process dies before or after it.
    CrashBefore,
    CrashAfter,
}

pub type Hook = Box<dyn FnMut(Step) -> Fate + Send>;

pub struct Files {
    directory: PathBuf,
    hook: Option<Hook>,
    /// In a test: the process is dead, nothing is done any more.
    dead: bool,
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Made {
    Ours,
    /// The name is taken; by whom, if that can be read.
    Taken(Option<Box<ClaimObject>>),
    /// Nothing was made.
    Failed(io::Error),
    /// It may have been made.
    Uncertain(io::Error),
}

impl Files {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, hook: None, dead: false }
    }

    #[cfg(test)]
    pub fn with_hook(directory: PathBuf, hook: Hook) -> Self {
        Self { directory, hook: Some(hook), dead: false }
    }

    #[cfg(test)]
    pub fn dead(&self) -> bool {
        self.dead
    }

    /// The names there are and what each holds; `None` for what cannot be read as a claim.
    pub fn load(&mut self) -> io::Result<Vec<(String, Option<Box<ClaimObject>>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Some(name) if is_claim(name) => {
                    found.push((name.to_owned(), self.read(name).unwrap_or_default()));
                }
                Some(name) if name.starts_with('.') => {
                    // What a crash before the link left.
                    if let Err(error) = fs::remove_file(entry.path()) {
                        tracing::warn!(name, %error, "cannot remove an unfinished claim");
                    }
                }
                _ => tracing::warn!(path = %entry.path().display(), "this is no claim; ignored"),
            }
        }
        Ok(found)
    }

    /// Makes the claim, or tells why not. `Ours` is durable.
    pub fn make(&mut self, claim: &ClaimObject) -> Made {
        let path = self.path(&claim.metadata.name);
        reach(Point::ClaimBegun);
        let written = claim.text().and_then(|text| {
            let temporary = state::temporary(&path)?;
            self.step(Step::Write, || state::write_new(&temporary, &text, 0o600))?;
            Ok(temporary)
        });
        let temporary = match written {
            Ok(temporary) => temporary,
            Err(error) => return Made::Failed(error),
        };
        let linked = self.step(Step::Link, || fs::hard_link(&temporary, &path));
        // A rest is removed at the next start.
        let _ = self.step(Step::Unlink, || fs::remove_file(&temporary));
        if let Err(error) = linked {
            match self.read(&claim.metadata.name) {
                Ok(Some(there)) if there.metadata.uid == claim.metadata.uid => {}
                Ok(there) => return Made::Taken(there),
                Err(read) if read.kind() == io::ErrorKind::NotFound && refuses(&error) => {
                    return Made::Failed(error);
                }
                Err(_) => return Made::Uncertain(error),
            }
        }
        reach(Point::ClaimWritten);
        let directory = self.directory.clone();
        match self.step(Step::SyncDirectory, || state::sync_dir(&directory)) {
            Ok(()) => Made::Ours,
            Err(error) => Made::Uncertain(error),
        }
    }

    /// Frees a name. It need not last: what can be freed is freed at every start anyway.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        match self.step(Step::Release, || fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// `Ok(None)`: there is something that is no claim.
    fn read(&mut self, name: &str) -> io::Result<Option<Box<ClaimObject>>> {
        let path = self.path(name);
        let bytes = self.step(Step::Read, || match state::read(&path, MOST) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Some(Vec::new())),
            other => other,
        })?;
        let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// `name` is a hash of ours, see [`is_claim`].
    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.directory).join(name)
    }

    fn step<T>(&mut self, step: Step, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(hook) = &mut self.hook else { return act() };
        let crashed = || io::Error::other("the process is dead");
        if self.dead {
            return Err(crashed());
        }
        match hook(step) {
            Fate::Go => act(),
            Fate::FailBefore(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fate::FailAfter(errno) => {
                let _ = act();
                Err(io::Error::from_raw_os_error(errno))
            }
            Fate::CrashBefore => {
                self.dead = true;
                Err(crashed())
            }
            Fate::CrashAfter => {
                let _ = act();
                self.dead = true;
                Err(crashed())
            }
        }
    }
}

/// Whether an error of `link` says for certain that no link was made, when none is there either.
fn refuses(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::ReadOnlyFilesystem
            | Kind::PermissionDenied
            | Kind::NotFound
            | Kind::TooManyLinks
            | Kind::OutOfMemory
    )
}

/// 64 hex digits, and for places that can be used again `-` and an index.
pub fn is_claim(name: &str) -> bool {
    let (hash, index) = name.split_at_checked(64).unwrap_or((name, "x"));
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let digits = |index: &str| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    hash.len() == 64
        && hash.bytes().all(hex)
        && (index.is_empty() || index.strip_prefix('-').is_some_and(digits))
}
