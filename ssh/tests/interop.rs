//! The core against the clients that people have, each with each key exchange method, cipher, host key
//! and user key that both have, with keys that change in mid-transfer. INTEROP.md holds the result; its
//! lines are compared with what is seen here.
//!
//! TIDEGATE_LONG=1: every combination of method, cipher and host key, and 1 GiB each way.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic, and reads the clock as it likes"
)]

mod common;
mod programs;
#[allow(dead_code, reason = "the protocol's tests use the rest of it")]
mod relay;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{has, host_keys};
use programs::command::{Dropbear, OpenSsh, Putty};
use programs::library::Library;
use programs::russh::Russh;
use programs::{Client, Job, USER_KEYS, UserKey, libraries, table};
use relay::{Relay, Script, Seen};
use tidegate_ssh::{Cipher, Config, HostKeyAlgorithm, Kex, Negotiated};

const HOST_KEYS: [HostKeyAlgorithm; 2] = [HostKeyAlgorithm::Ed25519, HostKeyAlgorithm::EcdsaP256];

const MEBIBYTE: u64 = 1 << 20;

fn long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

fn script(patience: Duration) -> Script {
    Script { patience, question: 150_000, everything: true }
}

/// What a connection came to.
struct Outcome {
    told: Result<(), String>,
    seen: Vec<Seen>,
    agreed: Option<(String, Negotiated)>,
    exchanges: usize,
}

impl Outcome {
    fn is_login(&self) -> bool {
        self.seen.iter().any(|it| matches!(it, Seen::Login(..)))
    }

    /// Why the relay ended the connection, if it did.
    fn end(&self) -> &str {
        let end = self.seen.iter().find_map(|it| match it {
            Seen::Ended(text) => Some(text.as_str()),
            _ => None,
        });
        end.unwrap_or_default()
    }
}

/// What differs between the connections of one client.
struct Try<'a> {
    config: Config,
    key: &'a UserKey,
    size: u64,
    /// The client changes keys after so many bytes; 0: the relay does, as it is configured.
    rekey: u64,
    ciphers: Option<&'a str>,
    options: &'a [&'a str],
    patience: Duration,
}

impl<'a> Try<'a> {
    fn new(config: Config, key: &'a UserKey) -> Self {
        let patience = Duration::from_secs(20);
        Self { config, key, size: MEBIBYTE, rekey: 0, ciphers: None, options: &[], patience }
    }

    fn run(self, client: &mut dyn Client) -> Outcome {
        let blob = self.config.host_keys[0].blob();
        let host_key = ssh_key::PublicKey::from_bytes(blob).unwrap();
        let host_key = host_key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
        let relay = Relay::play(script(self.patience), self.config, vec![self.key.blob.clone()]);
        let told = client.run(&Job {
            relay: &relay,
            host_key: &host_key,
            key: self.key,
            size: self.size,
            rekey: self.rekey,
            ciphers: self.ciphers,
            options: self.options,
        });
        let seen = relay.end();
        let agreed = seen.iter().find_map(|it| match it {
            Seen::Agreed(peer, negotiated) => Some((peer.clone(), negotiated.clone())),
            _ => None,
        });
        let exchanges = seen.iter().filter(|it| **it == Seen::Keys).count();
        Outcome { told, seen, agreed, exchanges }
    }
}

fn only(kex: Kex, cipher: Cipher, host_key: HostKeyAlgorithm) -> Config {
    let mut config = Config::new(host_keys());
    config.host_keys.retain(|key| key.algorithm() == host_key);
    config.kex = vec![kex];
    config.ciphers = vec![cipher];
    config
}

/// What was seen of one client.
#[derive(Default)]
struct Matrix {
    kex: [bool; 4],
    ciphers: [bool; 3],
    host_keys: [bool; 2],
    user_keys: [bool; 5],
    strict: Option<bool>,
    pairs: Vec<(usize, usize, bool)>,
    connections: usize,
}

impl Matrix {
    fn of(client: &mut dyn Client, keys: &[UserKey]) -> Self {
        let mut matrix = Self::default();
        for kex in 0..Kex::ALL.len() {
            for cipher in 0..Cipher::ALL.len() {
                for host_key in 0..HOST_KEYS.len() {
                    if long() || host_key == (kex + cipher) % HOST_KEYS.len() {
                        let key = matrix.connections % keys.len();
                        let works = matrix.connect(client, (kex, cipher, host_key), keys, key);
                        matrix.pairs.push((kex, cipher, works));
                    }
                }
            }
        }
        // What none of those that worked had.
        let (kex, cipher) = matrix.working();
        for host_key in 0..HOST_KEYS.len() {
            if !matrix.host_keys[host_key] {
                matrix.connect(client, (kex, cipher, host_key), keys, 0);
            }
        }
        let host_key = matrix.host_keys.iter().position(|works| *works).unwrap();
        for key in 0..keys.len() {
            if !matrix.user_keys[key] {
                matrix.connect(client, (kex, cipher, host_key), keys, key);
            }
        }
        for (kex, cipher, works) in &matrix.pairs {
            assert_eq!(
                *works,
                matrix.kex[*kex] && matrix.ciphers[*cipher],
                "{}: each works, but not together: {:?} {:?}",
                client.name(),
                Kex::ALL[*kex],
                Cipher::ALL[*cipher]
            );
        }
        matrix
    }

    fn working(&self) -> (usize, usize) {
        let (kex, cipher, _) = self.pairs.iter().find(|(_, _, works)| *works).unwrap();
        (*kex, *cipher)
    }

    /// One connection with these alone, and whether it works. What does not is refused in the first key
    /// exchange or at the login; all else fails the test.
    fn connect(
        &mut self,
        client: &mut dyn Client,
        (kex, cipher, host_key): (usize, usize, usize),
        keys: &[UserKey],
        key: usize,
    ) -> bool {
        let (method, encryption, signature) =
            (Kex::ALL[kex], Cipher::ALL[cipher], HOST_KEYS[host_key]);
        let mut one = Try::new(only(method, encryption, signature), &keys[key]);
        if client.rekeys() && self.connections.is_multiple_of(2) {
            one.rekey = 200_000;
        } else {
            one.config.rekey.bytes = 200_000;
        }
        let rekeyed_by = if one.rekey > 0 { "the client" } else { "the relay" };
        self.connections += 1;
        let outcome = one.run(client);
        let what = format!(
            "{} with {} {} {} {}, keys changed by {rekeyed_by}: {:?} {:?}",
            client.name(),
            method.name(),
            encryption.name(),
            signature.name(),
            keys[key].name,
            outcome.told,
            outcome.seen
        );
        let Some((_, negotiated)) = &outcome.agreed else {
            assert!(outcome.told.is_err(), "{what}");
            return false;
        };
        assert_eq!((negotiated.kex, negotiated.host_key), (method, signature), "{what}");
        assert_eq!(
            (negotiated.cipher_in, negotiated.cipher_out),
            (encryption, encryption),
            "{what}"
        );
        assert_eq!(*self.strict.get_or_insert(negotiated.strict), negotiated.strict, "{what}");
        if !outcome.is_login() {
            assert!(outcome.told.is_err(), "{what}");
            return true;
        }
        assert!(outcome.told.is_ok(), "{what}");
        assert!(outcome.seen.contains(&Seen::Open("kiosk-17".into(), 22)), "{what}");
        assert!(outcome.seen.contains(&Seen::Echoed), "{what}");
        // Much may be under way before the client gets to it.
        let least = if rekeyed_by == "the relay" { 4 } else { 2 };
        assert!(outcome.exchanges >= least, "{} exchanges: {what}", outcome.exchanges);
        self.kex[kex] = true;
        self.ciphers[cipher] = true;
        self.host_keys[host_key] = true;
        self.user_keys[key] = true;
        true
    }

    fn cells(&self, client: &dyn Client) -> Vec<String> {
        let yes = |it: &bool| if *it { "yes".to_owned() } else { "no".to_owned() };
        let all = [&self.kex[..], &self.ciphers, &self.host_keys, &self.user_keys];
        let mut cells = vec![client.version()];
        cells.extend(all.into_iter().flatten().map(yes));
        cells.push(yes(&self.strict.unwrap()));
        cells.push(yes(&client.rekeys()));
        cells
    }
}

/// All of a client: the matrix, and what it says where nothing is common.
fn check(client: &mut dyn Client, shows: &str) {
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let keys = UserKey::all(folder.path());
    assert_eq!(keys.len(), USER_KEYS.len());
    let matrix = Matrix::of(client, &keys);
    eprintln!("{}: {} connections, {:?}", client.name(), matrix.connections, begun.elapsed());
    says_why_nothing_is_common(client, &keys[0], shows);
    table::compare(client.name(), &matrix.cells(client));
}

fn says_why_nothing_is_common(client: &mut dyn Client, key: &UserKey, shows: &str) {
    let mut config = Config::new(host_keys());
    config.host_keys.truncate(1);
    let mut one = Try::new(config, key);
    // PuTTY can only be told by kinds of cipher; it has no ML-KEM.
    if client.name() == "PuTTY" {
        one.config.kex = vec![Kex::MlKem768X25519];
    } else {
        one.ciphers = Some("aes128-ctr");
    }
    let outcome = one.run(client);
    let text = outcome.told.clone().unwrap_err();
    eprintln!("{} says: {text}; the relay: {}", client.name(), outcome.end());
    assert!(text.contains(shows), "{}: no '{shows}' in: {text}", client.name());
    let names_both = outcome.end().starts_with("no common ")
        && outcome.end().contains(": the client offers ")
        && outcome.end().contains("; the relay has ");
    // Some notice by themselves, and close before the relay has read their offer.
    assert!(names_both || outcome.agreed.is_none(), "{:?}", outcome.seen);
}

#[test]
fn openssh() {
    if has("ssh") {
        check(&mut OpenSsh, "no matching cipher found");
    }
}

#[test]
fn dropbear() {
    if has("dbclient") && has("dropbearconvert") {
        let home = tempfile::tempdir().unwrap();
        check(&mut Dropbear { home: home.path().into() }, "No matching algo enc c->s");
    }
}

#[test]
fn putty() {
    if has("plink") && has("puttygen") {
        let home = tempfile::tempdir().unwrap();
        let shows = "does not correspond to any supported algorithm";
        check(&mut Putty { home: home.path().into() }, shows);
    }
}

fn python(folder: &Path, library: &str) -> Command {
    let mut python = Command::new(folder.join("venv/bin/python"));
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python.py"));
    python.arg(library);
    python
}

#[test]
fn paramiko() {
    if let Some(folder) = libraries() {
        let shows = "no acceptable ciphers";
        check(&mut Library::start("paramiko", &mut python(&folder, "paramiko")), shows);
        let mut old = python(&folder, "paramiko");
        old.env("PYTHONPATH", folder.join("old-paramiko"));
        check(&mut Library::start("paramiko, old", &mut old), shows);
    }
}

#[test]
fn asyncssh() {
    if let Some(folder) = libraries() {
        let shows = "No matching encryption algorithm found";
        check(&mut Library::start("asyncssh", &mut python(&folder, "asyncssh")), shows);
        let mut old = python(&folder, "asyncssh");
        old.env("PYTHONPATH", folder.join("old-asyncssh"));
        check(&mut Library::start("asyncssh, old", &mut old), shows);
    }
}

#[test]
fn libssh() {
    if let Some(folder) = libraries() {
        // Of a socket error, where the relay's end is quicker.
        check(
            &mut Library::start("libssh", &mut python(&folder, "libssh")),
            "error ValueError connect:",
        );
    }
}

#[test]
fn go() {
    if let Some(folder) = libraries() {
        let mut new = Command::new(folder.join("go-client"));
        let shows = "no common algorithm for client to server cipher";
        check(&mut Library::start("Go x/crypto/ssh", &mut new), shows);
        let mut old = Command::new(folder.join("go-client-old"));
        check(&mut Library::start("Go x/crypto/ssh, old", &mut old), shows);
    }
}

#[test]
fn russh() {
    check(&mut Russh::new(), "No common Cipher algorithm");
}

/// What a client in FIPS mode has left.
#[test]
fn fips_mode() {
    if !has("ssh") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for key in UserKey::all(folder.path()).iter().filter(|key| key.name != "ed25519") {
        let mut one = Try::new(Config::new(host_keys()), key);
        one.options = &[
            "KexAlgorithms=ecdh-sha2-nistp256,ecdh-sha2-nistp384,diffie-hellman-group14-sha256",
            "HostKeyAlgorithms=ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,rsa-sha2-256",
            "PubkeyAcceptedAlgorithms=ecdsa-sha2-nistp*,rsa-sha2-*",
            "Ciphers=aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr",
        ];
        let outcome = one.run(&mut OpenSsh);
        assert!(outcome.told.is_ok(), "{:?} {:?}", outcome.told, outcome.seen);
        let (_, negotiated) = outcome.agreed.unwrap();
        assert_eq!(negotiated.kex, Kex::NistP256);
        assert_eq!(negotiated.host_key, HostKeyAlgorithm::EcdsaP256);
        assert_eq!(negotiated.cipher_in, Cipher::Aes256Gcm);
    }
}

/// More than a window each way, across ten key exchanges and more: 24 MiB, or 1 GiB.
#[test]
fn putty_and_dropbear_move_much() {
    let (size, rekey) = if long() { (1 << 30, 90 << 20) } else { (24 << 20, 2 << 20) };
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = UserKey::all(folder.path());
    let mut clients: Vec<Box<dyn Client>> = Vec::new();
    if has("plink") && has("puttygen") {
        clients.push(Box::new(Putty { home: home.path().into() }));
    }
    if has("dbclient") && has("dropbearconvert") {
        clients.push(Box::new(Dropbear { home: home.path().into() }));
    }
    for client in &mut clients {
        let mut config = Config::new(host_keys());
        config.host_keys.truncate(1);
        config.rekey.bytes = rekey;
        let mut one = Try::new(config, &keys[0]);
        one.size = size;
        one.patience = Duration::from_secs(if long() { 900 } else { 60 });
        let begun = Instant::now();
        let outcome = one.run(client.as_mut());
        assert!(outcome.told.is_ok(), "{}: {:?} {:?}", client.name(), outcome.told, outcome.seen);
        assert!(outcome.exchanges > 10, "{} exchanges", outcome.exchanges);
        let (name, exchanges, time) = (client.name(), outcome.exchanges, begun.elapsed());
        eprintln!("{name}: {size} bytes each way, {exchanges} key exchanges, {time:?}");
    }
}
