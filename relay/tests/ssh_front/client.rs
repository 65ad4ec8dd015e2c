//! The real clients, run as children that never outlive their test.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use tidegate_policy::model::KeyBlob;

use crate::gate::Gate;

/// A client must come to its end by itself within this. It is more than the 25 s after which the relay
/// asks a silent peer for a sign of life: a client that has slept through its own end (OpenSSH 9.2 when
/// SIGTERM comes just before it polls, dbclient when the last bytes go out behind the peer's CLOSE) sees
/// that then.
const PATIENCE: Duration = Duration::from_secs(40);

pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

pub fn keygen(path: &Path, kind: &str) {
    run(Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(path));
}

/// The file `name` of the keys that all tests share: `good` and `bad`, each also as PuTTY wants it
/// and one of dropbear's own, and `rsa`.
pub fn key(name: &str) -> PathBuf {
    // Made once per build directory: the same keys do for every run.
    static KEYS: LazyLock<PathBuf> = LazyLock::new(|| {
        let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ssh-front-keys");
        if keys.exists() {
            return keys;
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = |name: &str| dir.path().join(name);
        keygen(&path("rsa"), "rsa");
        for name in ["good", "bad"] {
            keygen(&path(name), "ed25519");
            let ppk = path(&format!("{name}.ppk"));
            run(Command::new("puttygen").arg(path(name)).args(["-O", "private", "-o"]).arg(ppk));
            let dropbear = path(&format!("{name}.dropbear"));
            run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&dropbear));
            let shown = run(Command::new("dropbearkey").arg("-y").arg("-f").arg(&dropbear));
            let shown = String::from_utf8(shown.stdout).unwrap();
            let line = shown.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap();
            std::fs::write(path(&format!("{name}.dropbear.pub")), line).unwrap();
        }
        // Another run may have been faster; then this one's directory goes away again.
        let _ = std::fs::rename(dir.path(), &keys);
        keys
    });
    KEYS.join(name)
}

pub fn public_blob(path: &Path) -> KeyBlob {
    let line = std::fs::read_to_string(path).unwrap();
    let blob = line.split_whitespace().nth(1).unwrap();
    KeyBlob::new(base64::engine::general_purpose::STANDARD.decode(blob).unwrap())
}

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OpenSsh,
    Dropbear,
    Putty,
}

pub const ALL: [Kind; 3] = [Kind::OpenSsh, Kind::Dropbear, Kind::Putty];

impl Gate {
    /// A client that logs in with the key `key` as `user`; `options` go before the destination,
    /// `command` behind it.
    pub fn client(
        &self,
        kind: Kind,
        user: &str,
        key: &str,
        options: &[&str],
        command: &[&str],
    ) -> Command {
        let mut client = match kind {
            Kind::OpenSsh => {
                let known_hosts = self.path("known_hosts");
                let line = format!("[127.0.0.1]:{} {}\n", self.port, self.host_key.public_line());
                std::fs::write(&known_hosts, line).unwrap();
                let mut ssh = Command::new("ssh");
                ssh.args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=yes", "-o"])
                    .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
                    .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentityAgent=none"])
                    .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-i"])
                    .arg(self::key(key))
                    .args(["-p", &self.port.to_string()])
                    .args(options)
                    .arg(format!("{user}@127.0.0.1"));
                ssh
            }
            Kind::Dropbear => {
                let mut dbclient = Command::new("dbclient");
                dbclient
                    .args(["-y", "-i"])
                    .arg(self::key(&format!("{key}.dropbear")))
                    .args(options)
                    .arg(format!("{user}@127.0.0.1/{}", self.port));
                dbclient
            }
            Kind::Putty => {
                let mut plink = Command::new("plink");
                plink
                    .args(["-batch", "-ssh", "-noagent", "-hostkey", &self.host_key.fingerprint()])
                    .arg("-i")
                    .arg(self::key(&format!("{key}.ppk")))
                    .args(["-P", &self.port.to_string()])
                    .args(options)
                    .arg(format!("{user}@127.0.0.1"));
                plink
            }
        };
        client.args(command).env("HOME", self.home()).env_remove("SSH_AUTH_SOCK");
        client
    }

    pub fn ssh(&self, options: &[&str], command: &[&str]) -> Command {
        self.client(Kind::OpenSsh, "alice", "good", options, command)
    }
}

/// A child that runs, is told things, and is dead when this is dropped.
pub struct Running {
    pid: Pid,
    output: Receiver<Output>,
    pub stdin: Option<std::process::ChildStdin>,
    done: bool,
}

/// What a client left behind.
#[derive(Debug)]
pub struct Left {
    /// Exit status; -1 if it was killed.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Child = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let stdin = child.stdin.take();
        let (tell, output) = channel();
        std::thread::spawn(move || tell.send(child.wait_with_output().unwrap()));
        Self { pid, output, stdin, done: false }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Writes all of `input` and closes standard input, from a thread of its own.
    pub fn feed(&mut self, input: Vec<u8>) {
        let mut stdin = self.stdin.take().unwrap();
        std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
    }

    pub fn end(mut self) -> Left {
        drop(self.stdin.take());
        self.end_as_is()
    }

    /// Waits for the end without closing standard input first.
    pub fn end_as_is(&mut self) -> Left {
        let output = self.output.recv_timeout(PATIENCE).expect("the client does not end");
        self.done = true;
        Left {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Ends it where it has not ended by itself, and tells what it has said.
    pub fn stop(mut self) -> Left {
        for signal in [Signal::TERM, Signal::CONT] {
            let _ = kill_process(self.pid, signal);
        }
        self.end_as_is()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// A service on a terminal that sends back what it gets, with half-close.
pub fn echo_service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                let mut back = socket.try_clone().unwrap();
                let _ = std::io::copy(&mut socket, &mut back);
                let _ = back.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

/// Bytes that are not the same everywhere.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..=250).cycle().zip((0..=255).cycle()).map(|(a, b): (u8, u8)| a ^ b).take(count).collect()
}
