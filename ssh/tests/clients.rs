//! The transport against the clients that people have: OpenSSH, dropbear and PuTTY, each with each
//! method, host key and cipher that it shares with us, and with key exchanges from both sides.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic, and reads the clock as it likes"
)]

#[allow(dead_code, reason = "the whole core's tests use the rest of it")]
mod common;
mod transport;

use std::process::{Command, Output, Stdio};

use common::{has, host_keys};
use tidegate_ssh::{Cipher, Config, HostKeyAlgorithm, Kex};
use transport::{FAREWELL, ROUNDS, Served, serve};

fn run(command: &mut Command) -> (Output, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

fn only(kex: Kex, host_key: HostKeyAlgorithm, cipher: Cipher) -> Config {
    let mut config = Config::new(host_keys());
    config.host_keys.retain(|key| key.algorithm() == host_key);
    config.kex = vec![kex];
    config.ciphers = vec![cipher];
    config
}

fn check(served: &Served, text: &str, kex: Kex, cipher: Cipher) {
    let negotiated = served.negotiated.as_ref().unwrap_or_else(|| panic!("{served:?}\n{text}"));
    assert_eq!((negotiated.kex, negotiated.cipher_in), (kex, cipher));
    assert_eq!(served.lives, ROUNDS, "{served:?}\n{text}");
    assert!(served.keys > ROUNDS / 2 - 1, "{served:?}\n{text}");
}

const HOST_KEYS: [HostKeyAlgorithm; 2] = [HostKeyAlgorithm::Ed25519, HostKeyAlgorithm::EcdsaP256];

fn openssh(port: u16) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-vvv", "-N", "-F", "/dev/null", "-p", &port.to_string()]);
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "IdentityFile=/dev/null",
        "IdentityAgent=none",
        // The server sends more than that each time.
        "RekeyLimit=5K",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.arg("someone@127.0.0.1");
    ssh
}

#[test]
fn openssh_with_each_method_host_key_and_cipher() {
    if !has("ssh") {
        return;
    }
    let known = Command::new("ssh").args(["-Q", "kex"]).output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    for kex in Kex::ALL {
        if !known.lines().any(|line| line == kex.name()) {
            eprintln!("SKIPPED: this ssh has no {}", kex.name());
            continue;
        }
        for host_key in HOST_KEYS {
            for cipher in Cipher::ALL {
                let (port, server) = serve(only(kex, host_key, cipher));
                let (output, text) = run(&mut openssh(port));
                let served = server.join().unwrap();
                check(&served, &text, kex, cipher);
                assert_eq!(output.status.code(), Some(255));
                for part in [
                    format!("kex: algorithm: {}", kex.name()),
                    format!("kex: host key algorithm: {}", host_key.name()),
                    format!("client->server cipher: {} MAC: <implicit>", cipher.name()),
                    format!("server->client cipher: {} MAC: <implicit>", cipher.name()),
                    "SSH2_MSG_EXT_INFO received".into(),
                    "server-sig-algs=<ssh-ed25519,".into(),
                    "remote software version Tidegate".into(),
                    format!(":11: {FAREWELL}"),
                ] {
                    assert!(text.contains(&part), "no '{part}' in:\n{text}");
                }
                let strict = served.negotiated.unwrap().strict;
                assert_eq!(strict, text.contains("will use strict KEX ordering"));
                // Ours are every second round, the client's limit is passed in each.
                assert!(text.matches("enqueue").count() + served.keys > ROUNDS, "{text}");
            }
        }
    }
}

#[test]
fn openssh_reads_why_nothing_is_common() {
    if !has("ssh") {
        return;
    }
    let (port, server) = serve(Config::new(host_keys()));
    let (_, text) = run(openssh(port).args(["-o", "Ciphers=aes128-ctr"]));
    let wanted = "no common cipher: the client offers aes128-ctr; the relay has \
                  aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com; \
                  update the client";
    assert_eq!(server.join().unwrap().fatal.unwrap().text, wanted);
    // OpenSSH finds out by itself at the same time, and says so, or shows what we say.
    assert!(text.contains("no matching cipher found") || text.contains(wanted), "{text}");
}

/// Everything offered, as a relay does. dropbear guesses: its share follows its KEXINIT at once.
#[test]
fn each_client_with_its_own_choice() {
    for program in ["ssh", "dbclient"] {
        if !has(program) {
            continue;
        }
        let (port, server) = serve(Config::new(host_keys()));
        let (_, text) = match program {
            "ssh" => run(&mut openssh(port)),
            _ => run(&mut dropbear(port)),
        };
        let served = server.join().unwrap();
        let negotiated = served.negotiated.clone().unwrap();
        check(&served, &text, negotiated.kex, negotiated.cipher_in);
        assert_eq!(negotiated.host_key, HostKeyAlgorithm::Ed25519);
    }
}

fn dropbear(port: u16) -> Command {
    let mut client = Command::new("dbclient");
    client.args(["-N", "-y", "-y", "-p", &port.to_string(), "someone@127.0.0.1"]);
    client
}

#[test]
fn dropbear_with_what_it_has() {
    if !has("dbclient") {
        return;
    }
    let cipher = Cipher::ChaCha20Poly1305;
    for kex in [Kex::Curve25519, Kex::Curve25519Libssh, Kex::NistP256] {
        for host_key in HOST_KEYS {
            let (port, server) = serve(only(kex, host_key, cipher));
            let (_, text) = run(&mut dropbear(port));
            check(&server.join().unwrap(), &text, kex, cipher);
            assert!(text.contains(FAREWELL) || text.contains("Disconnect"), "{text}");
        }
    }
}

#[test]
fn putty_with_what_it_has() {
    if !has("plink") {
        return;
    }
    for kex in [Kex::Curve25519, Kex::Curve25519Libssh, Kex::NistP256] {
        for host_key in HOST_KEYS {
            for cipher in Cipher::ALL {
                let config = only(kex, host_key, cipher);
                let blob = config.host_keys[0].blob();
                let fingerprint = ssh_key::PublicKey::from_bytes(blob)
                    .unwrap()
                    .fingerprint(ssh_key::HashAlg::Sha256)
                    .to_string();
                let (port, server) = serve(config);
                let mut client = Command::new("plink");
                client.args(["-batch", "-v", "-N", "-ssh", "-P", &port.to_string()]);
                client.args(["-hostkey", &fingerprint, "someone@127.0.0.1"]);
                let (_, text) = run(&mut client);
                check(&server.join().unwrap(), &text, kex, cipher);
                assert!(text.contains(FAREWELL), "{text}");
            }
        }
    }
}
