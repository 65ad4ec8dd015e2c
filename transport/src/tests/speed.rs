//! Bytes per second through the layers: `cargo test --release -p tidegate-transport speed --
//! --ignored --nocapture`.
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::time::Instant;

use crate::layer::{HEADROOM, Layer};
use crate::websocket::Server;
use crate::websocket::client::Client;

const TOTAL: usize = 2 << 30;
const READ: usize = 256 * 1024;

fn report(what: &str, bytes: usize, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = bytes as f64 / seconds / 1e6;
    println!("{what}: {rate:.0} MB/s");
}

/// What `from` makes of `TOTAL` bytes goes to `to` in reads of `READ` bytes.
fn through(what: &str, from: &mut dyn Layer, to: &mut dyn Layer) {
    let mut wire = Vec::new();
    for _ in 0..64 {
        from.send(&[7; 16_380], &mut wire).unwrap();
    }
    let mut buffer = vec![0; HEADROOM + READ];
    let (began, mut moved) = (Instant::now(), 0);
    while moved < TOTAL {
        for part in wire.chunks(READ) {
            buffer[HEADROOM..HEADROOM + part.len()].copy_from_slice(part);
            let got = to.receive(&mut buffer, HEADROOM..HEADROOM + part.len(), &mut Vec::new());
            moved += got.unwrap().plain;
        }
    }
    report(what, moved, began);
}

#[test]
#[ignore = "measures"]
fn speed() {
    let key = || Box::new(|key: &mut [u8]| key.fill(0x5a));
    through("frames from a client, unmasked", &mut Client::new(key()), &mut Server::default());
    through("frames from a server", &mut Server::default(), &mut Client::new(key()));
    let (began, mut sent, mut out) = (Instant::now(), 0, Vec::new());
    let mut server = Server::default();
    while sent < TOTAL {
        out.clear();
        for _ in 0..4 {
            server.send(&[7; 16_380], &mut out).unwrap();
            sent += 16_380;
        }
    }
    report("frames to a client", sent, began);
}
