//! What a frame costs from one connection to another: `cargo test --release -p tidegate-ssh -- --ignored
//! --nocapture speed`.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::time::{Duration, Instant};

use tidegate_ssh_client::{Client, Offer};

use super::{Server, config, connected};
use crate::algorithm::Cipher;
use crate::message::number;
use crate::{Next, Opener, Sealer};

fn with_cipher(cipher: Cipher) -> (Server, Client) {
    let ciphers = [vec![cipher.name()], vec![cipher.name()]];
    connected(config(), Client::new(Offer { ciphers, ..Offer::default() }))
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    const FRAMES: usize = 8;
    const ROUNDS: usize = 2000;
    for cipher in Cipher::ALL {
        for bytes in [32 * 1024, 1024, 64] {
            let (mut one, mut sender) = with_cipher(cipher);
            let (mut other, _receiver) = with_cipher(cipher);
            let mut message = vec![number::CHANNEL_DATA];
            message.resize(9 + bytes, 7);
            // The quickest round: others may use the machine.
            let mut spent = Duration::MAX;
            for _ in 0..ROUNDS {
                for _ in 0..FRAMES {
                    sender.send(&message);
                }
                let mut buffer = sender.take();
                let start = Instant::now();
                let mut at = 0;
                while let Next::Message { frame, next, .. } =
                    one.inbound.next(&mut buffer, at).unwrap()
                {
                    assert!(other.transport.seal_frame(&mut buffer[frame]));
                    at = next;
                }
                spent = spent.min(start.elapsed());
                assert_eq!(at, buffer.len());
            }
            let whole = f64::from(u32::try_from(bytes * FRAMES).unwrap());
            println!(
                "{} of {bytes}: opened and sealed in {:.3} s/GB",
                cipher.name(),
                spent.as_secs_f64() / whole * 1e9
            );
        }
    }
    println!("Opener {} bytes, Sealer {}", size_of::<Opener>(), size_of::<Sealer>());
    println!(
        "Inbound {}, Transport {}",
        size_of::<crate::Inbound>(),
        size_of::<crate::Transport>()
    );
}
