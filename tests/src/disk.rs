//! Files of any size, and small file systems, for what a full disk does.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::in_ci;
use crate::process::Proc;
use crate::wait::SOON;

/// SHA-256 of a file.
#[track_caller]
pub fn sha256(path: &Path) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path).expect("the file opens");
    std::io::copy(&mut file, &mut hash).expect("the file is read");
    hash.finalize().into()
}

/// A new file of so many bytes that do not repeat.
#[track_caller]
pub fn random_file(path: &Path, bytes: u64) {
    let mut random = std::fs::File::open("/dev/urandom").expect("/dev/urandom").take(bytes);
    let mut file = std::fs::File::create(path).expect("a file");
    std::io::copy(&mut random, &mut file).expect("a copy");
}

/// A small file system under a directory, taken away when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// 2 MiB in memory, mounted at `at`. `None` where this may not be mounted, which is said, and
    /// in CI fails the test.
    pub fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "tidegate-test"]).arg(at);
        let done = Proc::run("mount", &mut command, SOON);
        if done.code != Some(0) {
            assert!(!in_ci(), "a small disk cannot be mounted: {}", done.stderr);
            eprintln!("LEFT OUT: a small disk cannot be mounted: {}", done.stderr);
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Takes all the room there is; [`std::fs::remove_file`] of what this returns gives it back.
    #[track_caller]
    pub fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=512"]).arg(format!("of={}", ballast.display()));
        let filled = Proc::run("dd", &mut command, SOON);
        assert_ne!(filled.code, Some(0), "the disk is not full");
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("-l").arg(&self.0);
        let _ = command.status();
    }
}
