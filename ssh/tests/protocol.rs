//! The whole core against the clients that people have: logins with each kind of key, sessions,
//! channels both ways and forwards, with keys that change all the while.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic, and reads the clock as it likes"
)]

mod common;
#[allow(dead_code, reason = "the clients' tests use the rest of it")]
mod relay;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{echo, has, host_keys};
use relay::{Relay, Seen, bytes};
use tidegate_ssh::Config;

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Makes a key, and returns the blob of its public half.
fn keygen(path: &Path, kind: &str, bits: &str) -> Vec<u8> {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-N", "", "-t", kind, "-f"]).arg(path);
    if !bits.is_empty() {
        keygen.args(["-b", bits]);
    }
    assert!(run(&mut keygen).status.success());
    let line = fs::read_to_string(path.with_extension("pub")).unwrap();
    ssh_key::PublicKey::from_openssh(&line).unwrap().to_bytes().unwrap()
}

fn ssh(port: u16, key: &Path, known_hosts: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "/dev/null", "-p", &port.to_string(), "-i"]).arg(key);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=accept-new",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "ExitOnForwardFailure=yes",
    ] {
        ssh.args(["-o", option]);
    }
    ssh
}

const TARGET: &str = "alice@127.0.0.1";

#[test]
fn openssh_logs_in_with_each_kind_of_key_and_runs_a_command() {
    if !has("ssh") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (kind, bits) in
        [("ed25519", ""), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")]
    {
        let key = dir.path().join(format!("{kind}{bits}"));
        let blob = keygen(&key, kind, bits);
        for with_pty in [false, true] {
            let relay = Relay::start(Config::new(host_keys()), vec![blob.clone()]);
            let mut ssh = ssh(relay.port, &key, &dir.path().join("known"));
            ssh.args(["-o", "StrictHostKeyChecking=no"]);
            if with_pty {
                ssh.arg("-tt");
            }
            let output = run(ssh.args([TARGET, "why", "kiosk-17"]));
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{kind}{bits}: {stderr}");
            assert!(stdout.contains(&format!("why kiosk-17 pty={with_pty}")), "{stdout}");
            assert!(stderr.contains("this is stderr"), "{stderr}");
            let seen = relay.end();
            assert!(seen.contains(&Seen::Login("alice".into(), blob.clone())), "{seen:?}");
        }
    }
}

#[test]
fn short_rsa_keys_unknown_keys_and_sha1_are_denied() {
    if !has("ssh") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (short, unknown, good) =
        (dir.path().join("short"), dir.path().join("unknown"), dir.path().join("good"));
    let mut keys = vec![keygen(&short, "rsa", "1024"), keygen(&good, "rsa", "2048")];
    keygen(&unknown, "ed25519", "");
    for (key, option) in [
        (&short, "LogLevel=INFO"),
        (&unknown, "LogLevel=INFO"),
        (&good, "PubkeyAcceptedAlgorithms=ssh-rsa"),
    ] {
        let relay = Relay::start(Config::new(host_keys()), keys.clone());
        let mut ssh = ssh(relay.port, key, &dir.path().join("known"));
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", option]);
        let output = run(ssh.args([TARGET, "why"]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255));
        assert!(stderr.contains("Permission denied (publickey)"), "{stderr}");
        assert!(relay.end().iter().all(|it| !matches!(it, Seen::Login(..))));
    }
    // The same key gets in by itself.
    keys.remove(0);
    let relay = Relay::start(Config::new(host_keys()), keys);
    let mut ssh = ssh(relay.port, &good, &dir.path().join("known"));
    ssh.args(["-o", "StrictHostKeyChecking=no"]);
    assert_eq!(run(ssh.args([TARGET, "why"])).status.code(), Some(3));
    relay.end();
}

#[test]
fn openssh_sends_and_gets_megabytes_while_keys_change() {
    if !has("ssh") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let blob = keygen(&key, "ed25519", "");
    for cipher in tidegate_ssh::Cipher::ALL {
        let mut config = Config::new(host_keys());
        config.rekey.bytes = 1 << 20;
        let relay = Relay::start(config, vec![blob.clone()]);
        let mut ssh = ssh(relay.port, &key, &dir.path().join("known"));
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "RekeyLimit=700K", "-c", cipher.name()]);
        let mut child = ssh
            .args(["-W", "kiosk-17:22", TARGET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let sent = bytes(6 << 20);
        let mut stdin = child.stdin.take().unwrap();
        let copy = sent.clone();
        let sender = std::thread::spawn(move || stdin.write_all(&copy));
        let mut got = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
        sender.join().unwrap().unwrap();
        assert!(child.wait().unwrap().success());
        assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
        let seen = relay.end();
        assert!(seen.contains(&Seen::Open("kiosk-17".into(), 22)), "{seen:?}");
        let keys = seen.iter().filter(|it| **it == Seen::Keys).count();
        assert!(keys > 6, "{keys} key exchanges");
    }
}

#[test]
fn forwards_of_openssh_and_dropbear_are_opened_by_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    if !has("ssh") {
        return;
    }
    let blob = keygen(&key, "ed25519", "");
    for asked in [0, 4022] {
        let relay = Relay::start(Config::new(host_keys()), vec![blob.clone()]);
        let mut ssh = ssh(relay.port, &key, &dir.path().join("known"));
        ssh.args(["-o", "StrictHostKeyChecking=no", "-N", "-R"]);
        ssh.arg(format!("{asked}:127.0.0.1:{}", echo())).arg(TARGET);
        // The relay says goodbye once it has its answer.
        let output = run(&mut ssh);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("the window has closed"), "{stderr}");
        let seen = relay.end();
        assert!(seen.contains(&Seen::Forward("localhost".into(), asked)), "{seen:?}");
        assert!(seen.contains(&Seen::Echoed), "{seen:?} {stderr}");
        assert!(seen.contains(&Seen::Alive), "{seen:?}");
    }
    if !has("dbclient") || !has("dropbearconvert") {
        return;
    }
    let converted = dir.path().join("dropbear");
    let mut convert = Command::new("dropbearconvert");
    convert.args(["openssh", "dropbear"]).arg(&key).arg(&converted);
    assert!(run(&mut convert).status.success());
    let relay = Relay::start(Config::new(host_keys()), vec![blob]);
    let mut dbclient = Command::new("dbclient");
    dbclient.args(["-y", "-y", "-N", "-T", "-p", &relay.port.to_string(), "-i"]).arg(&converted);
    dbclient.args(["-R", &format!("4022:127.0.0.1:{}", echo()), TARGET]);
    let output = run(dbclient.env("HOME", dir.path()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let seen = relay.end();
    assert!(seen.contains(&Seen::Echoed) && seen.contains(&Seen::Alive), "{seen:?} {stderr}");
}

#[test]
fn openssh_learns_all_host_keys() {
    if !has("ssh") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (key, known) = (dir.path().join("key"), dir.path().join("known"));
    let blob = keygen(&key, "ed25519", "");
    // It asks where it knew the host before. A session that waits gives it the time to.
    for command in ["why", "wait"] {
        let relay = Relay::start(Config::new(host_keys()), vec![blob.clone()]);
        let mut ssh = ssh(relay.port, &key, &known);
        ssh.args(["-o", "UpdateHostKeys=yes", "-o", "HostKeyAlias=relay", TARGET, command]);
        let output = run(&mut ssh);
        let (seen, stderr) = (relay.end(), String::from_utf8_lossy(&output.stderr).into_owned());
        let proved = seen.iter().any(|it| matches!(it, Seen::Proved(_)));
        assert_eq!(proved, command == "wait", "{seen:?} {stderr}");
    }
    let known = fs::read_to_string(known).unwrap();
    assert!(known.contains("ssh-ed25519") && known.contains("ecdsa-sha2-nistp256"), "{known}");
}

#[test]
fn putty_runs_a_command() {
    if !has("plink") || !has("puttygen") || !has("ssh-keygen") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (key, ppk) = (dir.path().join("key"), dir.path().join("key.ppk"));
    let blob = keygen(&key, "ed25519", "");
    let mut convert = Command::new("puttygen");
    convert.arg(&key).args(["-O", "private", "-o"]).arg(&ppk);
    assert!(run(&mut convert).status.success());
    let mut config = Config::new(host_keys());
    config.host_keys.truncate(1);
    let host_key = ssh_key::PublicKey::from_bytes(config.host_keys[0].blob()).unwrap();
    let fingerprint = host_key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
    let relay = Relay::start(config, vec![blob]);
    let mut plink = Command::new("plink");
    plink.args(["-batch", "-ssh", "-P", &relay.port.to_string(), "-hostkey", &fingerprint, "-i"]);
    plink.arg(&ppk).args([TARGET, "why", "kiosk-17"]);
    let output = run(plink.env("HOME", dir.path()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("why kiosk-17 pty=false"));
    relay.end();
}
