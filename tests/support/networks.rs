//! Networks for property tests.

use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use qlnet::weights::Config;

/// Any small network: layers of any width from two on, so that a first layer may begin with a projection too.
pub fn configs() -> impl Strategy<Value = Config> {
    configs_from(2)
}

/// Any small network of at least this width.
pub fn configs_from(width: usize) -> impl Strategy<Value = Config> {
    let layers = prop::collection::vec((width..6, 1usize..4), 1..4);
    (width..6, layers, 1usize..7, 1usize..4, 2usize..5).prop_map(|(stem, layers, hidden, filters, classes)| {
        let mut config = Config::new(stem, &layers, 0, filters, classes);
        config.layers.iter_mut().flatten().for_each(|block| block.hidden_channels = hidden);
        config
    })
}

/// So many random cases. The seed that they are made from is another in every run, unless the environment has
/// it, and the test harness shows it if the test fails.
pub fn seeded(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(cases));
    }
    println!("to repeat it: PROPTEST_RNG_SEED={}", config.rng_seed);
    config
}
