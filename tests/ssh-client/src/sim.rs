//! A server and a client over millions of random steps: bytes split at will, commands in any order,
//! keys that change from both sides at once, streams that stall, ends in any order. The same seed gives
//! the same run, but for what aws-lc draws by itself (ML-KEM, ECDSA).
//!
//! What is checked at each step: nothing ends the connection that should not, every byte is the one
//! that its stream has there, replies keep their order, windows and memory stay in their bounds. And
//! when all has come to rest: what was sent has arrived, unless a CLOSE dropped it.

mod dice;
mod rest;
mod server;
mod steps;
mod stream;
mod world;

use dice::Dice;
use world::World;

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub steps: u64,
    pub connections: u64,
    /// Those that came to rest; the others ended by a goodbye in the middle.
    pub rested: u64,
    /// Key exchanges.
    pub exchanges: u64,
    pub channels: u64,
    /// Data that was checked, in bytes.
    pub bytes: u64,
    /// Frames that passed in place.
    pub in_place: u64,
    /// Replies whose order was checked.
    pub replies: u64,
}

/// The steps of one connection, at most.
const LONGEST: u64 = 20_000;

/// Runs connections one after the other until so many steps are done.
pub fn run(seed: u64, steps: u64) -> Tally {
    let mut tally = Tally::default();
    let mut connection = 0;
    while tally.steps < steps {
        let seed = Dice::new(seed).fork(connection);
        connection += 1;
        one(seed, steps - tally.steps, &mut tally);
    }
    tally
}

/// One connection; on a failure the seed that repeats it is printed.
pub fn one(seed: u64, most: u64, tally: &mut Tally) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this was connection {:#x}", self.0);
            }
        }
    }
    let _named = Named(seed);
    let mut dice = Dice::new(seed);
    let length = 1 + dice.below(LONGEST.min(most));
    let mut world = World::new(dice);
    tally.connections += 1;
    for _ in 0..length {
        tally.steps += 1;
        world.step();
        world.look();
        if world.is_over() {
            break;
        }
    }
    if !world.is_over() {
        world.rest();
        tally.rested += 1;
    }
    world.end(tally);
}
