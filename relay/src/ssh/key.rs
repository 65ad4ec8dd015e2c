//! The relay's host key: an Ed25519 key in OpenSSH's own format. Touches the disk.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ssh_key::{Algorithm, LineEnding, PrivateKey};
use tidegate_policy::model::KeyBlob;
use zeroize::Zeroizing;

/// No private key in OpenSSH's format is larger.
const LARGEST: u64 = 64 * 1024;

/// The relay's identity to every peer.
#[derive(Clone)]
pub struct HostKey(PrivateKey);

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    #[error("the host key {} cannot be read or written: {error}", .path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error(
        "the relays' host key {} cannot be read: {error}; mount the Secret of the Mesh's host key there \
         and give its path by --host-key", .path.display()
    )]
    Mounted { path: PathBuf, error: std::io::Error },
    #[error(
        "Permissions {mode:04o} for '{}' are too open: a host key must not be accessible by others, \
         run chmod 600 on it", .path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("the host key {} belongs to user {owner}, not to the one that the relay runs as", .path.display())]
    NotOurs { path: PathBuf, owner: u32 },
    #[error("the host key {} is not a private key in OpenSSH's format: {why}", .path.display())]
    Malformed { path: PathBuf, why: String },
    #[error("the host key {} is {algorithm}; a relay's must be ssh-ed25519, without a passphrase", .path.display())]
    Unfit { path: PathBuf, algorithm: String },
}

impl HostKey {
    /// Reads the key at `path`. As sshd does, it refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, HostKeyError> {
        let io = |error| HostKeyError::Io { path: path.to_owned(), error };
        // What is checked is what was opened, so that the file can't be swapped in between.
        let file = std::fs::File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if !about.is_file() {
            return Err(io(std::io::Error::other("it is not a file")));
        }
        let owner = about.uid();
        let us = rustix::process::geteuid().as_raw();
        if owner != us && owner != 0 {
            return Err(HostKeyError::NotOurs { path: path.to_owned(), owner });
        }
        let mode = about.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(HostKeyError::TooOpen { path: path.to_owned(), mode });
        }
        Self::read(path, file)
    }

    /// Reads a key that a cluster mounts, which is never written. Who may read it there is the
    /// volume's business: the node gives it to root and the pod's group.
    pub fn load_mounted(path: &Path) -> Result<Self, HostKeyError> {
        let file = std::fs::File::open(path)
            .map_err(|error| HostKeyError::Mounted { path: path.to_owned(), error })?;
        Self::read(path, file)
    }

    fn read(path: &Path, file: std::fs::File) -> Result<Self, HostKeyError> {
        let io = |error| HostKeyError::Io { path: path.to_owned(), error };
        // As long as it can get, so that growing leaves no copy behind.
        let longest = usize::try_from(LARGEST).unwrap_or_default();
        let mut text = Zeroizing::new(String::with_capacity(longest));
        file.take(LARGEST).read_to_string(&mut text).map_err(io)?;
        let key = PrivateKey::from_openssh(text.as_bytes()).map_err(|error| {
            HostKeyError::Malformed { path: path.to_owned(), why: error.to_string() }
        })?;
        if key.algorithm() != Algorithm::Ed25519 || key.is_encrypted() {
            let locked = if key.is_encrypted() { "encrypted " } else { "" };
            let algorithm = format!("{locked}{}", key.algorithm());
            return Err(HostKeyError::Unfit { path: path.to_owned(), algorithm });
        }
        let key = Self(key);
        key.core().map_err(|error| HostKeyError::Malformed {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        Ok(key)
    }

    /// Makes a key and writes it to `path`, mode 0600, on disk when this returns. A file that is
    /// there already is left alone and is an error.
    pub fn generate(path: &Path) -> Result<Self, HostKeyError> {
        let io = |error| HostKeyError::Io { path: path.to_owned(), error };
        let malformed = |why| HostKeyError::Malformed { path: path.to_owned(), why };
        let key = Self::random().map_err(|error| malformed(error.to_string()))?;
        let text = key.0.to_openssh(LineEnding::LF);
        let text = text.map_err(|error| malformed(error.to_string()))?;
        let options = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
        let mut file = options.open(path).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        std::fs::File::open(directory).and_then(|it| it.sync_all()).map_err(io)?;
        Ok(key)
    }

    /// A new key that is on no disk.
    fn random() -> Result<Self, tidegate_ssh::hostkey::HostKeyError> {
        tidegate_ssh::hostkey::generate("tidegate-relay").map(Self)
    }

    /// The key as the core signs with it; whether it can was seen when it was read.
    pub(super) fn core(
        &self,
    ) -> Result<tidegate_ssh::HostKey, tidegate_ssh::hostkey::HostKeyError> {
        tidegate_ssh::HostKey::from_private_key(&self.0)
    }

    /// The key's public half as it stands in known_hosts behind the name: `ssh-ed25519 AAAA…`.
    pub fn public_line(&self) -> String {
        let mut public = self.0.public_key().clone();
        public.set_comment("");
        // An Ed25519 key always encodes.
        public.to_openssh().unwrap_or_default().trim_end().to_owned()
    }

    /// The public half as peers see it on the wire.
    pub fn blob(&self) -> KeyBlob {
        KeyBlob::new(self.0.public_key().to_bytes().unwrap_or_default())
    }

    /// `SHA256:…`, as ssh shows it.
    pub fn fingerprint(&self) -> String {
        self.blob().fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    #[test]
    fn ssh_keygen_reads_what_we_write_and_we_read_what_it_writes() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ours");
        let key = HostKey::generate(&ours).unwrap();
        assert_eq!(std::fs::metadata(&ours).unwrap().mode() & 0o7777, 0o600);
        let shown = Command::new("ssh-keygen").arg("-lf").arg(&ours).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(&key.fingerprint()) && shown.contains("ED25519"), "{shown}");
        let public = Command::new("ssh-keygen").arg("-yf").arg(&ours).output().unwrap();
        let public = String::from_utf8(public.stdout).unwrap();
        assert!(public.starts_with(&key.public_line()), "{public}");
        assert_eq!(HostKey::load(&ours).unwrap().public_line(), key.public_line());
        assert!(HostKey::generate(&ours).is_err(), "a key that is there is never replaced");

        let theirs = dir.path().join("theirs");
        let mut made = Command::new("ssh-keygen");
        made.args(["-qt", "ed25519", "-N", "", "-f"]).arg(&theirs);
        assert!(made.status().unwrap().success());
        assert!(HostKey::load(&theirs).is_ok());
    }

    #[test]
    fn loose_permissions_and_other_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        HostKey::generate(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refusal = HostKey::load(&path).unwrap_err().to_string();
        assert!(refusal.starts_with("Permissions 0644 for '"), "{refusal}");
        assert!(refusal.contains("are too open"), "{refusal}");

        for (name, options) in
            [("rsa", ["-t", "rsa", "-N", ""]), ("locked", ["-t", "ed25519", "-N", "secret"])]
        {
            let path = dir.path().join(name);
            let made =
                Command::new("ssh-keygen").arg("-q").args(options).arg("-f").arg(&path).status();
            assert!(made.unwrap().success());
            let refusal = HostKey::load(&path).unwrap_err();
            assert!(matches!(refusal, HostKeyError::Unfit { .. }), "{refusal}");
        }

        std::fs::write(&path, "not a key").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(HostKey::load(&path), Err(HostKeyError::Malformed { .. })));
        assert!(matches!(
            HostKey::load(dir.path()),
            Err(HostKeyError::TooOpen { .. } | HostKeyError::Io { .. })
        ));
    }
}
