//! Random numbers that depend on a seed, the same on every machine.

use candle_core::{Device, Result, Shape, Tensor};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The stream of random weights. Each purpose has a stream of its own, so that no number is used for two purposes.
pub const WEIGHTS: u64 = 0;
/// The stream of images of noise.
pub const IMAGES: u64 = 1;
/// The stream that chooses the images of a sample.
pub const SAMPLE: u64 = 2;
/// The stream of changes as small as rounding.
pub const ROUNDING: u64 = 3;
/// The stream of images that a network is calibrated with.
pub const CALIBRATION: u64 = 4;
/// The stream of what is drawn to prepare weights for int8.
pub const PREPARATION: u64 = 5;
/// The first of as many streams as there are families of symmetries.
pub const FAMILIES: u64 = 16;

/// A generator for one stream of a seed.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Normally distributed numbers with mean 0 and standard deviation 1, float32 on the CPU.
///
/// # Errors
/// If there is no memory.
pub fn normal(shape: impl Into<Shape>, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let shape = shape.into();
    let values: Vec<f32> = StandardNormal.sample_iter(rng).take(shape.elem_count()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ops::Range;

    use rand_distr::Uniform;

    use super::*;

    /// A generator for a test. It prints its seed, which the harness shows if the test fails.
    pub(crate) fn test_stream(seed: u64) -> ChaCha8Rng {
        println!("random numbers of seed {seed}");
        stream(seed, IMAGES)
    }

    /// So many numbers, each as likely as any other of the range.
    pub(crate) fn uniform(count: usize, range: Range<f32>, rng: &mut ChaCha8Rng) -> Vec<f32> {
        Uniform::try_from(range).unwrap().sample_iter(rng).take(count).collect()
    }

    #[test]
    fn numbers_depend_on_seed_and_stream_alone() {
        let numbers = |seed, of| normal(8, &mut stream(seed, of)).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers(1, IMAGES), numbers(1, IMAGES));
        assert_ne!(numbers(1, IMAGES), numbers(2, IMAGES));
        assert_ne!(numbers(1, IMAGES), numbers(1, SAMPLE));
    }
}
