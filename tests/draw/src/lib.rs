//! What tests draw at random. All of it hangs on one number, which is printed, so that whatever fails can
//! be drawn again: `TIDEGATE_SEED`. scripts/test.sh sets it, so that CI draws the same each time; the
//! long forms draw one.

use std::hash::{BuildHasher as _, RandomState};

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// What proptest runs of a property that says nothing: PROPTEST_CASES is in units of it.
const USUAL: u32 = 256;

/// `TIDEGATE_SEED`, or else a number of no pattern. It is printed.
pub fn seed() -> u64 {
    let seed = std::env::var("TIDEGATE_SEED").map_or_else(
        |_| RandomState::new().hash_one("a seed"),
        |text| text.parse().expect("TIDEGATE_SEED is a number"),
    );
    eprintln!("TIDEGATE_SEED={seed}");
    seed
}

/// How a property is tested: by so many cases, or with PROPTEST_CASES in proportion: ten times as many
/// for 2560. From [`seed`], if PROPTEST_RNG_SEED names no other.
pub fn cases(usual: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let scaled = |count: u32| {
        let scaled = u64::from(count) * u64::from(default.cases) / u64::from(USUAL);
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    ProptestConfig {
        cases: scaled(usual),
        max_local_rejects: scaled(default.max_local_rejects).max(default.max_local_rejects),
        max_global_rejects: scaled(default.max_global_rejects).max(default.max_global_rejects),
        rng_seed: match default.rng_seed {
            RngSeed::Random => RngSeed::Fixed(seed()),
            fixed @ RngSeed::Fixed(_) => fixed,
        },
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    #[test]
    fn the_same_seed_draws_the_same() {
        let drawn = |seed| {
            let mut runner =
                TestRunner::new(ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..cases(1) });
            let tree = proptest::num::u64::ANY.new_tree(&mut runner).expect("a number");
            tree.current()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(cases(96).rng_seed != RngSeed::Random);
    }
}
