//! The same bytes lead to the same messages however they are split.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_draw::cases;

use tidegate_ssh_client::{Client, Offer};

use super::{Server, config};
use crate::algorithm::Cipher;
use crate::message::number;
use crate::{Config, DisconnectCode};

/// Everything a client sends in one connection with two exchanges, in one piece; the server is
/// deterministic, so that it can be given the same again.
fn recorded(cipher: Cipher, strict: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut server = Server::new(few(cipher));
    let mut client = Client::new(Offer {
        kex: vec!["curve25519-sha256", "ecdh-sha2-nistp256"],
        strict,
        ..Offer::default()
    });
    let mut record = Vec::new();
    let mut round = |client: &mut Client, server: &mut Server| {
        for _ in 0..4 {
            let bytes = client.take();
            server.receive(&bytes, Duration::ZERO).unwrap();
            record.extend(bytes);
            client.receive(&server.take());
        }
    };
    round(&mut client, &mut server);
    for bytes in [1, 20, 300, 33_000] {
        client.say(&vec![number::CHANNEL_DATA; bytes]);
    }
    client.begin();
    round(&mut client, &mut server);
    client.say(&[number::CHANNEL_DATA, 7]);
    round(&mut client, &mut server);
    assert_eq!((server.keys, server.got.len()), (2, 5));
    (record, server.got)
}

fn few(cipher: Cipher) -> Config {
    let mut config = config();
    config.host_keys.truncate(1);
    config.ciphers = vec![cipher];
    config
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn any_split_gives_the_same(
        cipher in prop::sample::select(Cipher::ALL.to_vec()),
        strict: bool,
        mut cuts in prop::collection::vec(0_usize..36_000, 0..200),
        small in 1_usize..20,
    ) {
        let (record, messages) = recorded(cipher, strict);
        // The first 2,000 bytes, where most happens, in small pieces.
        cuts.extend((0..2000).step_by(small));
        cuts.push(record.len());
        cuts.retain(|cut| *cut <= record.len());
        cuts.sort_unstable();
        let mut server = Server::new(few(cipher));
        let mut at = 0;
        for cut in cuts {
            server.receive(&record[at..cut], Duration::ZERO).unwrap();
            at = cut;
        }
        prop_assert_eq!(server.got, messages);
        prop_assert_eq!(server.keys, 2);
    }

    /// Nothing that a peer sends makes us panic, and nothing leads to a message before the keys.
    #[test]
    fn any_bytes_are_survived(
        greeted: bool,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut server = Server::new(config());
        if greeted {
            server.receive(b"SSH-2.0-x\r\n", Duration::ZERO).unwrap();
        }
        if let Err(fatal) = server.receive(&bytes, Duration::ZERO) {
            prop_assert!(fatal.text.len() <= 300);
            prop_assert!(matches!(
                fatal.code,
                DisconnectCode::Protocol | DisconnectCode::VersionNotSupported
            ));
        }
        prop_assert!(server.got.is_empty() && server.keys == 0);
    }

    /// A change anywhere in what a client sends ends the connection or leaves it waiting, and never
    /// gives another message.
    #[test]
    fn any_change_is_noticed(
        cipher in prop::sample::select(Cipher::ALL.to_vec()),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let (mut record, messages) = recorded(cipher, true);
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        let mut server = Server::new(few(cipher));
        let result = server.receive(&record, Duration::ZERO);
        prop_assert!(server.got.len() < messages.len() || result.is_ok());
        prop_assert_eq!(&server.got[..], &messages[..server.got.len()]);
    }
}
