//! Users' keys of every kind, and what they sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

use super::message;
use crate::message::number;
use crate::wire::Writer;

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

pub(crate) struct TestKey {
    pub algorithm: &'static str,
    pub blob: Vec<u8>,
    sign: Sign,
}

fn wire(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    build(&mut Writer::new(&mut bytes));
    bytes
}

pub(crate) fn ed25519() -> TestKey {
    let pair = Ed25519KeyPair::generate().unwrap();
    let blob = wire(|w| {
        w.string("ssh-ed25519").string(pair.public_key().as_ref());
    });
    let sign = Box::new(move |message: &[u8]| pair.sign(message).as_ref().to_vec());
    TestKey { algorithm: "ssh-ed25519", blob, sign }
}

fn ecdsa(
    algorithm: &'static str,
    curve: &'static str,
    how: &'static EcdsaSigningAlgorithm,
) -> TestKey {
    let pair = EcdsaKeyPair::generate(how).unwrap();
    let blob = wire(|w| {
        w.string(algorithm).string(curve).string(pair.public_key().as_ref());
    });
    let sign = Box::new(move |message: &[u8]| {
        let fixed = pair.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
        wire(|w| {
            w.mpint(r).mpint(s);
        })
    });
    TestKey { algorithm, blob, sign }
}

pub(crate) fn rsa(algorithm: &'static str) -> TestKey {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // RSAPublicKey of RFC 8017: its modulus of 2048 bits begins behind 9 bytes.
    let modulus = pair.public_key().as_ref()[9..][..256].to_vec();
    let blob = wire(|w| {
        w.string("ssh-rsa").mpint(&[1, 0, 1]).mpint(&modulus);
    });
    let padding = if algorithm == "rsa-sha2-512" { &RSA_PKCS1_SHA512 } else { &RSA_PKCS1_SHA256 };
    let sign = Box::new(move |message: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    });
    TestKey { algorithm, blob, sign }
}

/// One of each kind.
pub(crate) fn all() -> Vec<TestKey> {
    vec![
        ed25519(),
        ecdsa("ecdsa-sha2-nistp256", "nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ecdsa("ecdsa-sha2-nistp384", "nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ecdsa("ecdsa-sha2-nistp521", "nistp521", &ECDSA_P521_SHA512_FIXED_SIGNING),
        rsa("rsa-sha2-256"),
        rsa("rsa-sha2-512"),
    ]
}

/// A `publickey` request up to its signature.
pub(crate) fn request(user: &str, signed: bool, algorithm: &str, blob: &[u8]) -> Vec<u8> {
    message(|w| {
        w.u8(number::USERAUTH_REQUEST).string(user).string("ssh-connection").string("publickey");
        w.bool(signed).string(algorithm).string(blob)
    })
}

impl TestKey {
    pub fn probe(&self, user: &str) -> Vec<u8> {
        request(user, false, self.algorithm, &self.blob)
    }

    /// The signature of a request, as it goes over the wire.
    pub fn signature(&self, session: &[u8], request: &[u8]) -> Vec<u8> {
        self.signature_as(self.algorithm, session, request)
    }

    pub fn signature_as(&self, algorithm: &str, session: &[u8], request: &[u8]) -> Vec<u8> {
        let covered = wire(|w| {
            w.string(session).bytes(request);
        });
        wire(|w| {
            w.string(algorithm).string((self.sign)(&covered));
        })
    }

    /// The raw signature of a message.
    pub fn raw(&self, message: &[u8]) -> Vec<u8> {
        (self.sign)(message)
    }

    pub fn login(&self, user: &str, session: &[u8]) -> Vec<u8> {
        let mut request = request(user, true, self.algorithm, &self.blob);
        let signature = self.signature(session, &request);
        Writer::new(&mut request).string(signature);
        request
    }

    /// publickey-hostbound-v00@openssh.com.
    pub fn hostbound(&self, user: &str, session: &[u8], host_key: &[u8]) -> Vec<u8> {
        let mut request = message(|w| {
            w.u8(number::USERAUTH_REQUEST).string(user).string("ssh-connection");
            w.string("publickey-hostbound-v00@openssh.com");
            w.bool(true).string(self.algorithm).string(&self.blob).string(host_key)
        });
        let signature = self.signature(session, &request);
        Writer::new(&mut request).string(signature);
        request
    }
}
