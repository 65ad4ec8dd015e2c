//! A socket's path that fits: the kernel takes 107 bytes, and state directories may be deeper.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// `sun_path` has 108 bytes, one of them for the closing NUL.
const LONGEST: usize = 107;

/// Where a socket is, in a form that `bind` and `connect` accept.
pub(super) struct Place {
    path: PathBuf,
    /// Keeps `/proc/self/fd/N` pointing at the directory.
    _dir: Option<OwnedFd>,
}

impl Place {
    pub fn of(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(name);
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path, _dir: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name);
        Ok(Self { path, _dir: Some(fd) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
