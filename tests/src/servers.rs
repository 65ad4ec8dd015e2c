//! A terminal's own SSH servers: a real sshd and a real dropbear on loopback ports, run by whoever
//! runs the tests, with keys and configuration of their own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::keys::Key;
use crate::ports;
use crate::process::Proc;
use crate::wait::{SOON, eventually};

/// The user that runs the tests, whom these servers let in.
pub fn me() -> String {
    let user = Proc::run("id", Command::new("id").arg("-un"), SOON).ok().stdout;
    user.trim().to_owned()
}

fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Debian's, by its absolute path, as sshd wants to be called.
pub const SSHD: &str = "/usr/sbin/sshd";

pub struct Sshd {
    pub port: u16,
    pub host_key: Key,
    pub process: Proc,
}

impl Sshd {
    /// Lets in whoever has one of `authorized` (public keys in OpenSSH's form).
    pub fn start(dir: &Path, authorized: &[&str]) -> Self {
        Self::with(dir, authorized, &[])
    }

    /// The same with further lines of sshd_config.
    pub fn with(dir: &Path, authorized: &[&str], extra: &[&str]) -> Self {
        Self::at("127.0.0.1", Command::new(SSHD), dir, authorized, extra)
    }

    /// The same on another address, which this machine must reach; `sshd` starts the program there.
    pub fn at(
        address: &str,
        mut sshd: Command,
        dir: &Path,
        authorized: &[&str],
        extra: &[&str],
    ) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        // sshd run by root wants its privilege separation directory; /run is empty after a boot.
        if rustix::process::geteuid().is_root() {
            let _ = std::fs::create_dir_all("/run/sshd");
        }
        let port = ports::free();
        let host_key = Key::ed25519(&dir.join("host_key"));
        let keys = dir.join("authorized_keys");
        std::fs::write(&keys, authorized.join("\n") + "\n").expect("authorized_keys");
        let config = dir.join("sshd_config");
        let mut text = format!(
            "Port {port}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\n\
             PidFile none\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM no\nSubsystem sftp internal-sftp\n\
             MaxStartups 200\nMaxSessions 100\nLogLevel VERBOSE\nPrintMotd no\nPrintLastLog no\n",
            host_key.path.display(),
            keys.display(),
        );
        for line in extra {
            let _ = writeln!(text, "{line}");
        }
        std::fs::write(&config, text).expect("sshd_config");
        sshd.args(["-D", "-e", "-f"]).arg(&config);
        let mut process = Proc::start("sshd", &mut sshd);
        process.quiet = true;
        let listens = || std::net::TcpStream::connect((address, port)).is_ok();
        eventually("sshd listens", SOON, || listens() || !process.is_running());
        assert!(process.is_running(), "sshd ended: {}", process.stderr());
        Self { port, host_key, process }
    }
}

pub struct Dropbear {
    pub port: u16,
    pub host_key: Key,
    pub process: Proc,
    _home: PathBuf,
}

impl Dropbear {
    /// dropbear reads `~/.ssh/authorized_keys` of the user's real home alone, so what it serves is
    /// the handshake; a test that logs in uses [`Sshd`].
    pub fn start(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        let port = ports::free();
        let host_key = Key::ed25519(&dir.join("host_key"));
        let mut command = Command::new("/usr/sbin/dropbear");
        command
            .args(["-F", "-E", "-s", "-r"])
            .arg(host_key.for_dropbear())
            .args(["-p", &format!("127.0.0.1:{port}"), "-P"])
            .arg(dir.join("pid"));
        let mut process = Proc::start("dropbear", &mut command);
        process.quiet = true;
        eventually("dropbear listens", SOON, || listens(port) || !process.is_running());
        assert!(process.is_running(), "dropbear ended: {}", process.stderr());
        Self { port, host_key, process, _home: dir.to_owned() }
    }
}
