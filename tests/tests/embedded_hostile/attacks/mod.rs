//! The attacks, by what they attack.

mod arrival;
mod channels;
mod cut;
mod exchange;
mod login;
mod messages;
mod terminals;
pub mod waiting;

pub use login::FORGED;

use crate::run::Attack;

/// Those that end by themselves.
pub fn all() -> Vec<Attack> {
    [
        arrival::ATTACKS,
        exchange::ATTACKS,
        login::ATTACKS,
        messages::ATTACKS,
        channels::ATTACKS,
        terminals::ATTACKS,
        cut::ATTACKS,
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect()
}
