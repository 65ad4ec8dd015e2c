//! The client's side of the transport, written from the RFCs for tests alone: it trusts nothing that
//! the server side computes.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use aws_lc_rs::signature::{self, UnparsedPublicKey as Verifier};

use super::Seeded;
use crate::algorithm::{Cipher, Kex};
use crate::cipher::Opener;
use crate::kex::{Direction, Exchange, Secrets};
use crate::message::number;
use crate::outbound::Outbound;
use crate::random::Random;
use crate::wire::{Reader, Writer};
use crate::{Inbound, Next, RekeyLimits};

/// What a client offers; tests change what they are about.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a marker of its own")]
pub struct Offer {
    pub line: &'static str,
    pub kex: Vec<&'static str>,
    pub host_keys: Vec<&'static str>,
    pub ciphers: [Vec<&'static str>; 2],
    pub macs: Vec<&'static str>,
    pub compression: Vec<&'static str>,
    pub strict: bool,
    pub ext_info: bool,
    pub kexguess2: bool,
    /// Sends its favourite method's share at once.
    pub guesses: bool,
}

impl Default for Offer {
    fn default() -> Self {
        let ciphers: Vec<_> = Cipher::ALL.iter().map(|c| c.name()).collect();
        Self {
            line: "SSH-2.0-Test_1.0 by us",
            kex: Kex::ALL.iter().map(|k| k.name()).collect(),
            host_keys: vec!["ssh-ed25519", "ecdsa-sha2-nistp256"],
            ciphers: [ciphers.clone(), ciphers],
            macs: vec!["hmac-sha2-256"],
            compression: vec!["none", "zlib@openssh.com"],
            strict: true,
            ext_info: true,
            kexguess2: false,
            guesses: false,
        }
    }
}

enum Private {
    X25519(PrivateKey),
    P256(PrivateKey),
    Hybrid(Box<DecapsulationKey>, PrivateKey),
}

#[derive(Default)]
struct Under {
    ours: Vec<u8>,
    theirs: Option<Vec<u8>>,
    share: Vec<u8>,
    private: Option<Private>,
    opener: Option<Opener>,
}

pub struct Client {
    offer: Offer,
    random: Seeded,
    inbound: Inbound,
    pub outbound: Outbound,
    buffer: Vec<u8>,
    server_line: Vec<u8>,
    under: Option<Under>,
    pub session: Option<[u8; 32]>,
    pub got: Vec<Vec<u8>>,
    /// Every message that came, the transport's too.
    pub seen: Vec<u8>,
    pub exchanges: usize,
}

impl Client {
    pub fn new(offer: Offer) -> Self {
        let mut client = Self::silent(offer);
        let line = client.offer.line;
        client.outbound.output.append(line.as_bytes());
        client.outbound.output.append(b"\r\n");
        client.begin();
        client
    }

    /// One that sends nothing by itself yet.
    pub fn silent(offer: Offer) -> Self {
        Self {
            offer,
            random: Seeded(0),
            inbound: Inbound::new(RekeyLimits::default()),
            outbound: Outbound::new(),
            buffer: Vec::new(),
            server_line: Vec::new(),
            under: None,
            session: None,
            got: Vec::new(),
            seen: Vec::new(),
            exchanges: 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.under.is_none() && self.session.is_some()
    }

    pub fn take(&mut self) -> Vec<u8> {
        let bytes = self.outbound.output.as_slice().to_vec();
        self.outbound.output.consume(bytes.len());
        bytes
    }

    /// A message at once, whatever the state.
    pub fn send(&mut self, message: &[u8]) {
        self.outbound
            .write(&mut self.random, |w| {
                w.bytes(message);
            })
            .unwrap();
    }

    /// A message when it may be sent.
    pub fn say(&mut self, message: &[u8]) {
        if self.under.is_some() {
            self.outbound
                .hold(|w| {
                    w.bytes(message);
                })
                .unwrap();
        } else {
            self.send(message);
        }
    }

    pub fn kexinit(&mut self) -> Vec<u8> {
        let offer = self.offer.clone();
        let mut message = Vec::new();
        let mut w = Writer::new(&mut message);
        let mut cookie = [0; 16];
        self.random.fill(&mut cookie).unwrap();
        let mut kex = offer.kex;
        for (marker, listed) in [
            ("ext-info-c", offer.ext_info),
            ("kex-strict-c-v00@openssh.com", offer.strict && self.session.is_none()),
            ("kexguess2@matt.ucc.asn.au", offer.kexguess2),
        ] {
            if listed {
                kex.push(marker);
            }
        }
        w.u8(20).bytes(&cookie).name_list(kex).name_list(offer.host_keys);
        for list in offer.ciphers {
            w.name_list(list);
        }
        w.name_list(offer.macs.clone()).name_list(offer.macs);
        w.name_list(offer.compression.clone()).name_list(offer.compression);
        w.name_list([]).name_list([]).bool(offer.guesses).u32(0);
        message
    }

    pub fn begin(&mut self) {
        if self.under.is_some() {
            return;
        }
        let ours = self.kexinit();
        self.send(&ours);
        self.under = Some(Under { ours, ..Under::default() });
        if self.offer.guesses {
            let favourite = self.offer.kex[0];
            self.share(favourite);
        }
    }

    fn share(&mut self, method: &str) {
        let mut scalar = [0; 32];
        self.random.fill(&mut scalar).unwrap();
        let x25519 = PrivateKey::from_private_key(&X25519, &scalar).unwrap();
        let x_public = x25519.compute_public_key().unwrap().as_ref().to_vec();
        let (private, share) = match method {
            "curve25519-sha256" | "curve25519-sha256@libssh.org" => {
                (Private::X25519(x25519), x_public)
            }
            "ecdh-sha2-nistp256" => {
                let key = PrivateKey::from_private_key(&ECDH_P256, &scalar).unwrap();
                let public = key.compute_public_key().unwrap().as_ref().to_vec();
                (Private::P256(key), public)
            }
            "mlkem768x25519-sha256" => {
                let key = DecapsulationKey::generate(&ML_KEM_768).unwrap();
                let mut share =
                    key.encapsulation_key().unwrap().key_bytes().unwrap().as_ref().to_vec();
                share.extend_from_slice(&x_public);
                (Private::Hybrid(Box::new(key), x25519), share)
            }
            // A guess that the server has never heard of.
            _ => {
                let mut message = vec![number::KEX_INIT];
                Writer::new(&mut message).string("whatever that method says");
                self.send(&message);
                return;
            }
        };
        let mut message = vec![number::KEX_INIT];
        Writer::new(&mut message).string(&share);
        self.send(&message);
        let under = self.under.as_mut().unwrap();
        under.private = Some(private);
        under.share = share;
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match self.inbound.next(&mut self.buffer, at).unwrap() {
                Next::Incomplete { .. } => break,
                Next::Version { line, next } => {
                    self.server_line = self.buffer[line].to_vec();
                    at = next;
                }
                Next::Message { message, next, .. } => {
                    let message = self.buffer[message].to_vec();
                    at = next;
                    self.handle(&message);
                }
                Next::Exhausted => self.begin(),
            }
        }
        self.buffer.drain(..at);
    }

    fn handle(&mut self, message: &[u8]) {
        self.seen.push(message[0]);
        match message[0] {
            number::KEXINIT => {
                self.begin();
                let under = self.under.as_mut().unwrap();
                assert!(under.theirs.is_none());
                under.theirs = Some(message.to_vec());
                let method = self.choose(message);
                if !self.guessed_right(message) {
                    self.share(method);
                }
            }
            number::KEX_REPLY => self.reply(message),
            number::NEWKEYS => {
                let opener = self.under.take().unwrap().opener.unwrap();
                self.inbound.install(opener, self.offer.strict);
                self.exchanges += 1;
            }
            _ => self.got.push(message.to_vec()),
        }
    }

    fn lists(kexinit: &[u8]) -> Vec<Vec<String>> {
        let mut r = Reader::new(kexinit);
        r.bytes(17).unwrap();
        (0..10).map(|_| r.name_list().unwrap().split(',').map(str::to_owned).collect()).collect()
    }

    fn first(ours: &[&'static str], theirs: &[String]) -> &'static str {
        ours.iter().find(|name| theirs.iter().any(|theirs| theirs == *name)).unwrap()
    }

    fn choose(&self, theirs: &[u8]) -> &'static str {
        Self::first(&self.offer.kex, &Self::lists(theirs)[0])
    }

    fn guessed_right(&self, theirs: &[u8]) -> bool {
        let lists = Self::lists(theirs);
        let kex = Self::first(&self.offer.kex, &lists[0]);
        let host_key = Self::first(&self.offer.host_keys, &lists[1]);
        self.offer.guesses
            && self.offer.kex[0] == kex
            && self.offer.host_keys[0] == host_key
            && (self.offer.kexguess2 || (lists[0][0] == kex && lists[1][0] == host_key))
    }

    fn reply(&mut self, message: &[u8]) {
        let under = self.under.as_mut().unwrap();
        let theirs = under.theirs.clone().unwrap();
        let lists = Self::lists(&theirs);
        let mut r = Reader::new(&message[1..]);
        let (blob, share, signed) = (r.string().unwrap(), r.string().unwrap(), r.string().unwrap());
        r.end().unwrap();

        let mut secret = Vec::new();
        let mut w = Writer::new(&mut secret);
        let x25519 = |key: &PrivateKey, point: &[u8]| {
            agree(key, UnparsedPublicKey::new(&X25519, point), (), |s| Ok(s.to_vec())).unwrap()
        };
        match under.private.take().unwrap() {
            Private::X25519(key) => {
                w.mpint(&x25519(&key, share));
            }
            Private::P256(key) => {
                agree(&key, UnparsedPublicKey::new(&ECDH_P256, share), (), |s| {
                    w.mpint(s);
                    Ok(())
                })
                .unwrap();
            }
            Private::Hybrid(kem, key) => {
                let (ciphertext, point) = share.split_at(1088);
                let mut both = kem.decapsulate(ciphertext.into()).unwrap().as_ref().to_vec();
                both.extend(x25519(&key, point));
                w.string(digest(&SHA256, &both));
            }
        }
        let hash =
            Exchange::new([self.offer.line.as_bytes(), &self.server_line], [&under.ours, &theirs])
                .finish(blob, [&under.share, share], &secret);
        verify(blob, signed, &hash, Self::first(&self.offer.host_keys, &lists[1]));

        let session = *self.session.get_or_insert(hash);
        let cipher = |index: usize| {
            let name = Self::first(&self.offer.ciphers[index], &lists[2 + index]);
            Cipher::ALL.into_iter().find(|cipher| cipher.name() == name).unwrap()
        };
        let keys = |direction| Secrets::derive(direction, &secret, &hash, &session);
        under.opener = Some(Opener::new(cipher(1), &keys(Direction::ServerToClient)).unwrap());
        let (out, keys) = (cipher(0), keys(Direction::ClientToServer));
        self.send(&[number::NEWKEYS]);
        self.outbound.install(out, &keys, self.offer.strict).unwrap();
        self.outbound.release(&mut self.random).unwrap();
    }
}

/// The server's signature over the exchange hash.
fn verify(blob: &[u8], signed: &[u8], hash: &[u8], algorithm: &str) {
    let (mut key, mut signed) = (Reader::new(blob), Reader::new(signed));
    assert_eq!(key.string().unwrap(), algorithm.as_bytes());
    assert_eq!(signed.string().unwrap(), algorithm.as_bytes());
    let signature = signed.string().unwrap();
    signed.end().unwrap();
    if algorithm == "ssh-ed25519" {
        Verifier::new(&signature::ED25519, key.string().unwrap()).verify(hash, signature).unwrap();
    } else {
        assert_eq!(key.string().unwrap(), b"nistp256");
        let mut parts = Reader::new(signature);
        let mut fixed = [0; 64];
        for half in fixed.chunks_mut(32) {
            let number = parts.mpint().unwrap();
            half[32 - number.len()..].copy_from_slice(number);
        }
        parts.end().unwrap();
        Verifier::new(&signature::ECDSA_P256_SHA256_FIXED, key.string().unwrap())
            .verify(hash, &fixed)
            .unwrap();
    }
    key.end().unwrap();
}
