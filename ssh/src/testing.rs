//! What tests, benches and fuzzing need besides: the pieces that the client role is made of, and cores
//! without encryption. Nothing of a relay turns this on.

use std::sync::Arc;
use std::time::Duration;

use crate::cipher::Forged;
use crate::core::Core;
use crate::transport::Transport;
use crate::{Cipher, Config, Opener, Random};

pub use crate::kex::{Direction, Exchange, HASH, Secrets};
pub use crate::outbound::Outbound;

/// The keys that open what the other side seals with these secrets.
pub fn opener(cipher: Cipher, secrets: &Secrets) -> Result<Opener, Forged> {
    Opener::new(cipher, secrets)
}

/// A core as after its first key exchange, whose session has this id, but in plain text.
pub fn plain_core(
    config: Arc<Config>,
    random: Box<dyn Random + Send>,
    session: [u8; HASH],
) -> Core {
    let transport = Transport::plain(Arc::clone(&config), random, session);
    Core::after_keys(config, transport)
}

/// The same, as after a login.
pub fn plain_core_within(
    config: Arc<Config>,
    random: Box<dyn Random + Send>,
    session: [u8; HASH],
) -> Core {
    let mut core = plain_core(config, random, session);
    core.authenticated(Duration::ZERO);
    core
}
