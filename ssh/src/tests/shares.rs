//! Shares that no honest client sends, in the manner of project Wycheproof.

use std::time::Duration;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};

use tidegate_ssh_client::{Client, Offer};

use super::{Seeded, Server, config};
use crate::DisconnectCode;
use crate::algorithm::Kex;
use crate::kex;
use crate::message::number;
use crate::wire::Writer;

fn refused(method: Kex, share: &[u8]) {
    let fatal = kex::reply(method, share, &mut Seeded(9)).err();
    let fatal = fatal.unwrap_or_else(|| panic!("{method:?} takes {share:02x?}"));
    assert_eq!(fatal.code, DisconnectCode::KeyExchange);
    assert!(fatal.text.contains("not valid for"), "{fatal}");
}

fn taken(method: Kex, share: &[u8]) -> kex::Reply {
    kex::reply(method, share, &mut Seeded(9)).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// All encodings in 255 bits of the points of small order on the curve and its twist
/// (<https://cr.yp.to/ecdh.html#validate>): the secret would be zero.
const SMALL_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn mlkem_key() -> Vec<u8> {
    let key = DecapsulationKey::generate(&ML_KEM_768).unwrap();
    key.encapsulation_key().unwrap().key_bytes().unwrap().as_ref().to_vec()
}

#[test]
fn x25519_of_small_order_or_wrong_length() {
    let hybrid = mlkem_key();
    for share in SMALL_ORDER {
        let share = hex(share);
        for method in [Kex::Curve25519, Kex::Curve25519Libssh] {
            refused(method, &share);
            // X25519 ignores the topmost bit (RFC 7748 section 5).
            let mut topmost = share.clone();
            topmost[31] |= 0x80;
            refused(method, &topmost);
        }
        refused(Kex::MlKem768X25519, &[hybrid.clone(), share].concat());
    }
    for length in [0, 1, 31, 33, 44, 64, 1000] {
        refused(Kex::Curve25519, &vec![9; length]);
    }
    // X.509's form of a key, which aws-lc would parse.
    let x509 = hex("302a300506032b656e032100");
    refused(Kex::Curve25519, &[x509, vec![9; 32]].concat());
}

#[test]
fn x25519_that_is_not_canonical_is_taken_as_the_rfc_says() {
    // RFC 7748 section 5: values from 2^255 - 19 on are reduced. 2 = 2^255 - 17 mod p.
    let mut large = [0xff; 32];
    (large[0], large[31]) = (0xef, 0x7f);
    let mut small = [0; 32];
    small[0] = 2;
    let secret = taken(Kex::Curve25519, &small).secret;
    assert_eq!(taken(Kex::Curve25519, &large).secret, secret);
    large[31] = 0xff;
    assert_eq!(taken(Kex::Curve25519, &large).secret, secret);
}

#[test]
fn p256_off_the_curve_or_in_another_form() {
    let key = PrivateKey::from_private_key(&ECDH_P256, &[7; 32]).unwrap();
    let point = key.compute_public_key().unwrap().as_ref().to_vec();
    taken(Kex::NistP256, &point);
    for at in [1, 32, 33, 64] {
        let mut off = point.clone();
        off[at] ^= 1;
        refused(Kex::NistP256, &off);
    }
    // At infinity, as the one byte of SEC 1 and filled up.
    refused(Kex::NistP256, &[0]);
    refused(Kex::NistP256, &[0; 65]);
    refused(Kex::NistP256, &[vec![4], vec![0; 64]].concat());
    // Compressed, and hybrid.
    let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    refused(Kex::NistP256, &compressed);
    let mut hybrid = point.clone();
    hybrid[0] = 6 + (point[64] & 1);
    refused(Kex::NistP256, &hybrid);
    // x is not below the prime: the same point as x = 0 has, were it reduced.
    let prime = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    let y_of_zero = "66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4";
    taken(Kex::NistP256, &hex(&format!("04{}{y_of_zero}", "00".repeat(32))));
    refused(Kex::NistP256, &hex(&format!("04{prime}{y_of_zero}")));
    for length in [0, 1, 64, 66, 97] {
        let mut share = point.clone();
        share.resize(length, 4);
        refused(Kex::NistP256, &share);
    }
    // The curves next door.
    refused(Kex::NistP256, &[vec![4], vec![1; 96]].concat());
}

#[test]
fn mlkem_of_wrong_length_or_beyond_the_modulus() {
    let key = mlkem_key();
    let point = [9; 32];
    let share = [key.as_slice(), &point].concat();
    assert_eq!(taken(Kex::MlKem768X25519, &share).share.len(), 1088 + 32);
    for length in [0, 32, 1183, 1184, 1215, 1217, 1600] {
        let mut share = share.clone();
        share.resize(length, 9);
        refused(Kex::MlKem768X25519, &share);
    }
    // FIPS 203 section 7.2: coefficients of 12 bits, below 3329. 4095 and 3329 are not.
    for at in [0, 3, 600, 1149] {
        let mut beyond = share.clone();
        (beyond[at], beyond[at + 1]) = (0xff, beyond[at + 1] | 0x0f);
        refused(Kex::MlKem768X25519, &beyond);
        (beyond[at], beyond[at + 1]) = (0x01, (beyond[at + 1] & 0xf0) | 0x0d);
        refused(Kex::MlKem768X25519, &beyond);
    }
}

#[test]
fn the_secret_is_encoded_as_each_method_says() {
    // RFC 7748 section 5.2 has this pair, whose result begins with 0xc3: an mpint gets a zero in front.
    struct Fixed(Vec<u8>);
    impl crate::random::Random for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), crate::random::NoRandom> {
            bytes.copy_from_slice(&self.0);
            Ok(())
        }
    }
    let scalar = hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    let point = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    let shared = hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    let reply = kex::reply(Kex::Curve25519, &point, &mut Fixed(scalar)).unwrap();
    assert_eq!(reply.secret.as_slice(), [&[0, 0, 0, 33, 0], shared.as_slice()].concat());
    let hybrid = taken(Kex::MlKem768X25519, &[mlkem_key(), vec![9; 32]].concat());
    assert_eq!(hybrid.secret.len(), 36);
    assert_eq!(hybrid.secret[..4], [0, 0, 0, 32]);
}

#[test]
fn a_bad_share_ends_the_connection_with_a_disconnect() {
    let mut client = Client::new(Offer { kex: vec!["curve25519-sha256"], ..Offer::default() });
    let mut message = vec![number::KEX_INIT];
    Writer::new(&mut message).string([0; 32]);
    client.send(&message);
    let mut server = Server::new(config());
    let fatal = server.receive(&client.take(), Duration::ZERO).unwrap_err();
    server.take();
    server.transport.disconnect(fatal.code, &fatal.text);
    let sent = server.take();
    assert_eq!(sent[5..10], [1, 0, 0, 0, 3]);
    // A share that ends early, or goes on after its end.
    for message in [&[30][..], &[30, 0, 0, 0, 32, 1], &[30, 0, 0, 0, 1, 9, 9]] {
        let mut client = Client::new(Offer::default());
        client.send(message);
        let fatal = Server::new(config()).receive(&client.take(), Duration::ZERO).unwrap_err();
        assert_eq!(fatal.code, DisconnectCode::Protocol);
    }
}
