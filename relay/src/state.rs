//! The state directory: everything that a relay keeps across restarts, and the lock that proves that
//! one process alone uses it.
//!
//! Touches the disk alone. Whatever is written here is complete or absent after a crash: a temporary
//! file in the same directory, fsync, rename, fsync of the directory. Names that came from outside
//! are never file names: [`StateDir::path`] takes our own, and others are hashed before.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

/// The longest file name of our own.
const LONGEST_NAME: usize = 160;

/// Why the state directory cannot be used. Each is a sentence for whoever runs the relay.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "another tidegate-relay (pid {pid}) uses {path}; stop it or give this one a --state of its own"
    )]
    InUse { path: PathBuf, pid: String },
    #[error(
        "permissions {mode:04o} for {path} are too open: it must not be accessible by others; run chmod go-rwx {path}"
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "{path} belongs to uid {owner}, but this relay runs as uid {own}; use a --state of its own user"
    )]
    WrongOwner { path: PathBuf, owner: u32, own: u32 },
    #[error("{0} is not a directory; give --state a directory")]
    NotADirectory(PathBuf),
    #[error("{0:?} is no name for a file in the state directory")]
    BadName(String),
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl StateError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// A locked state directory. Clones share the lock, which is held until the last one is dropped or
/// the process ends, however it ends.
#[derive(Clone, Debug)]
pub struct StateDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Held, never read: the lock is on the open file.
    _lock: File,
}

impl StateDir {
    /// Makes the directory (0700) where there is none, checks that nobody else can read it, and locks
    /// it. A second process is told which one has it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .or_else(|error| if path.exists() { Ok(()) } else { Err(error) })
            .map_err(StateError::io("create", path))?;
        let root = fs::canonicalize(path).map_err(StateError::io("open", path))?;
        check(&root)?;
        let lock = lock(&root)?;
        Ok(Self(Arc::new(Inner { root, _lock: lock })))
    }

    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where the file `name` is or will be. `name` is the program's own, never a peer's; what could
    /// leave the directory is refused all the same.
    pub fn path(&self, name: &str) -> Result<PathBuf, StateError> {
        Ok(self.root().join(checked(name)?))
    }

    /// A directory within, made (0700) where there is none.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, StateError> {
        let path = self.path(name)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => sync_dir(self.root()).map_err(StateError::io("sync", self.root()))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StateError::io("create", &path)(error)),
        }
        check(&path)?;
        Ok(path)
    }

    /// Replaces the file `name` by `bytes`, entirely or not at all, durable on return.
    pub fn write_atomic(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateError> {
        let path = self.path(name)?;
        write_atomic(&path, bytes, mode).map_err(StateError::io("write", &path))
    }

    /// What the file `name` holds; `None` where there is none. More than `most` bytes is an error.
    pub fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path(name)?;
        read(&path, most).map_err(StateError::io("read", &path))
    }
}

/// See [`StateDir::write_atomic`]; `path` is within a directory of [`StateDir::subdirectory`].
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary(path)?;
    let written = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: what is left over is overwritten by the next try.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(parent)
}

/// Writes a file from scratch and syncs it; its directory entry is not durable yet.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The name under which a file is written before it takes its own; hidden, so that no listing takes
/// it for one of its kind.
pub(crate) fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name =
        path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{name}.new")))
}

/// What the file holds; `None` where there is none. More than `most` bytes is an error.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("over {most} bytes")));
    }
    Ok(Some(bytes))
}

/// Makes renames, links and removals in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Lower-case hex of SHA-256, for file names and the audit chain.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn checked(name: &str) -> Result<&str, StateError> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let good = (1..=LONGEST_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.as_bytes().iter().all(plain);
    if good { Ok(name) } else { Err(StateError::BadName(name.chars().take(64).collect())) }
}

/// As sshd does with its keys: our own, and nobody else's to read.
fn check(path: &Path) -> Result<(), StateError> {
    let meta = fs::metadata(path).map_err(StateError::io("look at", path))?;
    if !meta.is_dir() {
        return Err(StateError::NotADirectory(path.to_owned()));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own {
        return Err(StateError::WrongOwner { path: path.to_owned(), owner: meta.uid(), own });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(StateError::TooOpen { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

/// The lock is the kernel's (flock): it goes with the process, so a stale file never locks anyone
/// out. The pid in the file is only for the sentence.
fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StateError::io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = (&file).take(20).read_to_string(&mut pid);
            let pid = pid.trim();
            let known = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
            let pid = if known { pid.to_owned() } else { "unknown".to_owned() };
            return Err(StateError::InUse { path: root.to_owned(), pid });
        }
        Err(error) => return Err(StateError::io("lock", &path)(error.into())),
    }
    // On a full disk the relay starts all the same: the lock holds without the pid.
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot note the pid in the lock file");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_directory_is_private_and_taken_once() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/state");
        let state = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let second = StateDir::open(&path).unwrap_err().to_string();
        let pid = std::process::id();
        let shown = state.root().display();
        assert_eq!(
            second,
            format!(
                "another tidegate-relay (pid {pid}) uses {shown}; stop it or give this one a --state of its own"
            )
        );
        let clone = state.clone();
        drop(state);
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse { .. })));
        drop(clone);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn loose_permissions_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        for mode in [0o750, 0o701, 0o770] {
            fs::set_permissions(parent.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = StateDir::open(parent.path()).unwrap_err();
            assert!(matches!(error, StateError::TooOpen { mode: m, .. } if m == mode), "{error}");
        }
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let state = StateDir::open(parent.path()).unwrap();
        let inner = state.subdirectory("audit").unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(state.subdirectory("audit"), Err(StateError::TooOpen { .. })));
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        fs::write(&path, "").unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::NotADirectory(_))));
    }

    #[test]
    fn files_are_replaced_whole_and_names_stay_inside() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::open(&parent.path().join("s")).unwrap();
        assert_eq!(state.read("policy.json", 10).unwrap(), None);
        state.write_atomic("policy.json", b"one", 0o600).unwrap();
        state.write_atomic("policy.json", b"two", 0o600).unwrap();
        assert_eq!(state.read("policy.json", 3).unwrap().unwrap(), b"two");
        assert!(state.read("policy.json", 2).is_err());
        let mode = fs::metadata(state.path("policy.json").unwrap()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let names: Vec<_> =
            fs::read_dir(state.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        for bad in ["", ".", "..", "a/b", "../x", "/etc/passwd", ".hidden", "a\0b", "a b", "\u{e9}"]
        {
            assert!(matches!(state.path(bad), Err(StateError::BadName(_))), "{bad:?}");
        }
    }
}
