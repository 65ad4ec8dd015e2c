//! SSH clients as programs and libraries: what each is asked to do, and how it went.

pub mod command;
pub mod library;
pub mod russh;
pub mod table;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::relay::Relay;

/// One connection of a client: it logs in as alice, echoes on the channel of a forward that it is
/// granted, sends bytes to kiosk-17:22 that come back, and runs a command.
pub struct Job<'a> {
    pub relay: &'a Relay,
    /// SHA256:… of the relay's host key.
    pub host_key: &'a str,
    pub key: &'a UserKey,
    pub size: u64,
    /// After how many bytes the client changes keys; 0: as it likes.
    pub rekey: u64,
    /// The ciphers that it offers; without: all that it has.
    pub ciphers: Option<&'a str>,
    /// Further options, of `ssh` alone.
    pub options: &'a [&'a str],
}

pub trait Client {
    /// The line of the table.
    fn name(&self) -> &str;
    fn version(&self) -> String;
    /// An error is all that the client says.
    fn run(&mut self, job: &Job<'_>) -> Result<(), String>;
    /// Whether it can be told to change keys by itself.
    fn rekeys(&self) -> bool {
        true
    }
}

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A user's key in the forms that the clients read.
pub struct UserKey {
    pub name: &'static str,
    pub file: PathBuf,
    /// Of the public half.
    pub blob: Vec<u8>,
}

pub const USER_KEYS: [(&str, &str, &str); 5] = [
    ("ed25519", "ed25519", ""),
    ("ecdsa-256", "ecdsa", "256"),
    ("ecdsa-384", "ecdsa", "384"),
    ("ecdsa-521", "ecdsa", "521"),
    ("rsa-2048", "rsa", "2048"),
];

impl UserKey {
    /// Makes one of each kind in a folder.
    pub fn all(folder: &Path) -> Vec<Self> {
        USER_KEYS.iter().map(|(name, kind, bits)| Self::make(folder, name, kind, bits)).collect()
    }

    fn make(folder: &Path, name: &'static str, kind: &str, bits: &str) -> Self {
        let file = folder.join(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-t", kind, "-f"]).arg(&file);
        if !bits.is_empty() {
            keygen.args(["-b", bits]);
        }
        done(&mut keygen);
        let line = fs::read_to_string(file.with_extension("pub")).unwrap();
        let blob = ssh_key::PublicKey::from_openssh(&line).unwrap().to_bytes().unwrap();
        Self { name, file, blob }
    }

    /// As PuTTY reads it.
    pub fn putty(&self) -> PathBuf {
        let file = self.file.with_extension("ppk");
        if !file.exists() {
            done(Command::new("puttygen").arg(&self.file).args(["-O", "private", "-o"]).arg(&file));
        }
        file
    }

    /// As dropbear reads it.
    pub fn dropbear(&self) -> PathBuf {
        let file = self.file.with_extension("dropbear");
        if !file.exists() {
            let mut convert = Command::new("dropbearconvert");
            done(convert.args(["openssh", "dropbear"]).arg(&self.file).arg(&file));
        }
        file
    }
}

fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Where `clients/build` has put the libraries; nothing where they are not to be had, which fails the
/// test where CI wants none skipped.
pub fn libraries() -> Option<PathBuf> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/build");
    let output = Command::new(build).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()));
    }
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("SKIPPED: {text}");
    None
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const BLOCK: usize = 64 << 10;

/// Bytes that tell their place in a stream.
fn block(number: u64, length: usize) -> Vec<u8> {
    let first = number * (BLOCK as u64 / 8);
    let words = (first..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let mut block: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
    block.truncate(length);
    block
}

fn blocks(size: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..size.div_ceil(BLOCK as u64)).map(move |number| {
        let rest = size - number * BLOCK as u64;
        block(number, usize::try_from(rest).map_or(BLOCK, |rest| rest.min(BLOCK)))
    })
}

/// Sends bytes to a local port, and compares what comes back. It sends EOF only then: when both sides
/// have, PuTTY closes its socket and drops what it has not handed on.
fn transfer(port: u16, size: u64) -> Result<(), String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sending = socket.try_clone().unwrap();
    let sender =
        std::thread::spawn(move || blocks(size).try_for_each(|block| sending.write_all(&block)));
    let came_back = blocks(size).try_for_each(|wanted| {
        let mut got = vec![0; wanted.len()];
        socket.read_exact(&mut got).map_err(|error| error.to_string())?;
        if got == wanted { Ok(()) } else { Err("other bytes came back".to_owned()) }
    });
    // What is left to send after an error has nowhere to go.
    let _ = socket.shutdown(if came_back.is_ok() { Shutdown::Write } else { Shutdown::Both });
    let sent = sender.join().unwrap().map_err(|error| error.to_string());
    let end = socket.read(&mut [0]).map_err(|error| error.to_string());
    came_back.and(sent).and(end).and_then(|more| match more {
        0 => Ok(()),
        _ => Err("more bytes came back".to_owned()),
    })
}
