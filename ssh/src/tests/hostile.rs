//! What a peer must not send, and what becomes of it.

use std::time::Duration;

use tidegate_ssh_client::{Client, Offer};

use super::{Server, config, connected, settle};
use crate::algorithm::Cipher;
use crate::cipher::{LENGTH, Layout};
use crate::message::number;
use crate::{DisconnectCode, Fatal};

const ZERO: Duration = Duration::ZERO;

/// A packet as it is before keys.
fn clear(packet_length: u32, padding: u8, rest: usize) -> Vec<u8> {
    let mut packet = packet_length.to_be_bytes().to_vec();
    packet.push(padding);
    packet.resize(5 + rest, number::IGNORE);
    packet
}

/// A server that has read a client's version line.
fn greeted() -> Server {
    let mut server = Server::new(config());
    server.receive(b"SSH-2.0-x\r\n", ZERO).unwrap();
    server
}

#[test]
fn lengths_that_no_packet_has() {
    for length in [0, 1, 4, 5, 11, 13, 35_004, 0x7fff_ffff, 0xffff_ffff] {
        // Told by its length, so that nothing more is waited for.
        let fatal = greeted().receive(&u32::to_be_bytes(length), ZERO).unwrap_err();
        assert_eq!(fatal.code, DisconnectCode::Protocol, "{length}");
        assert!(fatal.text.contains(&format!("cannot have {length} bytes")), "{fatal}");
    }
    for (padding, text) in [
        (0, "less than 4 bytes"),
        (3, "less than 4 bytes"),
        (11, "no message"),
        (12, "longer than the packet"),
        (255, "longer than the packet"),
    ] {
        let fatal = greeted().receive(&clear(12, padding, 11), ZERO).unwrap_err();
        assert_eq!(fatal.code, DisconnectCode::Protocol);
        assert!(fatal.text.contains(text), "{fatal}");
    }
    greeted().receive(&clear(12, 4, 11), ZERO).unwrap();
    // The longest.
    greeted().receive(&clear(34_996, 255, 34_995), ZERO).unwrap();
}

#[test]
fn lengths_under_ciphers() {
    assert_eq!(
        [0, 1, 15, 16, 17, 32].map(|n| Layout::GCM.fits(n)),
        [true, false, false, true, false, true]
    );
    assert_eq!([0, 4, 8, 12, 16].map(|n| Layout::CHACHA.fits(n)), [true, false, true, false, true]);
    assert_eq!([0, 4, 8, 12, 16].map(|n| Layout::NONE.fits(n)), [false, true, false, true, false]);
    for layout in [Layout::NONE, Layout::GCM, Layout::CHACHA] {
        for message in 1..100 {
            let padding = usize::from(layout.padding(message));
            assert!(layout.fits(1 + message + padding));
            assert!((4..4 + layout.block).contains(&padding));
        }
    }
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
        for length in [0, 1, 15, 17, 35_008, u32::MAX] {
            let (mut server, _) = with_cipher(cipher);
            let fatal = server.receive(&length.to_be_bytes(), ZERO).unwrap_err();
            assert_eq!(fatal.code, DisconnectCode::Protocol);
        }
    }
}

fn with_cipher(cipher: Cipher) -> (Server, Client) {
    let ciphers = [vec![cipher.name()], vec![cipher.name()]];
    connected(config(), Client::new(Offer { ciphers, ..Offer::default() }))
}

#[test]
fn any_bit_that_is_changed_is_noticed() {
    for cipher in Cipher::ALL {
        let (_, mut client) = with_cipher(cipher);
        client.send(&[number::IGNORE, 0, 0, 0, 0]);
        let whole = client.take().len();
        for at in 0..whole * 8 {
            let (mut server, mut client) = with_cipher(cipher);
            client.send(&[number::IGNORE, 0, 0, 0, 0]);
            let mut packet = client.take();
            packet[at / 8] ^= 1 << (at % 8);
            // A length that grew must not make it wait.
            packet.resize(40_000, 0);
            let fatal = server.receive(&packet, ZERO).unwrap_err();
            if at / 8 >= LENGTH {
                assert_eq!(fatal.code, DisconnectCode::Mac);
            }
        }
    }
}

#[test]
fn packets_that_are_repeated_swapped_or_left_out_are_noticed() {
    for cipher in Cipher::ALL {
        let packets = || {
            let (server, mut client) = with_cipher(cipher);
            let packets = [1, 2].map(|content| {
                client.send(&[number::CHANNEL_DATA, content]);
                client.take()
            });
            (server, packets)
        };
        let (mut server, [one, two]) = packets();
        server.receive(&one, ZERO).unwrap();
        server.receive(&two, ZERO).unwrap();
        // Under chacha20 the length makes no sense already, else the tag is wrong.
        let again = [two, vec![0; 40_000]].concat();
        assert!(server.receive(&again, ZERO).is_err());
        let (mut server, [_, two]) = packets();
        assert!(server.receive(&[two, vec![0; 40_000]].concat(), ZERO).is_err());
        assert!(server.got.is_empty());
    }
}

/// Drives a client up to its KEXINIT, or beyond, and lets `interfere` send something there.
fn interfered(strict: bool, point: usize, message: &[u8]) -> Result<Server, Fatal> {
    let mut client = Client::silent(Offer { strict, ..Offer::default() });
    client.outbound.output.append(b"SSH-2.0-Test_1.0 by us\r\n");
    let mut server = Server::new(config());
    if point == 0 {
        client.send(message);
    }
    client.begin();
    if point == 1 {
        client.send(message);
    }
    server.receive(&client.take(), ZERO)?;
    client.receive(&server.take());
    if point == 2 {
        // Behind the share.
        client.send(message);
    }
    settle(&mut server, &mut client)?;
    Ok(server)
}

#[test]
fn strict_key_exchange_takes_nothing_besides() {
    let ignore = [number::IGNORE, 0, 0, 0, 0];
    let debug = [number::DEBUG, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let unimplemented = [number::UNIMPLEMENTED, 0, 0, 0, 0];
    for message in [&ignore[..], &debug, &unimplemented] {
        for point in 0..3 {
            let strict = interfered(true, point, message).err().unwrap();
            assert_eq!(strict.code, DisconnectCode::Protocol, "{strict}");
            assert!(strict.text.contains("strict"));
            // RFC 4253 section 7.1 allows them.
            let server = interfered(false, point, message).unwrap();
            assert!(server.transport.is_open());
        }
    }
}

#[test]
fn what_may_not_come_while_keys_are_exchanged() {
    let mut later = Vec::new();
    for number in [5, 6, 7, 8, 19, 50, 80, 94, 192, 193, 255] {
        for point in 0..3 {
            for strict in [true, false] {
                let fatal = interfered(strict, point, &[number, 0, 0, 0, 0]).err().unwrap();
                assert_eq!(fatal.code, DisconnectCode::Protocol, "{number} {point} {fatal}");
            }
        }
        later.push(number);
    }
    // The same in a later exchange, between the peer's KEXINIT and its NEWKEYS.
    for number in later {
        let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
        client.begin();
        client.send(&[number, 0, 0, 0, 0]);
        let fatal = server.receive(&client.take(), ZERO).unwrap_err();
        assert_eq!(fatal.code, DisconnectCode::Protocol);
    }
    // IGNORE and its like may come in a later one, strict or not.
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.begin();
    client.send(&[number::IGNORE, 0, 0, 0, 0]);
    settle(&mut server, &mut client).unwrap();
    assert_eq!(server.keys, 2);
}

#[test]
fn messages_of_key_exchange_in_the_wrong_place() {
    for message in [&[number::NEWKEYS][..], &[30, 0, 0, 0, 0], &[31], &[34], &[22]] {
        for point in 0..2 {
            assert!(interfered(true, point, message).is_err(), "{message:?} {point}");
        }
        let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
        client.send(message);
        let fatal = settle(&mut server, &mut client).unwrap_err();
        assert_eq!(fatal.code, DisconnectCode::Protocol);
    }
}

#[test]
fn newkeys_that_say_more() {
    let (mut server, mut client) = (Server::new(config()), Client::new(Offer::default()));
    for _ in 0..2 {
        server.receive(&client.take(), ZERO).unwrap();
        client.receive(&server.take());
    }
    let mut newkeys = client.take();
    assert_eq!(newkeys[5], number::NEWKEYS);
    // One byte of the padding belongs to the message.
    newkeys[4] -= 1;
    assert_eq!(server.receive(&newkeys, ZERO).unwrap_err().code, DisconnectCode::Protocol);
    assert_eq!(server.keys, 0);
}

#[test]
fn a_second_kexinit_in_an_exchange() {
    let mut client = Client::new(Offer::default());
    let kexinit = client.kexinit();
    client.send(&kexinit);
    let mut server = Server::new(config());
    assert!(server.receive(&client.take(), ZERO).is_err());
}

#[test]
fn kexinits_that_are_malformed() {
    let whole = Client::new(Offer::default()).kexinit();
    let offer = |message: &[u8]| {
        let mut client = Client::silent(Offer::default());
        client.outbound.output.append(b"SSH-2.0-Test_1.0 by us\r\n");
        client.send(message);
        Server::new(config()).receive(&client.take(), ZERO)
    };
    offer(&whole).unwrap();
    for end in 1..whole.len() {
        assert_eq!(offer(&whole[..end]).unwrap_err().code, DisconnectCode::Protocol, "{end}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    offer(&longer).unwrap_err();
    let mut not_ascii = whole.clone();
    not_ascii[21] = 0xff;
    offer(&not_ascii).unwrap_err();
    let mut endless = whole;
    endless[17..21].copy_from_slice(&[0xff; 4]);
    offer(&endless).unwrap_err();
}

/// draft-miller-sshm-strict-kex: a client that says so but does not begin anew at 0 cannot be served.
/// Stripping the marker on the way changes the exchange hash, which the client's keys depend on.
#[test]
fn a_marker_that_was_stripped_on_the_way_leads_to_other_keys() {
    let mut client = Client::new(Offer::default());
    let mut server = Server::new(config());
    let mut bytes = client.take();
    let marker = b"kex-strict-c-v00@openssh.com";
    let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    bytes[at] = b'x';
    server.receive(&bytes, ZERO).unwrap();
    let to_client = server.take();
    client.receive(&to_client);
    server.receive(&client.take(), ZERO).unwrap();
    let reply = server.take();
    // The signature is over another hash than the client's.
    let refused = client.try_receive(&reply).unwrap_err();
    assert!(refused.to_string().contains("signature"), "{refused}");
}
