//! What a peer may ask for in vain: key exchanges without end, answers that it does not read, more than
//! fits, and how long it is waited for.

use std::time::Duration;

use tidegate_ssh_client::{Client, Offer};

use super::{Server, config, connected, settle};
use crate::algorithm::Cipher;
use crate::message::number;
use crate::plain::keys::ed25519;
use crate::plain::{Peer, word};
use crate::{DisconnectCode, Fatal};

const ZERO: Duration = Duration::ZERO;
/// What a peer that is not logged in may make us keep.
const MOST_BEFORE_LOGIN: usize = 64 << 10;

/// How many exchanges the client may begin, one right after the other, up to `most`.
fn exchanges(server: &mut Server, client: &mut Client, most: usize) -> Result<(), (usize, Fatal)> {
    for count in 0..most {
        client.begin();
        settle(server, client).map_err(|fatal| (count, fatal))?;
    }
    Ok(())
}

#[test]
fn key_exchanges_before_a_login_are_few() {
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    let (count, fatal) = exchanges(&mut server, &mut client, 20).unwrap_err();
    assert_eq!((count, fatal.code), (8, DisconnectCode::ByApplication));
    let text = "new keys were asked for too often before a login; raise RekeyLimit in the client";
    assert_eq!(fatal.text, text);
    // Ours are not the peer's.
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    for _ in 0..20 {
        server.transport.rekey(ZERO);
        client.begin();
        settle(&mut server, &mut client).unwrap();
    }
}

#[test]
fn empty_key_exchanges_after_a_login_end_and_those_of_a_transfer_do_not() {
    let logged_in = || {
        let (mut server, client) = connected(config(), Client::new(Offer::default()));
        server.transport.logged_in(ZERO);
        (server, client)
    };
    let (mut server, mut client) = logged_in();
    let (count, fatal) = exchanges(&mut server, &mut client, 100).unwrap_err();
    assert_eq!((count, fatal.code), (64, DisconnectCode::ByApplication));
    assert!(fatal.text.contains("too often for what was sent"), "{fatal}");

    // Messages that say nothing are not what is sent.
    let (mut server, mut client) = logged_in();
    let padded = (0..100).try_for_each(|_| {
        let mut ignored = vec![number::IGNORE];
        ignored.resize(10_000, 0);
        client.send(&ignored);
        exchanges(&mut server, &mut client, 1)
    });
    padded.unwrap_err();

    let data = [&[number::CHANNEL_DATA][..], &[0; 2500]].concat();
    for server_sends in [true, false] {
        let (mut server, mut client) = logged_in();
        for _ in 0..200 {
            if server_sends {
                server.send(&data);
            } else {
                client.say(&data);
            }
            settle(&mut server, &mut client).unwrap();
            exchanges(&mut server, &mut client, 1).unwrap();
        }
    }
}

#[test]
fn what_a_peer_leaves_unread_before_a_login_is_bounded() {
    for message in [&ping(32_000)[..], &[200]] {
        let mut peer = Peer::new();
        let fatal = loop {
            let done = peer.hand(message);
            assert!(peer.core.output().len() < MOST_BEFORE_LOGIN);
            if let Err(fatal) = done {
                break fatal;
            }
        };
        assert_eq!(fatal.code, DisconnectCode::ByApplication);
        assert_eq!(fatal.text, "the peer asks for more than it reads");

        // One that reads is not sent away, and after a login there is more room.
        let mut peer = Peer::new();
        for _ in 0..5000 {
            peer.hand(message).unwrap();
            let all = peer.core.output().len();
            peer.core.output().consume(all);
        }
        peer.enter();
        while peer.core.output().len() < MOST_BEFORE_LOGIN {
            peer.hand(message).unwrap();
        }
    }
}

/// A server that has begun an exchange behind data that its client does not take.
fn clogged() -> (Server, Client) {
    let (mut server, client) = connected(config(), Client::new(Offer::default()));
    server.send(&[number::CHANNEL_DATA, 1]);
    server.transport.rekey(ZERO);
    (server, client)
}

#[test]
fn a_peer_is_waited_for_from_when_our_kexinit_has_left() {
    let at = Duration::from_secs;
    let (mut server, mut client) = clogged();
    server.transport.tick(at(100)).unwrap();
    // All but the last byte of it.
    let all = server.transport.output().len();
    let mut bytes = server.transport.output().as_slice().to_vec();
    server.transport.output().consume(all - 1);
    server.transport.tick(at(100)).unwrap();
    assert_eq!(server.transport.deadline(), Some(at(120)));
    server.transport.output().consume(1);
    assert_eq!(server.transport.deadline(), Some(ZERO), "it wants to know when that was");
    server.transport.tick(at(101)).unwrap();
    // Longer than that no exchange may take.
    assert_eq!(server.transport.deadline(), Some(at(120)));
    client.receive(&std::mem::take(&mut bytes));
    server.receive(&client.take(), at(119)).unwrap();
    assert!(server.transport.is_open());

    let (mut server, _client) = clogged();
    server.transport.tick(at(40)).unwrap();
    server.take();
    server.transport.tick(at(41)).unwrap();
    assert_eq!(server.transport.deadline(), Some(at(71)));
    server.transport.tick(at(70)).unwrap();
    let fatal = server.transport.tick(at(71)).unwrap_err();
    assert_eq!(fatal.code, DisconnectCode::KeyExchange);

    let (mut server, _client) = clogged();
    assert_eq!(server.transport.tick(at(120)).unwrap_err().code, DisconnectCode::KeyExchange);
}

fn ping(whole: usize) -> Vec<u8> {
    let mut message = vec![number::PING];
    message.extend(u32::try_from(whole - 5).unwrap().to_be_bytes());
    message.resize(whole, 7);
    message
}

#[test]
fn pings_are_answered_as_far_as_the_answer_fits() {
    // The longest message that a packet of 35,000 bytes holds.
    let most = |cipher: Cipher| if cipher == Cipher::ChaCha20Poly1305 { 34_995 } else { 34_987 };
    for from in Cipher::ALL {
        for to in Cipher::ALL {
            let offer = Offer { ciphers: [vec![from.name()], vec![to.name()]], ..Offer::default() };
            let (mut server, mut client) = connected(config(), Client::new(offer));
            client.got.clear();
            let fits = most(from).min(most(to));
            client.send(&ping(fits));
            settle(&mut server, &mut client).unwrap();
            let pong = client.got.pop().unwrap();
            assert_eq!((pong[0], &pong[1..]), (number::PONG, &ping(fits)[1..]));
            if most(from) > most(to) {
                client.send(&ping(most(from)));
                settle(&mut server, &mut client).unwrap();
                // The core answers UNIMPLEMENTED.
                assert_eq!(server.got.pop().unwrap()[0], number::PING);
            }
            // It may have to wait for keys whose packets are shorter.
            server.transport.rekey(ZERO);
            client.send(&ping(most(from)));
            server.receive(&client.take(), ZERO).unwrap();
            settle(&mut server, &mut client).unwrap();
            let (answered, not) = (client.got.len(), server.got.len());
            assert_eq!((answered, not), if most(from) == 34_987 { (1, 0) } else { (0, 1) });
        }
    }
    let mut peer = Peer::new();
    peer.hand(&ping(34_995)).unwrap();
    let answer = peer.heard_one();
    assert_eq!((answer[0], word(&answer, 1)), (number::UNIMPLEMENTED, peer.sequence));
}

#[test]
fn ext_info_is_taken_right_after_the_first_newkeys_alone() {
    let info = [number::EXT_INFO, 0, 0, 0, 0];
    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.send(&info);
    settle(&mut server, &mut client).unwrap();
    assert!(server.got.is_empty());
    client.send(&info);
    client.begin();
    settle(&mut server, &mut client).unwrap();
    client.send(&info);
    settle(&mut server, &mut client).unwrap();
    // The core answers UNIMPLEMENTED.
    assert_eq!(server.got, [info, info]);

    let (mut server, mut client) = connected(config(), Client::new(Offer::default()));
    client.send(&[number::IGNORE, 0, 0, 0, 0]);
    client.send(&info);
    settle(&mut server, &mut client).unwrap();
    assert_eq!(server.got, [info]);

    let mut peer = Peer::logged_in(config());
    peer.hand(&info).unwrap();
    assert_eq!(peer.heard_one()[0], number::UNIMPLEMENTED);
}

#[test]
fn the_service_may_be_asked_for_again_and_a_login_goes_on() {
    let mut peer = Peer::new();
    for _ in 0..3 {
        peer.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth")).unwrap();
        assert_eq!(peer.heard_one()[0], number::SERVICE_ACCEPT);
        peer.hand(&ed25519().probe("alice")).unwrap();
        assert_eq!(peer.heard_one()[0], number::USERAUTH_FAILURE);
    }
    peer.enter();
    let done = peer.say(|w| w.u8(number::SERVICE_REQUEST).string("ssh-userauth"));
    peer.assert_dead(done, 7);
}
