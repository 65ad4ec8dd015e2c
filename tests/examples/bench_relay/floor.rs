//! What a relay cannot do without on this machine: to open and seal each packet, and to copy the
//! bytes from one socket to another. In CPU-seconds per GB of the thread that does it.

use std::hint::black_box;
use std::io::{Read as _, Write as _};

use aws_lc_rs::aead::chacha20_poly1305_openssh as openssh;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};

use crate::compare::median;
use crate::session::pair;
use crate::transfer::short;

/// The data of one packet as OpenSSH sends it.
const PACKET: usize = 32 << 10;
/// The packet's length, which is not encrypted with AES-GCM.
const LENGTH: usize = 4;

/// The floor of one cipher.
#[derive(Clone, Debug)]
pub struct Floor {
    pub cipher: String,
    /// Opening and sealing 32 KiB in place.
    pub sealing: f64,
    /// Reading from one loopback socket and writing to another, 256 KiB at once.
    pub copy: f64,
    /// The same with 32 KiB.
    pub small_copy: f64,
}

impl Floor {
    pub fn sum(&self) -> f64 {
        self.sealing + self.copy
    }
}

/// Each figure is the median of `rounds`, taken in turn over `bytes` bytes.
pub fn floors(ciphers: &[String], rounds: usize, bytes: u64) -> Vec<Floor> {
    let (mut large, mut small) = (Vec::new(), Vec::new());
    let mut sealings = vec![Vec::new(); ciphers.len()];
    for _ in 0..rounds.max(1) {
        large.push(copy(256 << 10, bytes));
        small.push(copy(PACKET, bytes));
        for (into, cipher) in sealings.iter_mut().zip(ciphers) {
            into.push(sealing(cipher, bytes));
        }
        eprintln!("floor: copies {large:.2?} {small:.2?}, open and seal {sealings:.2?}");
    }
    let (copy, small_copy) = (median(large), median(small));
    let floor = |(cipher, sealing): (&String, Vec<f64>)| Floor {
        cipher: short(cipher).to_owned(),
        sealing: median(sealing),
        copy,
        small_copy,
    };
    ciphers.iter().zip(sealings).map(floor).collect()
}

/// Seconds that this thread has had of a processor.
fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a process's lifetime fits an f64")]
    let (seconds, nanoseconds) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds + nanoseconds / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "a few GB fit an f64")]
fn per_gb(seconds: f64, bytes: u64) -> f64 {
    seconds / (bytes as f64 / 1e9)
}

fn sealing(cipher: &str, bytes: u64) -> f64 {
    let packets = bytes / PACKET as u64;
    let begun = thread_seconds();
    match cipher {
        "aes128-gcm@openssh.com" => gcm(&AES_128_GCM, packets),
        "aes256-gcm@openssh.com" => gcm(&AES_256_GCM, packets),
        "chacha20-poly1305@openssh.com" => chacha(packets),
        other => panic!("no floor for {other}"),
    }
    per_gb(thread_seconds() - begun, packets * PACKET as u64)
}

/// The same key and nonce for both, so that what was sealed is what is opened next.
fn gcm(algorithm: &'static Algorithm, packets: u64) {
    let key = vec![1; algorithm.key_len()];
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("a key"));
    let nonce = || Nonce::assume_unique_for_key([2; 12]);
    let length = u32::try_from(PACKET).expect("a length").to_be_bytes();
    let mut packet = vec![3; PACKET];
    let seal = |packet: &mut [u8]| {
        key.seal_in_place_separate_tag(nonce(), Aad::from(length), packet).expect("a seal")
    };
    let mut tag = seal(&mut packet);
    for _ in 0..packets {
        let opened = key.open_in_place_separate_tag(
            nonce(),
            Aad::from(length),
            tag.as_ref(),
            black_box(&mut packet),
        );
        opened.expect("what was sealed");
        tag = seal(&mut packet);
    }
}

fn chacha(packets: u64) {
    let (opening, sealing) =
        (openssh::OpeningKey::new(&[1; 64]), openssh::SealingKey::new(&[1; 64]));
    let mut packet = vec![3; LENGTH + PACKET];
    let mut tag = [0; openssh::TAG_LEN];
    sealing.seal_in_place(5, &mut packet, &mut tag);
    for _ in 0..packets {
        let mut length = [0; LENGTH];
        length.copy_from_slice(&packet[..LENGTH]);
        let length = opening.decrypt_packet_length(5, length);
        opening.open_in_place(5, black_box(&mut packet), &tag).expect("what was sealed");
        packet[..LENGTH].copy_from_slice(&length);
        sealing.seal_in_place(5, &mut packet, &mut tag);
    }
}

/// A copier between a source and a sink, each a thread; the copier's time alone counts.
fn copy(piece: usize, bytes: u64) -> f64 {
    let (mut from, mut source) = pair();
    let (mut to, mut sink) = pair();
    let writing = std::thread::spawn(move || {
        let buffer = vec![4; 256 << 10];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
            source.write_all(&buffer[..length]).expect("a write");
            left -= length as u64;
        }
    });
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while sink.read(&mut buffer).expect("a read") > 0 {}
    });
    let begun = thread_seconds();
    let mut buffer = vec![0; piece];
    loop {
        match from.read(&mut buffer).expect("a read") {
            0 => break,
            count => to.write_all(&buffer[..count]).expect("a write"),
        }
    }
    let took = thread_seconds() - begun;
    drop(to);
    writing.join().expect("the source");
    reading.join().expect("the sink");
    per_gb(took, bytes)
}
