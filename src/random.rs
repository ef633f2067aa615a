//! Random numbers that depend on a seed, the same on every machine.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// What random numbers are for: each has a stream of its own, so that none are drawn twice.
pub const WEIGHTS: u64 = 0;
pub const IMAGES: u64 = 1;
pub const SAMPLE: u64 = 2;
pub const ROUNDING: u64 = 3;
/// The first of as many as there are families of symmetries.
pub const FAMILIES: u64 = 16;

/// A stream of the seed's.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}
