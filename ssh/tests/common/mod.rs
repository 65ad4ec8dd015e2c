//! What stands around every server here: its host keys, the programs that are its clients, and a service
//! behind their forwards.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tidegate_ssh::HostKey;

/// Host keys made by ssh-keygen for this run: ed25519, then ecdsa.
pub fn host_keys() -> Vec<HostKey> {
    static KEYS: OnceLock<[String; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| ["ed25519", "ecdsa"].map(host_key));
    keys.iter().map(|key| HostKey::from_openssh(key).unwrap()).collect()
}

fn host_key(kind: &str) -> String {
    let file = std::env::temp_dir().join(format!("tidegate-ssh-{}-{kind}", std::process::id()));
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "", "-t", kind, "-f"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(made.success());
    let key = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(file.with_added_extension("pub")).unwrap();
    key
}

/// Whether a program is here; where CI wants no test skipped, its absence fails the test.
pub fn has(program: &str) -> bool {
    let here = Command::new(program).arg("-V").stdin(Stdio::null()).output().is_ok();
    assert!(here || std::env::var_os("CI").is_none(), "{program} is not installed");
    if !here {
        eprintln!("SKIPPED: {program} is not installed");
    }
    here
}

/// Answers what it gets, once.
pub fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        socket.write_all(&all).unwrap();
    });
    port
}
