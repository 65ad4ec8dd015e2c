//! Packets and keys that were computed by other programs: Python's hashlib, and its cryptography 48
//! (OpenSSL) with the layouts of RFC 5647 and PROTOCOL.chacha20poly1305 written out there.

use crate::algorithm::Cipher;
use crate::cipher::{LENGTH, Opener, Sealer};
use crate::kex::{Direction, Exchange, Secrets};
use crate::wire::Writer;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Keys 00 01 02 .. 3f; the counter of the nonce comes round within three packets.
fn secrets() -> Secrets {
    Secrets {
        key: std::array::from_fn(|at| u8::try_from(at).unwrap()),
        iv: hex("a0a1a2a3fffffffffffffffe").try_into().unwrap(),
    }
}

/// IGNORE with `bytes` bytes of content 00 01 02 .., padded by 77, with room for a tag.
fn frame(block: usize, bytes: u8) -> Vec<u8> {
    let mut message = vec![2];
    Writer::new(&mut message).string((0..bytes).collect::<Vec<_>>());
    let mut padding = block - (1 + message.len()) % block;
    if padding < 4 {
        padding += block;
    }
    let length = u32::try_from(1 + message.len() + padding).unwrap();
    let mut frame = length.to_be_bytes().to_vec();
    frame.push(u8::try_from(padding).unwrap());
    frame.extend(message);
    frame.resize(frame.len() + padding, 0x77);
    frame.resize(frame.len() + 16, 0);
    frame
}

fn check(cipher: Cipher, block: usize, packets: &[(u32, u8, &str)]) {
    let mut sealer = Sealer::new(cipher, &secrets()).unwrap();
    let mut opener = Opener::new(cipher, &secrets()).unwrap();
    for (sequence, bytes, packet) in packets {
        let plain = frame(block, *bytes);
        let mut sealed = plain.clone();
        sealer.seal(*sequence, &mut sealed).unwrap();
        assert_eq!(sealed, hex(packet));
        let length = opener.length(*sequence, *sealed.first_chunk::<LENGTH>().unwrap());
        assert_eq!(length as usize, plain.len() - LENGTH - 16);
        opener.open(*sequence, length, &mut sealed).unwrap();
        assert_eq!(sealed[..plain.len() - 16], plain[..plain.len() - 16]);
    }
}

#[test]
fn packets_under_aes_gcm() {
    check(
        Cipher::Aes128Gcm,
        16,
        &[
            (0, 5, "00000010e49816ad2aaa8464aefd914dc9c00df5bcec2d2bedf24b67f8e64f7c8b2d154b"),
            (0, 6, "00000010d43172475ec026c0b28bb00e3d2b6d522a572c7f0fece6a7fb6ef411a835496d"),
            (
                0,
                7,
                "00000020995fce9d4788346e51c52e2677bd0cd71bffa2806417d40208cf5bdf8319f518\
            cf7db0536a2b9c5254fd0dada65c8648",
            ),
        ],
    );
    check(
        Cipher::Aes256Gcm,
        16,
        &[
            (0, 5, "00000010e1120c135d7d9213df12fa264c0e01bff7cd364e3bd29bd04f3e383dac0bc14e"),
            (0, 6, "00000010a0bdc24ffc29732c185d17595c6aad0d548948eea8943cfe31079a39a1ccc58a"),
            (
                0,
                7,
                "000000200fbb5c362363b5bdbb38bf3657ad12ace5e76a328e3ae2621442b2434c2d3d2b\
            b22861b274ec7c7909401550eab97570",
            ),
        ],
    );
}

#[test]
fn packets_under_chacha20() {
    check(
        Cipher::ChaCha20Poly1305,
        8,
        &[
            (0, 5, "94450e491dba4231ade3a6d011625816d83439504ba11c76d021c59b33ef7a5ca6cf33c8"),
            (7, 5, "a39afcba2d4415434e862a5f6e6ebf87a0f8a45b4ae2929a55ea2fc3a115475a9728bc8d"),
            (
                u32::MAX,
                5,
                "b90ee4a00c900c9bae01d4e39435afc505f175d9acd411210f5c466141be64f50751506a",
            ),
        ],
    );
}

#[test]
fn the_exchange_hash_and_the_keys() {
    // K begins with 0x80: as an mpint it gets a zero in front, as a string it does not.
    let k: Vec<_> = [0x80].into_iter().chain(0..31).collect();
    let (mut mpint, mut string) = (Vec::new(), Vec::new());
    Writer::new(&mut mpint).mpint(&k);
    Writer::new(&mut string).string(&k);
    let cases = [
        (
            mpint,
            "04b1dd23cbb8afe6940f992394faf5310780fa2b952ab0e30af93c40442245ca",
            ["44ebe9d7f1b07a2c6d2bbdff", "1e7fbd450bf9e302068c5255"],
            [
                "578d77554ef25b56d9e15bcccba92f6da05b80b623c62b9962de3c93a26d75cbc57af31e\
                 ba48675564ccb1be52b54776173b8bf81c04bc80a08571441ea1f905",
                "12d25ffaf36734d92574a16da72dd4b69af676b64aea31d93d7e4be71eadd93d3ce64991\
                 c3cca263731e5c658042ab3f526bc9d3b0e46b4bb0a3b1278d8dbeb9",
            ],
        ),
        (
            string,
            "e5b803d84f2648956c146c8cda3243f5a001c2c813c91eaf997da434c2258f4c",
            ["8b61bf0661bb6d5aa84bb8ed", "c85f602f40e9933d103971ca"],
            [
                "a1c309c2b5d6d870f6d645e8d27c2f3a370eb12374b45cde964c42e2dceff824c8f04d61\
                 65e669d83b7904b64fef64e22c6975321c1aff12b21c3448688e2aff",
                "ef461e890ca1ed8dfe364c588724ecb4631a60fd37b34c8ca5f79825c57facaaaadb24d5\
                 d94b3a647a804fd9ebb033852907b9322a8c2d91c0206b6b9f2a8d52",
            ],
        ),
    ];
    let session: [u8; 32] = std::array::from_fn(|at| 31 - u8::try_from(at).unwrap());
    for (secret, hash, ivs, keys) in cases {
        let lines: [&[u8]; 2] = [b"SSH-2.0-OpenSSH_9.9", b"SSH-2.0-Tidegate"];
        let offers: [&[u8]; 2] = [b"\x14client", b"\x14server"];
        let exchange = Exchange::new(lines, offers);
        let h = exchange.finish(b"blob", [&[1; 32], &[2; 32]], &secret);
        assert_eq!(h.as_slice(), hex(hash));
        for (index, direction) in
            [Direction::ClientToServer, Direction::ServerToClient].into_iter().enumerate()
        {
            let secrets = Secrets::derive(direction, &secret, &h, &session);
            assert_eq!(secrets.iv.as_slice(), hex(ivs[index]));
            assert_eq!(secrets.key.as_slice(), hex(keys[index]));
        }
    }
}
