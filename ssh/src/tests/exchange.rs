//! Key exchanges that work, and what surrounds them.

use std::time::Duration;

use tidegate_ssh_client::{Client, Offer};

use super::{Server, config, connected, ed25519, settle};
use crate::algorithm::{Cipher, HostKeyAlgorithm, Kex};
use crate::message::number;
use crate::wire::Reader;
use crate::{Config, DisconnectCode, Handled, Next, RekeyLimits};

/// A message of the connection protocol that nobody here understands.
fn data(content: u8, bytes: usize) -> Vec<u8> {
    let mut message = vec![number::CHANNEL_DATA];
    message.resize(bytes, content);
    message
}

/// Both sides send, both sides receive the same.
fn talk(server: &mut Server, client: &mut Client, content: u8) {
    for bytes in [1, 2, 9, 100, 32 * 1024 + 9] {
        server.send(&data(content, bytes));
        client.say(&data(content, bytes));
    }
    settle(server, client).unwrap();
    let sent: Vec<_> = [1, 2, 9, 100, 32 * 1024 + 9].map(|n| data(content, n)).into();
    assert_eq!(std::mem::take(&mut server.got), sent);
    assert_eq!(std::mem::take(&mut client.got), sent);
}

#[test]
fn every_combination_shakes_hands_and_rekeys() {
    for kex in Kex::ALL {
        for host_key in [HostKeyAlgorithm::Ed25519, HostKeyAlgorithm::EcdsaP256] {
            for cipher_in in Cipher::ALL {
                for cipher_out in Cipher::ALL {
                    for strict in [true, false] {
                        let client = Client::new(Offer {
                            kex: vec!["sntrup761x25519-sha512", kex.name()],
                            host_keys: vec!["rsa-sha2-512", host_key.name()],
                            ciphers: [
                                vec!["aes128-ctr", cipher_in.name()],
                                vec!["aes128-ctr", cipher_out.name()],
                            ],
                            strict,
                            ext_info: false,
                            ..Offer::default()
                        });
                        let (mut server, mut client) = connected(config(), client);
                        let negotiated = server.transport.negotiated().unwrap().clone();
                        assert_eq!(negotiated.kex, kex);
                        assert_eq!(negotiated.host_key, host_key);
                        assert_eq!(negotiated.cipher_in, cipher_in);
                        assert_eq!(negotiated.cipher_out, cipher_out);
                        assert_eq!(negotiated.strict, strict);
                        let session = server.transport.session_id().to_vec();
                        assert_eq!(client.session.unwrap().as_slice(), session);
                        talk(&mut server, &mut client, 1);

                        client.begin();
                        talk(&mut server, &mut client, 2);
                        server.transport.rekey(Duration::ZERO);
                        talk(&mut server, &mut client, 3);
                        // Both at once: neither has seen the other's KEXINIT.
                        client.begin();
                        server.transport.rekey(Duration::ZERO);
                        talk(&mut server, &mut client, 4);

                        assert_eq!((server.keys, client.exchanges), (4, 4));
                        assert_eq!(server.transport.session_id(), session);
                    }
                }
            }
        }
    }
}

#[test]
fn our_first_packets_are_as_the_rfc_has_them() {
    let mut server = Server::new(config());
    let bytes = server.take();
    let rest = bytes.strip_prefix(b"SSH-2.0-Tidegate\r\n").unwrap();
    let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
    assert_eq!(rest.len(), 4 + length);
    assert_eq!(rest.len() % 8, 0);
    let padding = usize::from(rest[4]);
    assert!(padding >= 4);
    assert!(rest[rest.len() - padding..].iter().any(|byte| *byte != 0), "padding is random");
    let mut r = Reader::new(&rest[5..rest.len() - padding]);
    assert_eq!(r.u8().unwrap(), 20);
    r.bytes(16).unwrap();
    let ciphers = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com";
    for list in [
        "mlkem768x25519-sha256,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,\
         kexguess2@matt.ucc.asn.au,ext-info-s,kex-strict-s-v00@openssh.com",
        "ssh-ed25519,ecdsa-sha2-nistp256",
        ciphers,
        ciphers,
        "hmac-sha2-256,hmac-sha2-512",
        "hmac-sha2-256,hmac-sha2-512",
        "none",
        "none",
        "",
        "",
    ] {
        assert_eq!(r.name_list().unwrap(), list);
    }
    assert!(!r.bool().unwrap());
    assert_eq!(r.u32().unwrap(), 0);
    r.end().unwrap();
}

#[test]
fn markers_of_the_first_exchange_are_in_no_other() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    let mut random = super::Seeded(7);
    let first = crate::kexinit::build(&config(), true, &mut random).unwrap();
    let later = crate::kexinit::build(&config(), false, &mut random).unwrap();
    for marker in ["ext-info-s", "kex-strict-s-v00@openssh.com"] {
        assert!(String::from_utf8_lossy(&first).contains(marker));
        assert!(!String::from_utf8_lossy(&later).contains(marker));
    }
    assert!(String::from_utf8_lossy(&later).contains("kexguess2@matt.ucc.asn.au"));
    // The markers of the first exchange hold for the later ones, where the client leaves them out.
    client.begin();
    settle(&mut server, &mut client).unwrap();
    assert!(server.transport.negotiated().unwrap().strict);
}

#[test]
fn ext_info_is_the_first_packet_and_only_for_those_who_ask() {
    for strict in [true, false] {
        let offer = Offer { strict, ..Offer::default() };
        let mut server = Server::new(config());
        let mut client = Client::new(offer);
        // Held from before the keys: must not come in front of EXT_INFO.
        server.send(&data(1, 10));
        settle(&mut server, &mut client).unwrap();
        assert_eq!(client.seen, [20, 31, 21, 7, 94]);
        let info = client.got[0].clone();
        let mut r = Reader::new(&info);
        assert_eq!((r.u8().unwrap(), r.u32().unwrap()), (7, 3));
        assert_eq!(r.text().unwrap(), "server-sig-algs");
        assert!(r.text().unwrap().split(',').all(|name| name != "ssh-rsa"));
        assert_eq!(r.text().unwrap(), "publickey-hostbound@openssh.com");
        assert_eq!(r.text().unwrap(), "0");
        assert_eq!(r.text().unwrap(), "ping@openssh.com");
        assert_eq!(r.text().unwrap(), "0");
        r.end().unwrap();
        // Not after later NEWKEYS.
        client.begin();
        settle(&mut server, &mut client).unwrap();
        assert_eq!(client.seen, [20, 31, 21, 7, 94, 20, 31, 21]);
    }
    let offer = Offer { ext_info: false, ..Offer::default() };
    let (_, client) = connected(config(), Client::new(offer));
    assert_eq!(client.seen, [20, 31, 21]);
}

#[test]
fn guesses_are_taken_or_discarded_and_counted() {
    let ours = "mlkem768x25519-sha256";
    let cases: [(Vec<&str>, Vec<&str>, bool); 6] = [
        // Right by either rule.
        (vec![ours, "curve25519-sha256"], vec!["ssh-ed25519"], false),
        (vec![ours], vec!["ssh-ed25519"], true),
        // Right by kexguess2 alone: not what we like best.
        (vec!["curve25519-sha256", ours], vec!["ssh-ed25519"], true),
        (vec!["curve25519-sha256", ours], vec!["ssh-ed25519"], false),
        // The method is right, the host key is not.
        (vec![ours], vec!["rsa-sha2-512", "ssh-ed25519"], true),
        // A method that we don't have.
        (vec!["sntrup761x25519-sha512", "curve25519-sha256"], vec!["ssh-ed25519"], true),
    ];
    for (kex, host_keys, kexguess2) in cases {
        for strict in [true, false] {
            for cipher in Cipher::ALL {
                let offer = Offer {
                    kex: kex.clone(),
                    host_keys: host_keys.clone(),
                    ciphers: [vec![cipher.name()], vec![cipher.name()]],
                    kexguess2,
                    guesses: true,
                    strict,
                    ext_info: false,
                    ..Offer::default()
                };
                // Without strict key exchange chacha20's nonces count the discarded packet.
                let (mut server, mut client) = connected(config(), Client::new(offer));
                talk(&mut server, &mut client, 1);
                client.begin();
                talk(&mut server, &mut client, 2);
            }
        }
    }
}

#[test]
fn no_common_algorithm_names_both_lists() {
    let bad = |what: &str, offer: Offer| {
        let mut server = Server::new(config());
        let mut client = Client::new(offer);
        let fatal = server.receive(&client.take(), Duration::ZERO).unwrap_err();
        assert_eq!(fatal.code, DisconnectCode::KeyExchange);
        assert!(fatal.text.len() <= 300, "{}", fatal.text.len());
        assert!(fatal.text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
        assert!(fatal.text.starts_with(&format!("no common {what}: the client offers ")));
        fatal.text
    };
    let text = bad(
        "key exchange method",
        Offer { kex: vec!["diffie-hellman-group14-sha1"], ..Offer::default() },
    );
    assert!(text.contains("diffie-hellman-group14-sha1,ext-info-c"), "{text}");
    assert!(text.contains("the relay has mlkem768x25519-sha256,curve25519-sha256,"), "{text}");
    assert_eq!(
        bad("host key type", Offer { host_keys: vec!["ssh-rsa", "ssh-dss"], ..Offer::default() }),
        "no common host key type: the client offers ssh-rsa,ssh-dss; the relay has \
         ssh-ed25519,ecdsa-sha2-nistp256; update the client"
    );
    let cipher = vec!["aes128-gcm@openssh.com"];
    for ciphers in [[vec!["3des-cbc"], cipher.clone()], [cipher.clone(), vec![]]] {
        bad("cipher", Offer { ciphers, ..Offer::default() });
    }
    bad("compression method", Offer { compression: vec!["zlib"], ..Offer::default() });
    let long = "x-very-long-name-of-an-algorithm-from-somewhere@example.com";
    let text = bad("cipher", Offer { ciphers: [vec![long; 500], cipher], ..Offer::default() });
    assert!(text.contains("...; the relay has aes128-gcm"), "{text}");
    assert_eq!(text.len(), 300);
    // MACs that we don't have are no matter, as none is used.
    connected(config(), Client::new(Offer { macs: vec![], ..Offer::default() }));
}

#[test]
fn the_configuration_decides_what_is_offered() {
    let mut few = Config::new(vec![ed25519(3)]);
    few.kex = vec![Kex::NistP256];
    few.ciphers = vec![Cipher::ChaCha20Poly1305];
    let (server, _) = connected(few, Client::new(Offer::default()));
    let negotiated = server.transport.negotiated().unwrap();
    assert_eq!(negotiated.kex, Kex::NistP256);
    assert_eq!(negotiated.cipher_out, Cipher::ChaCha20Poly1305);
    assert_eq!(negotiated.host_key, HostKeyAlgorithm::Ed25519);
}

#[test]
fn rekeys_by_bytes_packets_and_time_in_either_direction() {
    let limits = |bytes, packets| RekeyLimits { bytes, packets, time: Duration::from_hours(1) };
    for limits in [limits(100_000, 1 << 31), limits(1 << 30, 10)] {
        for server_sends in [true, false] {
            let mut config = config();
            config.rekey = limits;
            let (mut server, mut client) = connected(config, Client::new(Offer::default()));
            for round in 0..40 {
                let message = data(round, 30_000);
                if server_sends {
                    server.send(&message);
                } else {
                    client.say(&message);
                }
                settle(&mut server, &mut client).unwrap();
                // As the driver does after each batch.
                server.transport.tick(Duration::ZERO).unwrap();
                settle(&mut server, &mut client).unwrap();
            }
            assert!((4..=11).contains(&server.keys), "{} {limits:?}", server.keys);
            assert_eq!(server.exhausted > 0, !server_sends);
            let got = if server_sends { client.got.split_off(1) } else { server.got };
            assert_eq!(got, (0..40).map(|round| data(round, 30_000)).collect::<Vec<_>>());
        }
    }
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    let hour = Duration::from_hours(1);
    assert_eq!(server.transport.deadline(), Some(hour));
    server.transport.tick(hour.checked_sub(Duration::from_secs(1)).unwrap()).unwrap();
    assert!(server.take().is_empty());
    server.transport.tick(hour).unwrap();
    assert!(!server.transport.is_open());
    let offered = server.take();
    server.transport.tick(hour).unwrap();
    assert_eq!(server.transport.deadline(), Some(hour + Duration::from_secs(30)));
    client.receive(&offered);
    server.receive(&client.take(), hour).unwrap();
    client.receive(&server.take());
    server.receive(&client.take(), hour).unwrap();
    assert_eq!(server.keys, 2);
    assert_eq!(server.transport.deadline(), Some(hour * 2));
}

#[test]
fn an_exchange_that_is_not_answered_ends() {
    let patience = Duration::from_secs(30);
    let mut server = Server::new(config());
    server.take();
    server.transport.tick(Duration::ZERO).unwrap();
    assert_eq!(server.transport.deadline(), Some(patience));
    server.transport.tick(patience.checked_sub(Duration::from_millis(1)).unwrap()).unwrap();
    let fatal = server.transport.tick(patience).unwrap_err();
    assert_eq!(fatal.code, DisconnectCode::KeyExchange);
    assert!(fatal.text.contains("not answered within 30 s"), "{fatal}");

    // Where ours does not even leave, the whole of it is bounded.
    let longest = Duration::from_mins(2);
    let mut server = Server::new(config());
    assert_eq!(server.transport.deadline(), Some(longest));
    let fatal = server.transport.tick(longest).unwrap_err();
    assert!(fatal.text.contains("took longer than 120 s"), "{fatal}");

    // Also later, and where the peer stops half way.
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    let kexinit = client.kexinit();
    client.send(&kexinit);
    server.receive(&client.take(), Duration::from_secs(100)).unwrap();
    server.take();
    server.transport.tick(Duration::from_secs(100)).unwrap();
    assert_eq!(server.transport.deadline(), Some(Duration::from_secs(130)));
    assert!(server.transport.tick(Duration::from_secs(130)).is_err());
}

#[test]
fn messages_are_held_in_order_while_keys_are_exchanged() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.got.clear();
    server.transport.rekey(Duration::ZERO);
    server.take();
    assert!(!server.transport.is_open());
    server.send(&data(1, 50));
    server.send(&[number::SERVICE_ACCEPT]);
    assert!(server.take().is_empty(), "nothing may follow our KEXINIT");

    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.got.clear();
    // The client has not seen our KEXINIT: its messages are as legal as before.
    server.transport.rekey(Duration::ZERO);
    for round in 0..100 {
        server.send(&data(round, 50));
        client.say(&data(round, 50));
    }
    settle(&mut server, &mut client).unwrap();
    let sent: Vec<_> = (0..100).map(|round| data(round, 50)).collect();
    assert_eq!(client.got, sent);
    assert_eq!(server.got, sent);
}

#[test]
fn what_is_held_is_bounded() {
    let (mut server, _client) = connected(config(), Client::new(Offer::default()));
    server.transport.rekey(Duration::ZERO);
    for _ in 0..8 {
        server.send(&data(1, 32_000));
    }
    server.transport.tick(Duration::ZERO).unwrap();
    server.send(&data(1, 32_000));
    assert_eq!(server.transport.deadline(), Some(Duration::ZERO));
    assert!(server.transport.tick(Duration::ZERO).is_err());
}

#[test]
fn disconnect_goes_past_what_is_held_and_is_the_last() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.got.clear();
    server.transport.rekey(Duration::ZERO);
    client.receive(&server.take());
    server.send(&data(1, 50));
    server.transport.disconnect(DisconnectCode::ByApplication, "the window\nclosed");
    server.transport.disconnect(DisconnectCode::ByApplication, "again");
    server.send(&data(2, 50));
    assert!(!server.transport.is_open());
    assert_eq!(server.transport.deadline(), None);
    client.receive(&server.take());
    let message = client.got.pop().unwrap();
    assert!(client.got.is_empty());
    let mut r = Reader::new(&message);
    assert_eq!((r.u8().unwrap(), r.u32().unwrap()), (1, 11));
    assert_eq!(r.text().unwrap(), "the window?closed");
    assert!(server.take().is_empty());
}

#[test]
fn the_peers_disconnect_is_told() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    let mut message = vec![number::DISCONNECT];
    crate::wire::Writer::new(&mut message).u32(11).string(b"bye\n\xff").string("");
    client.send(&message);
    settle(&mut server, &mut client).unwrap();
    assert_eq!(server.disconnected, Some((11, "bye??".into())));
    assert!(!server.transport.is_open());
}

#[test]
fn pings_are_answered_in_order() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.got.clear();
    for round in 0..3 {
        client.send(&[number::PING, 0, 0, 0, 1, round]);
    }
    settle(&mut server, &mut client).unwrap();
    let pongs: Vec<_> = (0..3).map(|round| vec![number::PONG, 0, 0, 0, 1, round]).collect();
    assert_eq!(client.got, pongs);
}

/// A frame of one connection goes to another, opened and sealed where it lies.
#[test]
fn frames_of_one_connection_are_sealed_for_another() {
    for from in Cipher::ALL {
        for to in Cipher::ALL {
            let connect = |cipher: Cipher| {
                let ciphers = [vec![cipher.name()], vec![cipher.name()]];
                connected(config(), Client::new(Offer { ciphers, ..Offer::default() }))
            };
            let (mut one, mut sender) = connect(from);
            let (mut other, mut receiver) = connect(to);
            receiver.got.clear();
            let mut in_place = 0;
            let sizes: Vec<_> = (1..=64).chain([32 * 1024 + 9]).collect();
            for bytes in &sizes {
                sender.send(&data(5, *bytes));
            }
            let mut buffer = sender.take();
            let mut at = 0;
            let mut sent = Vec::new();
            while let Next::Message { frame, message, next, .. } =
                one.inbound.next(&mut buffer, at).unwrap()
            {
                at = next;
                let plain = buffer[message.clone()].to_vec();
                let opened = buffer[frame.clone()].to_vec();
                if other.transport.seal_frame(&mut buffer[frame.clone()]) {
                    in_place += 1;
                    assert_ne!(&buffer[message], plain);
                    // The caller keeps the order of the wire.
                    sent.extend(other.take());
                    sent.extend(&buffer[frame]);
                } else {
                    assert_eq!(&buffer[frame], opened);
                    other.send(&plain);
                }
            }
            sent.extend(other.take());
            receiver.receive(&sent);
            let all: Vec<_> = sizes.iter().map(|bytes| data(5, *bytes)).collect();
            assert_eq!(receiver.got, all);
            let blocks_fit = to == Cipher::ChaCha20Poly1305 || from != Cipher::ChaCha20Poly1305;
            assert_eq!(in_place == sizes.len(), blocks_fit, "{from:?} {to:?}");
            assert!(in_place > sizes.len() / 3);
        }
    }
}

#[test]
fn frames_are_not_sealed_while_keys_are_exchanged() {
    let (mut one, mut sender) = connected(config(), Client::new(Offer::default()));
    sender.send(&data(1, 100));
    let mut buffer = sender.take();
    let Next::Message { frame, .. } = one.inbound.next(&mut buffer, 0).unwrap() else { panic!() };
    let (mut other, _receiver) = connected(config(), Client::new(Offer::default()));
    other.transport.rekey(Duration::ZERO);
    let before = buffer.clone();
    assert!(!other.transport.seal_frame(&mut buffer[frame]));
    assert_eq!(buffer, before);
    // What is no frame is not sealed either.
    let (mut other, _receiver) = connected(config(), Client::new(Offer::default()));
    let whole = before.len();
    for change in [
        |frame: &mut Vec<u8>| frame[3] ^= 16,
        |frame: &mut Vec<u8>| frame[0] = 0xff,
        |frame: &mut Vec<u8>| frame[4] = 3,
        |frame: &mut Vec<u8>| frame[4] = 255,
        |frame: &mut Vec<u8>| frame.truncate(4),
        Vec::clear,
    ] {
        let mut frame = before.clone();
        change(&mut frame);
        assert!(!other.transport.seal_frame(&mut frame));
    }
    assert!(other.transport.seal_frame(&mut buffer[..whole]));
}

#[test]
fn nothing_is_read_between_newkeys_and_the_keys() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.begin();
    for _ in 0..2 {
        server.receive(&client.take(), Duration::ZERO).unwrap();
        client.receive(&server.take());
    }
    client.send(&data(1, 10));
    let mut bytes = client.take();
    let Next::Message { message, next, .. } = server.inbound.next(&mut bytes, 0).unwrap() else {
        panic!()
    };
    assert_eq!(&bytes[message.clone()], [number::NEWKEYS]);
    // The driver forgot to hand it on.
    assert!(server.inbound.next(&mut bytes, next).is_err());
    let handled = server.transport.handle(&bytes[message], Duration::ZERO).unwrap();
    let Handled::Keys { opener, reset } = handled else { panic!() };
    server.inbound.install(opener, reset);
    assert!(matches!(server.inbound.next(&mut bytes, next), Ok(Next::Message { .. })));
}
