//! Key pairs, made by ssh-keygen as people make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Proc;
use crate::wait::SOON;

/// A key pair on disk; `path` is the private half in OpenSSH's form.
#[derive(Clone, Debug)]
pub struct Key {
    pub path: PathBuf,
    /// `ssh-ed25519 AAAA…`, without a comment.
    pub public: String,
}

impl Key {
    /// A new ed25519 pair at `path`.
    pub fn ed25519(path: &Path) -> Self {
        Self::new(path, &["-t", "ed25519"])
    }

    /// The ed25519 pair that `dir` keeps under `name`, made at the first call.
    pub fn kept(dir: &Path, name: &str) -> Self {
        let keys = dir.join("keys");
        std::fs::create_dir_all(&keys).expect("a directory");
        let path = keys.join(name);
        if path.exists() { Self::of(&path) } else { Self::ed25519(&path) }
    }

    /// A new pair of the kind that `kind` asks of ssh-keygen.
    pub fn new(path: &Path, kind: &[&str]) -> Self {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", "test"]).args(kind).arg("-f").arg(path);
        Proc::run("ssh-keygen", &mut command, SOON).ok();
        Self::of(path)
    }

    fn of(path: &Path) -> Self {
        let public = std::fs::read_to_string(path.with_extension("pub")).expect("a public half");
        let public = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Self { path: path.to_owned(), public }
    }

    /// The same private key in dropbear's form.
    pub fn for_dropbear(&self) -> PathBuf {
        let path = self.path.with_extension("dropbear");
        if !path.exists() {
            let mut command = Command::new("dropbearconvert");
            command.args(["openssh", "dropbear"]).arg(&self.path).arg(&path);
            Proc::run("dropbearconvert", &mut command, SOON).ok();
        }
        path
    }

    /// The same private key in PuTTY's form.
    pub fn for_putty(&self) -> PathBuf {
        let path = self.path.with_extension("ppk");
        if !path.exists() {
            let mut command = Command::new("puttygen");
            command.arg(&self.path).args(["-O", "private", "-o"]).arg(&path);
            Proc::run("puttygen", &mut command, SOON).ok();
        }
        path
    }

    /// `SHA256:…`, as ssh-keygen prints it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.path.with_extension("pub"))
    }
}

/// `SHA256:…` of the public key in a file.
pub fn fingerprint(public: &Path) -> String {
    let mut command = Command::new("ssh-keygen");
    command.arg("-lf").arg(public);
    let shown = Proc::run("ssh-keygen -l", &mut command, SOON).ok().stdout;
    shown.split_whitespace().nth(1).expect("a fingerprint").to_owned()
}
