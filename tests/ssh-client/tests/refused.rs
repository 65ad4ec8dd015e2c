//! What no peer may do, end to end: a client of our own against the core. What the core's own tests
//! have (ssh/src/tests/hostile.rs, ssh/src/plain/login.rs) is not repeated here.

use tidegate_ssh::message::number;
use tidegate_ssh::{DisconnectCode, Door, Fatal};
use tidegate_ssh_client::fuzz::Server;
use tidegate_ssh_client::{Client, Key, Offer};

/// What OpenSSH, PuTTY, dropbear, libssh and others have besides.
const KEX: &[&str] = &[
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "mlkem768nistp256-sha256",
    "mlkem1024nistp384-sha384",
    "curve448-sha512",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group1-sha1",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group-exchange-sha1",
    "diffie-hellman-group-exchange-sha256",
    "rsa1024-sha1",
    "rsa2048-sha256",
    "gss-group14-sha256-toWM5Slw5Ew8Mqkay+al2g==",
    "kexguess2@matt.ucc.asn.au",
    "ext-info-c",
    "kex-strict-c-v00@openssh.com",
];
const HOST_KEYS: &[&str] = &[
    "ssh-rsa",
    "rsa-sha2-256",
    "rsa-sha2-512",
    "ssh-dss",
    "ssh-ed448",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ssh-rsa-cert-v01@openssh.com",
    "x509v3-ssh-rsa",
    "null",
];
const CIPHERS: &[&str] = &[
    "none",
    "3des-cbc",
    "3des-ctr",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "rijndael-cbc@lysator.liu.se",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "AEAD_AES_128_GCM",
    "AEAD_AES_256_GCM",
    "aes128-gcm",
    "chacha20-poly1305",
    "blowfish-cbc",
    "cast128-cbc",
    "arcfour",
    "arcfour128",
    "arcfour256",
];

fn refused(offer: Offer) -> Fatal {
    let mut server = Server::new();
    server.receive(&Client::new(offer).take());
    server.dead.expect("this leads to no keys")
}

#[test]
fn each_algorithm_that_is_not_listed_is_refused_by_name() {
    let check = |name: &str, what: &str, offer: Offer| {
        let fatal = refused(offer);
        assert_eq!(fatal.code, DisconnectCode::KeyExchange, "{name}");
        let start = format!("no common {what}: the client offers {name}");
        assert!(fatal.text.starts_with(&start), "{name}: {fatal}");
    };
    for name in KEX {
        let offer = Offer { kex: vec![name], ..Offer::default() };
        check(name, "key exchange method", offer);
    }
    for name in HOST_KEYS {
        let offer = Offer { host_keys: vec![name], ..Offer::default() };
        check(name, "host key type", offer);
    }
    for name in CIPHERS {
        for way in 0..2 {
            let mut offer = Offer::default();
            offer.ciphers[way] = vec![name];
            check(name, "cipher", offer);
        }
    }
    for name in ["zlib", "zlib@openssh.com"] {
        check(name, "compression method", Offer { compression: vec![name], ..Offer::default() });
    }
}

/// A client and a server after their key exchange.
fn connected(offer: Offer, door: Box<dyn Door>) -> (Client, Server) {
    let (mut client, mut server) = (Client::new(offer), Server::with(door));
    settle(&mut client, &mut server);
    assert!(client.is_open() && server.dead.is_none());
    client.got.clear();
    (client, server)
}

fn settle(client: &mut Client, server: &mut Server) {
    loop {
        let (up, down) = (client.take(), server.take());
        if up.is_empty() && down.is_empty() {
            return;
        }
        server.receive(&up);
        client.receive(&down);
    }
}

/// Lets everybody in who signs.
struct Ajar;

impl Door for Ajar {
    fn offered(&mut self, _: &str, _: &[u8]) -> bool {
        true
    }

    fn proven(&mut self, _: &str, _: &[u8]) -> bool {
        true
    }
}

const CIPHER_NAMES: [&str; 3] =
    ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];

fn with_cipher(cipher: &'static str) -> Offer {
    Offer {
        kex: vec!["curve25519-sha256"],
        ciphers: [vec![cipher], vec![cipher]],
        ..Offer::default()
    }
}

#[test]
fn lengths_and_paddings_that_no_packet_has_are_refused_though_they_are_sealed() {
    for cipher in CIPHER_NAMES {
        for length in [0, 1, 7, 9, 15, 17, 35_008, 0x7fff_ffff, 0xffff_ffff] {
            let (mut client, mut server) = connected(with_cipher(cipher), Box::new(Ajar));
            let mut frame = u32::to_be_bytes(length).to_vec();
            frame.resize(4 + 16 + 16, 4);
            assert!(client.outbound.seal_anything(&mut frame));
            server.receive(&frame);
            let fatal = server.dead.expect("no packet has such a length");
            assert_eq!(fatal.code, DisconnectCode::Protocol, "{cipher} {length}");
            assert!(fatal.text.contains(&format!("cannot have {length} bytes")), "{fatal}");
        }
        for padding in [0, 3, 15, 16, 255] {
            let (mut client, mut server) = connected(with_cipher(cipher), Box::new(Ajar));
            let mut frame = u32::to_be_bytes(16).to_vec();
            frame.push(padding);
            frame.resize(4 + 16 + 16, number::IGNORE);
            assert!(client.outbound.seal_anything(&mut frame));
            server.receive(&frame);
            let fatal = server.dead.expect("no packet has such a padding");
            assert_eq!(fatal.code, DisconnectCode::Protocol, "{cipher} {padding}");
        }
    }
}

fn logs_in(client: &mut Client, server: &mut Server, login: &[u8]) -> Vec<u8> {
    let mut service = vec![number::SERVICE_REQUEST];
    tidegate_ssh::wire::Writer::new(&mut service).string("ssh-userauth");
    client.say(&service);
    client.say(login);
    settle(client, server);
    client.got.iter().map(|message| message[0]).collect()
}

#[test]
fn a_login_of_one_connection_is_worth_nothing_in_another() {
    let key = Key::numbered(1);
    for bound in [false, true] {
        let (mut first, mut server) = connected(Offer::default(), Box::new(Ajar));
        let blob = first.host_key.clone();
        let bound = bound.then_some(blob.as_slice());
        let login = key.request("alice", Some(&first.session.expect("an id")), bound);
        assert_eq!(logs_in(&mut first, &mut server, &login), [6, 52, 80]);
        assert_eq!(server.logins, 1);
        // Word by word the same, elsewhere.
        let offer = Offer { line: "SSH-2.0-Another", ..Offer::default() };
        let (mut second, mut server) = connected(offer, Box::new(Ajar));
        assert_eq!(logs_in(&mut second, &mut server, &login), [6, 51]);
        assert_eq!(server.logins, 0);
    }
}

/// The attack of Terrapin (CVE-2023-48795) begins with either: both sides would go on without strict
/// key exchange. The exchange hash covers both KEXINITs, so that neither is possible unnoticed.
#[test]
fn either_marker_stripped_on_the_way_is_noticed() {
    for marker in ["kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"] {
        let (mut client, mut server) = (Client::new(Offer::default()), Server::new());
        let mut noticed = false;
        for _ in 0..3 {
            let strip = |mut bytes: Vec<u8>| {
                let at = bytes.windows(marker.len()).position(|window| window == marker.as_bytes());
                if let Some(at) = at {
                    bytes[at] = b'x';
                }
                bytes
            };
            server.receive(&strip(client.take()));
            noticed |= client.try_receive(&strip(server.take())).is_err();
        }
        assert!(noticed, "{marker}");
        assert_eq!(server.keys, 0);
    }
}

/// The attack itself: a packet is put in before NEWKEYS, and the first one after it taken out, so that
/// the numbers are the same again.
#[test]
fn a_packet_put_in_and_another_taken_out_is_noticed_in_either_direction() {
    let ignore = [0, 0, 0, 12, 6, number::IGNORE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for cipher in CIPHER_NAMES {
        let (mut client, mut server) = (Client::new(with_cipher(cipher)), Server::new());
        server.receive(&client.take());
        client.receive(&server.take());
        server.receive(&ignore);
        assert!(server.dead.is_some_and(|fatal| fatal.text.contains("strict")), "{cipher}");

        // To the client, whose EXT_INFO it takes away.
        let (mut client, mut server) = (Client::new(with_cipher(cipher)), Server::new());
        server.receive(&client.take());
        client.receive(&server.take());
        let share = client.take();
        client.receive(&ignore);
        server.receive(&share);
        let down = server.take();
        // The reply and NEWKEYS are in clear; what follows is EXT_INFO.
        let mut at = 0;
        for _ in 0..2 {
            let length = u32::from_be_bytes(down[at..at + 4].try_into().expect("four bytes"));
            at += 4 + usize::try_from(length).expect("a packet");
        }
        client.receive(&down[..at]);
        server.receive(&client.take());
        assert!(at < down.len() && server.keys == 1);
        // A PONG is the first that reaches the client.
        client.send(&[number::PING, 0, 0, 0, 0]);
        server.receive(&client.take());
        assert!(client.try_receive(&server.take()).is_err(), "{cipher}");
    }
}
